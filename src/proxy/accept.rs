//! One listener's accept loop: it admits, backs off and waits for room, and runs until it is cancelled.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::future::FutureExt;

use super::capacity::Capacity;
use crate::conn::{self, Route};
use crate::net::{Listener, Reactor, Stream};
use crate::state::{
    AcceptError, Backoff, CloseReason, Conn, Conns, Entrypoint, Guard, Peer, Phase, Shared,
    Throttle,
};

/// The first wait after the kernel had no room; it doubles while that lasts.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait: what recovers is noticed within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// While others wait for a place in the set, a connection keeps its own for this long after one side has finished and nothing has passed
/// since: as in the example of `timeout client-fin` in HAProxy's manual.
const HALF_CLOSED_STAYS: Duration = Duration::from_secs(30);
/// How long nobody is accepted after one has given way.
const GIVES_WAY: Duration = Duration::from_secs(1);

/// A listener with what is to be done with its connections.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: Listener,
    pub(super) entrypoint: Rc<Entrypoint>,
    pub(super) route: Rc<Route>,
}

/// Accepts connections into the set for ever. `capacity` is how many there may be.
pub(super) async fn accept(
    executor: Rc<LocalExecutor<'static>>,
    shared: Rc<Shared>,
    bound: Bound,
    capacity: Capacity,
) {
    let reactor = bound.route.reactor.clone();
    let full = Throttle::new(Duration::from_secs(1));
    let failed = Throttle::new(Duration::from_secs(1));
    let mut back_off = Backoff::new(BACK_OFF_MIN, BACK_OFF_MAX);
    loop {
        let error = match next_client(&bound, &shared.conns, &capacity, &full).await {
            Ok((stream, address)) => {
                back_off.reset();
                let peer = address.map_or(Peer::Unix, Peer::from);
                admit(&executor, &shared, &bound, stream, peer);
                continue;
            }
            Err(error) => error,
        };
        let reason = classify(&error);
        bound.entrypoint.accept_errors.of(reason).increment();
        let is_first = back_off.is_fresh();
        let pause = back_off.pause();
        // One client that leaves early is no reason to let the next one wait. An error that stays is.
        if reason == AcceptError::Aborted && is_first {
            continue;
        }
        if let Some(suppressed) = failed.admit(reactor.now()) {
            log::warn!(entrypoint = bound.entrypoint.name.as_str(), error:% = error, suppressed;
                "accept: {}; new connections wait", remedy(reason));
        }
        let _muted = Muted::of(&bound);
        match reason {
            AcceptError::Aborted | AcceptError::Other => reactor.sleep(pause).await,
            _ => room(&reactor, &shared.conns, pause).await,
        }
    }
}

/// Accepts the next client when there is a place in the set for it, and not before: until then it waits in the kernel's backlog. Between
/// finding the place and taking it nobody else runs, so that all listeners together admit no more than `capacity`.
async fn next_client(
    bound: &Bound,
    conns: &Conns,
    capacity: &Capacity,
    full: &Throttle,
) -> io::Result<(Stream, Option<SocketAddr>)> {
    loop {
        bound.listener.ready().await?;
        if !conns.has_place(capacity.connections) {
            let reactor = &bound.route.reactor;
            if let Some(suppressed) = full.admit(reactor.now()) {
                log::warn!(entrypoint = bound.entrypoint.name.as_str(), open = conns.len(), suppressed;
                    "no room for more connections: {}; new ones wait", capacity.by.remedy());
            }
            let _muted = Muted::of(bound);
            place(reactor, conns, capacity.connections).await;
        }
        if let Some(accepted) = bound.listener.try_accept()? {
            return Ok(accepted);
        }
    }
}

/// Waits for a place in a set that is full. Connections that wait for each other in a circle, through other proxies or an address that is ours
/// only in the kernel's tables, would hold all places for ever once their client has finished: so whoever is half-closed and has been silent for
/// the longest gives way, and with it the whole circle.
async fn place(reactor: &Rc<Reactor>, conns: &Conns, capacity: usize) {
    /// What was cut leaves the set when its task is dropped, which is at once, but not yet.
    const AT_LEAST: Duration = Duration::from_millis(100);
    /// Who is so late has not run meanwhile, and a pause of the program is nobody's silence.
    const PAUSE_MIN: Duration = Duration::from_secs(1);
    let is_half_closed = |conn: &Conn| conn.phase() == Phase::HalfClosed;
    let mut free = pin!(conns.place(capacity));
    let mut awake_since = None;
    loop {
        let silent = conns.longest_silent(is_half_closed);
        let since = silent.map_or(reactor.now(), |(_, since)| since);
        let since = awake_since.map_or(since, |awake| since.max(awake));
        let until = (since + HALF_CLOSED_STAYS).max(reactor.now() + AT_LEAST);
        let there_is = async {
            free.as_mut().await;
            true
        };
        let late = async {
            reactor.sleep_until(until).await;
            if reactor.now() >= until + PAUSE_MIN {
                awake_since = Some(reactor.now());
            }
            // In the next turn what has come meanwhile is read first.
            reactor.sleep(Duration::from_millis(1)).await;
            false
        };
        if there_is.or(late).await {
            return;
        }
        let now = reactor.now();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= HALF_CLOSED_STAYS;
        if let Some((id, since)) = conns.longest_silent(is_half_closed)
            && is_over(awake_since.map_or(since, |awake| since.max(awake)))
        {
            log::warn!(id:% = id;
                "no room, and others wait: a half-closed connection that was silent for {} s gives way", HALF_CLOSED_STAYS.as_secs());
            conns.kill(id, CloseReason::GaveWay, now);
            // Its reset goes round the circle, which must not grow again meanwhile.
            reactor.sleep(GIVES_WAY).await;
        }
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

/// Keeps a listener from waking the loop: it is level-triggered, and would do so without end.
struct Muted<'a>(&'a Bound);

impl<'a> Muted<'a> {
    fn of(bound: &'a Bound) -> Self {
        let muted = Self(bound);
        muted.set(true);
        muted
    }

    fn set(&self, muted: bool) {
        if let Err(error) = self.0.listener.set_muted(muted) {
            log::error!("entrypoint {}: epoll_ctl: {error}", self.0.entrypoint.name);
        }
    }
}

impl Drop for Muted<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Waits until a connection has left the set, which gives its descriptors back, or for `at_most`: others have descriptors too.
async fn room(reactor: &Rc<Reactor>, conns: &Conns, at_most: Duration) {
    let fewer = conns.below(conns.len());
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
        AcceptError::Aborted => "it fails again and again, as by a firewall or without a network",
        AcceptError::Other => "it failed",
    }
}
