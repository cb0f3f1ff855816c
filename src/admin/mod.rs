//! The admin endpoint: metrics and health over HTTP. It reads copies of the state and changes nothing.
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
mod park;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::catch_unwind;
use std::rc::Rc;

use async_io::Async;
use rustix::event::{EventfdFlags, eventfd};
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{FutureExt, or};

use crate::sys;
use crate::sys::process::Process;
use agreement::Kernel;
use body::Room;
use http::{Clients, Hosts, ReserveFd, Routes, Serving};
pub use limits::ClientLimits;
pub use moments::Answers;
use park::Park;

/// The thread's stack.
const STACK_BYTES: usize = 256 * 1024;
/// What the thread adds to its nice value: on one busy core, the thread that moves data has nine tenths of the time.
const NICE: i32 = 10;

/// The endpoint's listening socket, with everything that it must have opened before descriptors can run out.
#[derive(Debug)]
pub struct Endpoint {
    socket: TcpListener,
    process: Process,
    kernel: sys::sockets::SocketTables,
    reserve: ReserveFd,
    park: Park,
    limits: ClientLimits,
    hosts: Hosts,
}

impl Endpoint {
    /// Listens on `address`; port 0 is any free port.
    ///
    /// # Errors
    /// When the address is not available, or no descriptor is left.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        // The standard library sets SO_REUSEADDR and FD_CLOEXEC.
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            process: Process::open(),
            kernel: sys::sockets::SocketTables::open(),
            reserve: ReserveFd::hold()?,
            park: Park::new()?,
            limits: ClientLimits::default(),
            hosts: Hosts::default(),
        })
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

    /// The address it listens on, with the real port.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Starts the thread. It serves until the handle is dropped, and asks what [`Answers`] answers.
    ///
    /// # Errors
    /// When there is no thread for it, or none for async-io.
    pub fn start(self) -> io::Result<(Handle, Answers)> {
        start_async_io()?;
        let (stop, stopped) = bounded(1);
        let (moments, answers) = moments::channel();
        sys::thread::spawn("admin", STACK_BYTES, move || self.run(&stopped, moments))?;
        Ok((Handle { _stop: stop }, answers))
    }

    fn run(self, stopped: &Receiver<Infallible>, questions: moments::Questions) {
        // Where it is not allowed, the kernel shares the time equally.
        let nice = rustix::process::getpriority_process(None).unwrap_or(0);
        let _ = rustix::process::setpriority_process(None, nice + NICE);
        let park = Rc::new(self.park);
        let clients = Rc::new(Clients::new(self.limits.clients, self.limits.patience));
        let served = Rc::new(Serving {
            park: park.clone(),
            clients: clients.clone(),
            routes: Routes {
                moments: questions.asked_from(park.clone(), &self.limits),
                process: self.process,
                kernel: Kernel::new(self.kernel, park.clone()),
                hosts: self.hosts,
                park: park.clone(),
                room: Room::new(),
                metrics: desk::Desk::default(),
                audits: desk::Desk::default(),
                signs: desk::Desk::default(),
            },
            limits: self.limits,
        });
        let executor = Rc::new(LocalExecutor::new());
        let serving = served
            .clone()
            .serve(&self.socket, self.reserve, executor.clone());
        let working = async {
            served.routes.work().await;
        };
        let end = async {
            // Nothing is ever sent.
            let _ = stopped.recv().await;
        };
        let all = end.or(executor.run(or(serving, working)));
        park.block_on(&self.socket, || clients.tick(), all);
        // Their tasks hold the set that holds them, so nothing else would end them.
        clients.end_all();
    }
}

/// The running endpoint. Dropping it ends it, with all its clients.
#[derive(Debug)]
pub struct Handle {
    _stop: Sender<Infallible>,
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
