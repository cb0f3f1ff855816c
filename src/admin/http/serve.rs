//! The admin thread's work: accepts clients and has each of them served.

use std::io::{self, ErrorKind};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use smol::LocalExecutor;
use smol::future::{FutureExt, or, pending, yield_now, zip};

use super::clients::Clients;
use super::conversation::Conversation;
use super::reserve_fd::{LentFd, ReserveFd};
use super::routes::Routes;
use super::stream::Stream;
use crate::admin::limits::ClientLimits;
use crate::admin::park::Park;
use crate::admin::sockets::{Accepted, Caller, Door, Listeners};
use crate::state::{Backoff, Throttle};

/// The shortest and longest pause after an attempt fails.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Shared by the tasks of all clients.
pub(crate) struct Serving {
    pub park: Rc<Park>,
    /// The clients of each door. Clients of one never wait for the seats of the other.
    pub tcp: Rc<Clients>,
    pub control: Rc<Clients>,
    pub reserve: Rc<ReserveFd>,
    pub routes: Routes,
    pub limits: ClientLimits,
}

impl Serving {
    /// Serves the endpoint until cancelled. Each client has a task on `executor`.
    pub(crate) async fn serve(
        self: Rc<Self>,
        listeners: &Listeners,
        executor: Rc<LocalExecutor<'static>>,
    ) {
        let tcp = self.serve_at(Door::Tcp, listeners, &executor);
        or(tcp, self.serve_at(Door::Control, listeners, &executor)).await;
    }

    /// Returns how often waiting tasks must check again by themselves, or `None` while there is no
    /// client.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let ticks = [self.tcp.tick(), self.control.tick()];
        ticks.into_iter().flatten().min()
    }

    /// Lets clients receive the responses to their requests, and no more. Resolves when all are
    /// gone.
    pub(crate) async fn retire(&self) {
        zip(self.tcp.retire(), self.control.retire()).await;
    }

    /// Ends every client.
    pub(crate) fn end_all(&self) {
        self.tcp.end_all();
        self.control.end_all();
    }

    fn clients(&self, door: Door) -> &Rc<Clients> {
        match door {
            Door::Tcp => &self.tcp,
            Door::Control => &self.control,
        }
    }

    async fn serve_at(
        self: &Rc<Self>,
        door: Door,
        listeners: &Listeners,
        executor: &LocalExecutor<'static>,
    ) {
        let (park, reserve, clients) = (&*self.park, &self.reserve, self.clients(door));
        let complaints = Throttle::new(Duration::from_secs(1));
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            clients.room(park, park.backlog(door)).await;
            // If the reserve is not held, tries again each second and each time a client leaves.
            let lost = async {
                match reserve.regain() {
                    true => pending().await,
                    false => or(clients.left(), park.sleep(PAUSE_MAX)).await,
                }
                false
            };
            let came = async {
                park.backlog(door).await;
                true
            };
            if !or(came, lost).await {
                continue;
            }
            let error = match listeners.accept(door) {
                Ok(accepted) => {
                    pauses.reset();
                    self.welcome(door, executor, accepted, None);
                    // Reads what it has already sent before another client has to make room for the
                    // next.
                    yield_now().await;
                    continue;
                }
                Err(error) => error,
            };
            if is_of_the_client(&error) {
                continue;
            }
            if let Some(suppressed) = complaints.admit(Instant::now()) {
                log::warn!(suppressed; "admin: accept: {error}; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)");
            }
            if is_out_of_descriptors(&error) {
                // Freed for the accept that follows immediately. The data loop's thread could take
                // the descriptor just then. In that case the reserve is held again as soon as a
                // descriptor is free.
                if let Some(lent) = reserve.lend() {
                    if let Ok(accepted) = listeners.accept(door) {
                        self.welcome(door, executor, accepted, Some(lent));
                    }
                    yield_now().await;
                    continue;
                }
                if reserve.is_lent() {
                    let is_behind = |door: &Door| self.clients(*door).has_reserve();
                    let holder = [Door::Tcp, Door::Control].into_iter().find(is_behind);
                    let holder = holder.map_or(clients, |holder| self.clients(holder));
                    holder.room_for_reserve(park).await;
                    continue;
                }
            }
            or(clients.left(), park.sleep(pauses.pause())).await;
        }
    }

    /// Serves one client. If it has the reserve descriptor, it is served for only one request.
    fn welcome(
        self: &Rc<Self>,
        door: Door,
        executor: &LocalExecutor<'static>,
        (accepted, caller): (Accepted, Caller),
        lent: Option<LentFd>,
    ) {
        let serving = self.clone();
        let clients = self.clients(door);
        clients.spawn(executor, lent.is_some(), |seat| async move {
            // Dropped in reverse order: the stream, then the loan, which holds the reserve again,
            // then the seat.
            let seat = seat;
            let lent = lent;
            let stream = match Stream::new(accepted) {
                Ok(stream) => stream,
                Err(error) => return log::warn!("admin: async-io: {error}; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"),
            };
            let conversation = Conversation {
                stream,
                caller,
                limits: &serving.limits,
                clients: serving.clients(door),
                seat: &seat,
                park: &serving.park,
                requests: &serving.routes.requests,
                judge: &|head| serving.routes.judge(head, caller),
                once: lent.is_some(),
            };
            let hold = conversation.hold(async |head| serving.routes.answer(head).await);
            // A bug in one response costs that response, not the endpoint.
            if AssertUnwindSafe(hold).catch_unwind().await.is_err() {
                log::error!("admin: a client's task panicked; please report this");
            }
        });
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// Returns `true` if the client caused the error by leaving early. The next one can be accepted
/// immediately.
fn is_of_the_client(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}
