//! The admin thread's work: takes clients in, and has each of them served.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_io::Async;
use rustix::io::Errno;
use smol::LocalExecutor;
use smol::future::{FutureExt, or, pending, yield_now};

use super::clients::Clients;
use super::conversation::Conversation;
use super::reserve_fd::{LentFd, ReserveFd};
use super::routes::Routes;
use crate::admin::limits::ClientLimits;
use crate::admin::park::Park;
use crate::state::Throttle;

/// Growing pauses between attempts that fail.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What every client's task shares.
pub(crate) struct Serving {
    pub park: Rc<Park>,
    pub clients: Rc<Clients>,
    pub routes: Routes,
    pub limits: ClientLimits,
}

impl Serving {
    /// Serves the endpoint for ever. Each client has a task on `executor`.
    pub(crate) async fn serve(
        self: Rc<Self>,
        listener: &TcpListener,
        reserve: ReserveFd,
        executor: Rc<LocalExecutor<'static>>,
    ) {
        let park = &*self.park;
        let reserve = Rc::new(reserve);
        let complaints = Throttle::new(Duration::from_secs(1));
        let mut pause = PAUSE_MIN;
        loop {
            self.clients.room(park, park.backlog()).await;
            // A reserve that is not held is worth a look each second and each time a client leaves.
            let lost = async {
                match reserve.regain() {
                    true => pending().await,
                    false => or(self.clients.left(), park.sleep(PAUSE_MAX)).await,
                }
                None
            };
            let error = match or(async { Some(park.accept(listener).await) }, lost).await {
                None => continue,
                Some(Ok((stream, _))) => {
                    pause = PAUSE_MIN;
                    self.welcome(&executor, stream, None);
                    // What it has sent already is looked at before anybody has to give way to the next.
                    yield_now().await;
                    continue;
                }
                Some(Err(error)) => error,
            };
            if is_of_the_client(&error) {
                continue;
            }
            if let Some(suppressed) = complaints.admit(Instant::now()) {
                log::warn!(suppressed; "admin: accept: {error}");
            }
            if is_out_of_descriptors(&error) {
                // Freed for the accept that follows at once. The loop's thread could be quicker, in that very moment; then it
                // is held again as soon as one is free.
                if let Some(lent) = reserve.lend() {
                    if let Ok((stream, _)) = listener.accept() {
                        self.welcome(&executor, stream, Some(lent));
                    }
                    yield_now().await;
                    continue;
                }
                if reserve.is_lent() {
                    self.clients.room_for_reserve(park).await;
                    continue;
                }
            }
            or(self.clients.left(), park.sleep(pause)).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// Serves one client; with the reserve descriptor lent to it, for one request only.
    fn welcome(
        self: &Rc<Self>,
        executor: &LocalExecutor<'static>,
        stream: TcpStream,
        lent: Option<LentFd>,
    ) {
        let serving = self.clone();
        self.clients
            .spawn(executor, lent.is_some(), |seat| async move {
                // Dropped in reverse order: first the stream, then the reserve is held again, then the seat is free.
                let seat = seat;
                let lent = lent;
                let stream = match Async::new(stream) {
                    Ok(stream) => stream,
                    Err(error) => return log::warn!("admin: async-io: {error}"),
                };
                let conversation = Conversation {
                    stream: stream.into(),
                    limits: &serving.limits,
                    clients: &serving.clients,
                    seat: &seat,
                    park: &serving.park,
                    once: lent.is_some(),
                };
                let hold = conversation.hold(async |head| serving.routes.answer(head).await);
                // A bug in one answer costs that answer, not the serving.
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

/// True for what a client does to itself by leaving early, after which the next one can be accepted at once.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
    )
}
