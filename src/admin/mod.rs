//! The admin endpoint: metrics and health over HTTP. It reads copies of the state and changes nothing itself: what clients of the
//! control socket want changed is passed on as an [`Order`].
//!
//! It runs on a thread of its own, "admin", which gives way to the one that moves data. `http` takes clients in, bounds their
//! number, and answers them. Through `moments` it gets copies of the state, which is all that the loop does for it; `metrics`
//! and `agreement` are what there is to say of them, and `desk` has it said once to all who ask at the same time.

mod agreement;
mod body;
mod desk;
mod http;
mod limits;
mod metrics;
mod moments;
mod orders;
mod park;
mod sockets;

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::panic::catch_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_io::Async;
use rustix::event::{EventfdFlags, eventfd};
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{FutureExt, or};

use crate::sys;
use crate::sys::process::Process;
use agreement::Kernel;
use body::Room;
use http::{Clients, Hosts, Ordering, ReserveFd, Routes, Serving};
pub use limits::ClientLimits;
pub use moments::Answers;
use orders::Orders;
pub use orders::{Ask, Order};
use park::Park;
pub use sockets::Control;
use sockets::Listeners;

/// The thread's stack.
const STACK_BYTES: usize = 256 * 1024;
/// What the thread adds to its nice value: on one busy core, the thread that moves data has nine tenths of the time.
const NICE: i32 = 10;

/// How long clients of an endpoint that is retired may take to get the answers they have asked for.
const RETIREMENT: Duration = Duration::from_secs(5);

/// The endpoint's listening sockets, with everything that it must have opened before descriptors can run out.
#[derive(Debug)]
pub struct Endpoint {
    listeners: Listeners,
    process: Process,
    kernel: sys::sockets::SocketTables,
    reserve: ReserveFd,
    park: Park,
    limits: ClientLimits,
    hosts: Hosts,
    orders: Option<Orders>,
}

impl Endpoint {
    /// Listens on `address`; port 0 is any free port.
    ///
    /// # Errors
    /// When the address is not available, or no descriptor is left.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        // The standard library sets SO_REUSEADDR and FD_CLOEXEC.
        Self::on_tcp(TcpListener::bind(address)?)
    }

    /// Takes a TCP socket that listens.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn on_tcp(tcp: TcpListener) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        Self::on(Listeners {
            tcp: Some(tcp),
            control: None,
        })
    }

    /// Takes the control socket alone.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn on_control(control: Control) -> io::Result<Self> {
        Self::on(Listeners {
            tcp: None,
            control: Some(control),
        })
    }

    fn on(listeners: Listeners) -> io::Result<Self> {
        Ok(Self {
            listeners,
            process: Process::open(),
            kernel: sys::sockets::SocketTables::open(),
            reserve: ReserveFd::hold()?,
            park: Park::new()?,
            limits: ClientLimits::default(),
            hosts: Hosts::default(),
            orders: None,
        })
    }

    /// The same, reachable over the control socket too.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.listeners.control = Some(control);
        self
    }

    /// The same, passing on the orders that come over the control socket. Without this they are answered with 503. `take` is
    /// called on the endpoint's thread, and must not block.
    #[must_use]
    pub fn with_orders(mut self, take: Arc<dyn Fn(Order) + Send + Sync>) -> Self {
        self.orders = Some(Orders(take));
        self
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: ClientLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The same, answering to these hosts too.
    #[must_use]
    pub fn with_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = Hosts::new(hosts);
        self
    }

    /// The TCP address it listens on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.local_addr()
    }

    /// Starts the thread. It serves until the handle is dropped, and asks what [`Answers`] answers.
    ///
    /// # Errors
    /// When there is no thread for it, or none for async-io.
    pub fn start(mut self) -> io::Result<(Handle, Answers)> {
        start_async_io()?;
        let (stop, stopped) = bounded(1);
        let (moments, answers) = moments::channel();
        let listeners = Arc::new(mem::take(&mut self.listeners));
        let handle = Handle {
            stop,
            listeners: Arc::downgrade(&listeners),
        };
        sys::thread::spawn("admin", STACK_BYTES, move || {
            self.run(listeners, &stopped, moments);
        })?;
        Ok((handle, answers))
    }

    fn run(
        self,
        listeners: Arc<Listeners>,
        stopped: &Receiver<Retire>,
        questions: moments::Questions,
    ) {
        // Where it is not allowed, the kernel shares the time equally.
        let nice = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, nice + NICE);
        let (park, limits) = (Rc::new(self.park), self.limits);
        let path = listeners.control.as_ref().map(|it| it.path().to_owned());
        let served = Rc::new(Serving {
            park: park.clone(),
            tcp: Rc::new(Clients::new(limits.clients, limits.patience)),
            // Whoever waits for a reload has its time.
            control: Rc::new(Clients::new(limits.control_clients, limits.order)),
            reserve: Rc::new(self.reserve),
            routes: Routes {
                moments: questions.asked_from(park.clone(), &limits),
                process: self.process,
                kernel: Kernel::new(self.kernel, park.clone()),
                hosts: self.hosts,
                park: park.clone(),
                room: Room::new(),
                metrics: desk::Desk::default(),
                audits: desk::Desk::default(),
                signs: desk::Desk::default(),
                ordering: Ordering {
                    orders: self.orders,
                    path,
                    limit: limits.order,
                },
            },
            limits,
        });
        let executor = Rc::new(LocalExecutor::new());
        let mut working = pin!(served.routes.work());
        let told = {
            let serving = served.clone().serve(&listeners, executor.clone());
            let end = async { stopped.recv().await.ok() };
            let forever = async {
                or(serving, working.as_mut()).await;
                None
            };
            let all = end.or(executor.run(forever));
            park.block_on(Some(&listeners), || served.tick(), all)
        };
        // Closed before anything else: whoever replaces this endpoint may have their addresses now.
        drop(listeners);
        if let Some(Retire) = told {
            let late = park.sleep(RETIREMENT);
            let all = late.or(executor.run(or(served.retire(), working)));
            park.block_on(None, || served.tick(), all);
        }
        // Their tasks hold the set that holds them, so nothing else would end them.
        served.end_all();
    }
}

/// Tells an endpoint to end once its clients have the answers they have asked for.
#[derive(Debug)]
struct Retire;

/// The running endpoint. Dropping it ends it, with all its clients.
#[derive(Debug)]
pub struct Handle {
    stop: Sender<Retire>,
    /// The thread's own. This does not keep them open.
    listeners: Weak<Listeners>,
}

impl Handle {
    /// Another handle to the TCP socket and its backlog, for the endpoint that replaces this one; `None` if it has none.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone_tcp(&self) -> io::Result<Option<TcpListener>> {
        let listeners = self.listeners.upgrade();
        let tcp = listeners.as_ref().and_then(|it| it.tcp.as_ref());
        tcp.map(TcpListener::try_clone).transpose()
    }

    /// The same for the control socket.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone_control(&self) -> io::Result<Option<Control>> {
        let listeners = self.listeners.upgrade();
        let control = listeners.as_ref().and_then(|it| it.control.as_ref());
        control.map(Control::try_clone).transpose()
    }

    /// Ends the endpoint without cutting an answer. It closes its sockets at once, lets clients have the answers they have asked for,
    /// within five seconds, and then ends by itself. Until then it needs its [`Answers`].
    pub fn retire(self) {
        // What is in the channel is read before its end is. It is never full: there is one message.
        let _ = self.stop.try_send(Retire);
    }
}

/// Has async-io start its thread now. Where it cannot, it panics, so whether there can be a thread is tried first.
fn start_async_io() -> io::Result<()> {
    let tried = std::thread::Builder::new().spawn(|| ())?;
    // It does nothing, so it cannot panic.
    let _ = tried.join();
    let any = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    match catch_unwind(|| Async::new_nonblocking(any).map(drop)) {
        Ok(started) => started,
        Err(_) => Err(io::Error::other("async-io cannot start its thread")),
    }
}

/// Entry points for the fuzz targets in `fuzz/`: what a client sends.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use super::sockets::Access;
    use super::{http, metrics};

    /// Parses the head of a request for each kind of client. The length of the head, if it is whole.
    pub fn request(bytes: &[u8]) -> [Option<usize>; 3] {
        let kinds = [Access::Read, Access::Command, Access::Nothing];
        kinds.map(|access| http::fuzz(bytes, access))
    }

    /// Chooses the format for an Accept header. True if that is OpenMetrics.
    pub fn accept(header: &str) -> bool {
        metrics::Format::choose(header) == metrics::Format::OpenMetrics
    }
}
