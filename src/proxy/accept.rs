//! One listener's accept loop: it admits, backs off and waits for room, and nothing but its cancelling ends it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use smol::LocalExecutor;
use smol::future::FutureExt;

use crate::conn::{self, Route};
use crate::net::{Listener, Reactor, Stream};
use crate::state::{AcceptError, Entrypoint, Guard, Peer, Shared, Throttle};

/// The first wait after the kernel had no room; it doubles while that lasts.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait: what recovers is noticed within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// A listener with what is to be done with its connections.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: Listener,
    pub(super) entrypoint: Rc<Entrypoint>,
    pub(super) route: Rc<Route>,
}

/// Accepts connections into the set for ever. `capacity` is the number of connections that the process has descriptors for.
pub(super) async fn accept(
    executor: Rc<LocalExecutor<'static>>,
    shared: Rc<Shared>,
    bound: Bound,
    capacity: usize,
) {
    let reactor = bound.route.reactor.clone();
    let full = Throttle::new(Duration::from_secs(1));
    let failed = Throttle::new(Duration::from_secs(1));
    let mut back_off = BACK_OFF_MIN;
    loop {
        if shared.conns.len() >= capacity {
            if let Some(suppressed) = full.admit(reactor.now()) {
                log::warn!(entrypoint = bound.entrypoint.name.as_str(), open = capacity, suppressed;
                    "no room for more connections: the limit of open files is reached (ulimit -n); new ones wait");
            }
            muted(&bound, shared.conns.below(capacity)).await;
        }
        let error = match bound.listener.accept().await {
            Ok((stream, address)) => {
                back_off = BACK_OFF_MIN;
                let peer = address.map_or(Peer::Unix, Peer::from);
                admit(&executor, &shared, &bound, stream, peer);
                continue;
            }
            Err(error) => error,
        };
        let reason = classify(&error);
        bound.entrypoint.accept_errors.of(reason).increment();
        if reason == AcceptError::Aborted {
            continue;
        }
        if let Some(suppressed) = failed.admit(reactor.now()) {
            log::warn!(entrypoint = bound.entrypoint.name.as_str(), error:% = error, suppressed;
                "accept: {}; new connections wait", remedy(reason));
        }
        muted(&bound, room(&reactor, &shared, back_off)).await;
        back_off = BACK_OFF_MAX.min(back_off * 2);
    }
}

/// Puts one connection into the set and starts its task, which owns the socket and the guard.
fn admit(
    executor: &LocalExecutor<'static>,
    shared: &Rc<Shared>,
    bound: &Bound,
    stream: Stream,
    peer: Peer,
) {
    let route = &bound.route;
    let now = route.reactor.now();
    let guard = Guard::insert(&shared.conns, &bound.entrypoint, &route.service, peer, now);
    let conn = guard.conn().clone();
    conn.owned_by(executor.spawn(conn::serve(guard, route.clone(), stream)));
}

/// Waits with the listener muted: it is level-triggered, and would keep the loop awake.
async fn muted(bound: &Bound, wait: impl Future<Output = ()>) {
    set_muted(bound, true);
    wait.await;
    set_muted(bound, false);
}

fn set_muted(bound: &Bound, muted: bool) {
    if let Err(error) = bound.listener.set_muted(muted) {
        log::error!("entrypoint {}: epoll_ctl: {error}", bound.entrypoint.name);
    }
}

/// Waits until a connection has left the set, which gives its descriptors back, or for `at_most`: others have descriptors too.
async fn room(reactor: &Rc<Reactor>, shared: &Shared, at_most: Duration) {
    let fewer = shared.conns.below(shared.conns.len());
    fewer.or(reactor.sleep(at_most)).await;
}

/// The sorts of accept(2)'s errors. Network errors of the connection itself count as aborted, as accept(2) advises.
fn classify(error: &io::Error) -> AcceptError {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(
            Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM,
        ) => AcceptError::Aborted,
        Some(Errno::MFILE) => AcceptError::ProcessDescriptors,
        Some(Errno::NFILE) => AcceptError::SystemDescriptors,
        Some(Errno::NOMEM | Errno::NOBUFS | Errno::NOSPC) => AcceptError::Memory,
        _ => AcceptError::Other,
    }
}

fn remedy(reason: AcceptError) -> &'static str {
    match reason {
        AcceptError::ProcessDescriptors => {
            "no descriptor left: raise the limit of open files (ulimit -n)"
        }
        AcceptError::SystemDescriptors => "the system has no descriptor left: raise fs.file-max",
        AcceptError::Memory => "the kernel has no memory for it",
        AcceptError::Aborted | AcceptError::Other => "it failed",
    }
}
