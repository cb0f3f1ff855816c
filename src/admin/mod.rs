//! The local window: the HTTP endpoint with metrics and health. It reads the state and changes nothing.
//!
//! [`serve`] takes clients in, `clients` bounds their number, `http` talks to one of them, `request` and `answer` turn its
//! bytes into a value and that into an answer, and `metrics` is what there is to say.

mod answer;
mod audit;
mod clients;
mod family;
mod http;
mod kernel;
mod metrics;
mod negotiate;
mod openmetrics;
mod request;
mod spare;
mod traefik;

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_io::Async;
use async_net::TcpStream;
use rustix::io::Errno;
use smol::LocalExecutor;
use smol::future::{FutureExt, or, pending, poll_once};

use crate::state::{Shared, Throttle};
use crate::sys::process::Process;
use answer::Window;
use clients::Clients;
pub use http::Limits;
use http::{Conversation, sleep};
use kernel::Kernel;
use spare::{Lent, Spare};

/// The endpoint's listening socket, with everything that it must have opened before descriptors can run out.
#[derive(Debug)]
pub struct Listener {
    socket: Async<TcpListener>,
    process: Process,
    kernel: Kernel,
    spare: Spare,
    limits: Limits,
}

impl Listener {
    /// Listens on `address`; port 0 is any free port.
    ///
    /// # Errors
    /// When the address cannot be had, or no descriptor is left.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            // The standard library sets SO_REUSEADDR and FD_CLOEXEC.
            socket: Async::<TcpListener>::bind(address)?,
            process: Process::open(),
            kernel: Kernel::open(),
            spare: Spare::hold()?,
            limits: Limits::default(),
        })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address it listens on, with the real port.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }
}

/// Serves the endpoint for ever; dropping this future ends it with all its clients. Each client has a task on `executor`.
pub async fn serve(listener: Listener, executor: Rc<LocalExecutor<'static>>, shared: Rc<Shared>) {
    let clients = Rc::new(Clients::new(listener.limits.clients));
    let _end = EndAll(clients.clone());
    let endpoint = Rc::new(Endpoint {
        clients,
        window: Window {
            shared,
            process: listener.process,
            kernel: listener.kernel,
        },
        limits: listener.limits,
    });
    let socket = listener.socket;
    let spare = Rc::new(listener.spare);
    let complaints = Throttle::new(Duration::from_secs(1));
    let mut backoff = Backoff::default();
    loop {
        let in_backlog = async { drop(socket.readable().await) };
        endpoint.clients.room(in_backlog).await;
        // A spare that is not held is worth a look each second and each time a client leaves.
        let lost = async {
            match spare.regain() {
                true => pending().await,
                false => or(endpoint.clients.left(), sleep(Backoff::MOST)).await,
            }
            None
        };
        let error = match or(async { Some(socket.accept().await) }, lost).await {
            None => continue,
            Some(Ok((stream, _))) => {
                backoff = Backoff::default();
                endpoint.welcome(&executor, stream.into(), None);
                continue;
            }
            Some(Err(error)) => error,
        };
        if let Some(suppressed) = complaints.admit(Instant::now()) {
            log::warn!(suppressed; "admin: accept: {error}");
        }
        // No await comes between freeing the spare and the accept that takes it.
        if is_out_of_descriptors(&error)
            && let Some(lent) = spare.lend()
            && let Some(Ok((stream, _))) = poll_once(socket.accept()).await
        {
            endpoint.welcome(&executor, stream.into(), Some(lent));
        } else if !is_of_the_client(&error) {
            or(endpoint.clients.left(), sleep(backoff.next())).await;
        }
    }
}

/// What every client's task shares.
struct Endpoint {
    clients: Rc<Clients>,
    window: Window,
    limits: Limits,
}

impl Endpoint {
    /// Serves one client; with the spare descriptor lent to it, for one request only.
    fn welcome(
        self: &Rc<Self>,
        executor: &LocalExecutor<'static>,
        stream: TcpStream,
        lent: Option<Lent>,
    ) {
        let endpoint = self.clone();
        self.clients.spawn(executor, |place| async move {
            // Dropped in reverse order: first the stream, then the spare is held again, then the place is free.
            let _place = place;
            let lent = lent;
            let conversation = Conversation {
                stream,
                limits: &endpoint.limits,
                clients: &endpoint.clients,
                once: lent.is_some(),
            };
            let hold = conversation.hold(async |request| endpoint.window.answer(request).await);
            // A bug in one answer costs that answer, not the endpoint.
            if AssertUnwindSafe(hold).catch_unwind().await.is_err() {
                log::error!("admin: a client's task panicked; please report this");
            }
        });
    }
}

/// Ends all clients with the endpoint: their tasks hold the set that holds them, so nothing else would.
struct EndAll(Rc<Clients>);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// True for what a client does to itself by leaving early, after which the next one can be accepted at once.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
    )
}

/// Growing pauses between attempts that fail.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Duration::from_millis(10))
    }
}

impl Backoff {
    const MOST: Duration = Duration::from_secs(1);

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::MOST);
        pause
    }
}
