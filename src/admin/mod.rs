//! The admin endpoint: metrics and health over HTTP. It reads copies of the state and changes
//! nothing itself: changes that clients ask for are passed on as an [`Order`].
//!
//! It runs on its own thread, "admin", which has a lower priority than the thread of the data loop,
//! which moves the data. `http` accepts clients, limits their number and answers them. `moments`
//! gets copies of the state; making them is all that the data loop does for the endpoint. `metrics`,
//! `agreement` and `api` turn the copies into responses, and `desk` has each response made once for all
//! who ask at the same time.

mod agreement;
mod api;
mod body;
mod connection;
mod desk;
mod http;
mod json;
mod limits;
mod metrics;
mod moments;
mod orders;
mod page;
mod park;
mod requests;
mod sockets;
#[cfg(test)]
mod squeeze;
mod texts;
mod token;

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::panic::catch_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_io::Async;
use rustix::event::{EventfdFlags, eventfd};
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{FutureExt, or};

use crate::state::LogLines;
use crate::sys;
use crate::sys::process::Process;
use agreement::Kernel;
use api::Feed;
use body::Room;
use http::{Clients, Gate, Hosts, Ordering, ReserveFd, Routes, Serving};
pub use limits::ClientLimits;
pub use moments::Answers;
use orders::Orders;
pub use orders::{Ask, Order};
use park::Park;
use requests::Requests;
pub use sockets::Control;
use sockets::Listeners;
pub use token::Token;

/// The thread's stack size. Code that is not optimized has a place for each temporary value, and needs
/// several times as much.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 4 } else { 1 } * 256 * 1024;
/// Added to the thread's nice value. On one busy core, this leaves nine tenths of the time to the
/// thread that moves data.
const NICE: i32 = 10;

/// How long clients of a retired endpoint may take to receive the responses to their requests.
const RETIREMENT: Duration = Duration::from_secs(5);

/// The endpoint's listening sockets, and everything that must be open before descriptors can run
/// out.
#[derive(Debug)]
pub struct Endpoint {
    listeners: Listeners,
    process: Process,
    kernel: sys::sockets::SocketTables,
    reserve: ReserveFd,
    park: Park,
    limits: ClientLimits,
    hosts: Hosts,
    gate: Gate,
    orders: Option<Orders>,
    log: Arc<Mutex<LogLines>>,
}

impl Endpoint {
    /// Listens on `address`. Port 0 selects any free port.
    ///
    /// # Errors
    /// If the address is unavailable, or no descriptor is left.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        // The standard library sets SO_REUSEADDR and FD_CLOEXEC.
        Self::on_tcp(TcpListener::bind(address)?)
    }

    /// Takes a listening TCP socket.
    ///
    /// # Errors
    /// If no descriptor is left.
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
    /// If no descriptor is left.
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
            gate: Gate::new(None, false),
            orders: None,
            log: Arc::default(),
        })
    }

    /// Makes it reachable over the control socket too.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.listeners.control = Some(control);
        self
    }

    /// Lets clients over TCP give orders with this token. If `is_private`, they also need it to read
    /// anything but whether coracle is well.
    #[must_use]
    pub fn with_token(mut self, token: Option<Token>, is_private: bool) -> Self {
        self.gate = Gate::new(token, is_private);
        self
    }

    /// Passes on the orders that clients give. Without this, they are answered
    /// with 503. `take` is called on the endpoint's thread and must not block.
    #[must_use]
    pub fn with_orders(mut self, take: Arc<dyn Fn(Order) + Send + Sync>) -> Self {
        self.orders = Some(Orders(take));
        self
    }

    /// Makes it show these log lines. Without this, it shows none.
    #[must_use]
    pub fn with_log(mut self, log: Arc<Mutex<LogLines>>) -> Self {
        self.log = log;
        self
    }

    /// Replaces its limits.
    #[must_use]
    pub fn with_limits(mut self, limits: ClientLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes it answer requests for these hosts too.
    #[must_use]
    pub fn with_hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = Hosts::new(hosts);
        self
    }

    /// Returns its TCP address, with the actual port.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.local_addr()
    }

    /// Starts the thread, which serves until the handle is dropped. Its questions are answered by
    /// [`Answers`].
    ///
    /// # Errors
    /// If no thread can be started for it, or for async-io.
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
        // If this is not permitted, the kernel shares the time equally.
        let nice = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, nice + NICE);
        let (park, limits) = (Rc::new(self.park), self.limits);
        let path = listeners.control.as_ref().map(|it| it.path().to_owned());
        let served = Rc::new(Serving {
            park: park.clone(),
            tcp: Rc::new(Clients::new(limits.clients, limits.patience)),
            // A client that waits for a reload keeps its place for as long as a reload may take.
            control: Rc::new(Clients::new(limits.control_clients, limits.order)),
            reserve: Rc::new(self.reserve),
            routes: Routes {
                moments: questions.asked_from(park.clone(), &limits),
                process: self.process,
                kernel: Kernel::new(self.kernel, park.clone()),
                hosts: self.hosts,
                gate: self.gate,
                park: park.clone(),
                room: Room::new(),
                metrics: desk::Desk::default(),
                audits: desk::Desk::default(),
                statuses: desk::Desk::default(),
                connections: desk::Desk::default(),
                histories: desk::Desk::default(),
                pages: desk::Desk::default(),
                feed: Feed::new(limits.clients, limits.control_clients, self.log.clone()),
                log: self.log,
                log_turn: smol::lock::Mutex::default(),
                requests: Requests::default(),
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
        // Closed first: the endpoint that replaces this one may already use their addresses.
        drop(listeners);
        if let Some(Retire) = told {
            let late = park.sleep(RETIREMENT);
            let all = late.or(executor.run(or(served.retire(), working)));
            park.block_on(None, || served.tick(), all);
        }
        // The tasks and the set that contains them hold each other, so nothing else would end them.
        served.end_all();
    }
}

/// Tells an endpoint to end once its clients have the responses to their requests.
#[derive(Debug)]
struct Retire;

/// The running endpoint. Dropping this ends it, with all its clients.
#[derive(Debug)]
pub struct Handle {
    stop: Sender<Retire>,
    /// Owned by the thread. This does not keep them open.
    listeners: Weak<Listeners>,
}

impl Handle {
    /// Creates another handle to the TCP socket and its backlog, for the endpoint that replaces
    /// this one. Returns `None` if it has no TCP socket.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn try_clone_tcp(&self) -> io::Result<Option<TcpListener>> {
        let listeners = self.listeners.upgrade();
        let tcp = listeners.as_ref().and_then(|it| it.tcp.as_ref());
        tcp.map(TcpListener::try_clone).transpose()
    }

    /// Creates another handle to the control socket, like [`Self::try_clone_tcp`].
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn try_clone_control(&self) -> io::Result<Option<Control>> {
        let listeners = self.listeners.upgrade();
        let control = listeners.as_ref().and_then(|it| it.control.as_ref());
        control.map(Control::try_clone).transpose()
    }

    /// Ends the endpoint without truncating a response. It closes its sockets immediately, gives
    /// clients five seconds to receive the responses to their requests, and then ends. Until then,
    /// it needs its [`Answers`].
    pub fn retire(self) {
        // A channel delivers its messages before its end. It is never full: this is the only
        // message.
        let _ = self.stop.try_send(Retire);
    }
}

/// Starts async-io's thread now. async-io panics if it cannot have one, so this first tests whether
/// a thread can be started.
fn start_async_io() -> io::Result<()> {
    sys::thread::try_one()?;
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
    use std::net::{IpAddr, Ipv4Addr};

    use super::sockets::Caller;
    use super::{http, metrics};

    /// Parses the head of a request for each kind of client. Returns its length if it is whole.
    pub fn request(bytes: &[u8]) -> [Option<usize>; 3] {
        let tcp = Caller::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let kinds = [tcp, Caller::Control, Caller::Stranger];
        kinds.map(|caller| http::fuzz(bytes, caller))
    }

    /// Chooses the format for an Accept header. Returns `true` if that is OpenMetrics.
    pub fn accept(header: &str) -> bool {
        metrics::Format::choose(header) == metrics::Format::OpenMetrics
    }
}
