//! One listener's accept loop: it admits, backs off and waits for room, and runs until it is cancelled.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::future::FutureExt;

use super::capacity::Capacity;
use crate::conn::{self, CurrentRoute};
use crate::net::{Listener, Reactor, Stream};
use crate::state::{AcceptError, Backoff, CloseReason, Conn, Conns, Guard, Peer, Phase, Throttle};

/// The first wait after the kernel had no room; it doubles while that lasts.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait: what recovers is noticed within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// While others wait for a place in the set, a connection keeps its own for this long after one side has finished and nothing has passed
/// since: as in the example of `timeout client-fin` in HAProxy's manual.
const HALF_CLOSED_STAYS: Duration = Duration::from_secs(30);
/// How long nobody is accepted after one has given way.
const GIVES_WAY: Duration = Duration::from_secs(1);

/// A listener, and where its connections go.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) route: CurrentRoute,
}

/// Accepts connections into the set until it is cancelled. `capacity` is how many there may be.
pub(super) async fn accept(
    executor: Rc<LocalExecutor<'static>>,
    reactor: Rc<Reactor>,
    conns: Rc<Conns>,
    door: Rc<Door>,
    capacity: Rc<Cell<Capacity>>,
) {
    let full = Throttle::new(Duration::from_secs(1));
    let failed = Throttle::new(Duration::from_secs(1));
    let mut back_off = Backoff::new(BACK_OFF_MIN, BACK_OFF_MAX);
    loop {
        let error = match next_client(&reactor, &door, &conns, &capacity, &full).await {
            Ok((stream, address)) => {
                back_off.reset();
                let peer = address.map_or(Peer::Unix, Peer::from);
                admit(&executor, &door, stream, peer);
                continue;
            }
            Err(error) => error,
        };
        let reason = classify(&error);
        let entrypoint = door.route.get().entrypoint.clone();
        entrypoint.counters.accept_errors.of(reason).increment();
        let is_first = back_off.is_fresh();
        let pause = back_off.pause();
        // One client that leaves early is no reason to let the next one wait. An error that stays is.
        if reason == AcceptError::Aborted && is_first {
            continue;
        }
        if let Some(suppressed) = failed.admit(reactor.now()) {
            log::warn!(entrypoint = entrypoint.name(), error:% = error, suppressed;
                "accept: {}; new connections wait", remedy(reason));
        }
        let _muted = Muted::of(&door);
        match reason {
            AcceptError::Aborted | AcceptError::Other => reactor.sleep(pause).await,
            _ => room(&reactor, &conns, pause).await,
        }
    }
}

/// Accepts the next client when there is a place in the set for it, and not before: until then it waits in the kernel's backlog. Between
/// finding the place and taking it nobody else runs, so that all listeners together admit no more than `capacity`.
async fn next_client(
    reactor: &Rc<Reactor>,
    door: &Door,
    conns: &Conns,
    capacity: &Cell<Capacity>,
    full: &Throttle,
) -> io::Result<(Stream, Option<SocketAddr>)> {
    loop {
        door.listener.ready().await?;
        let limit = capacity.get();
        let is_full = !conns.has_place(limit.connections);
        if is_full {
            if let Some(suppressed) = full.admit(reactor.now()) {
                log::warn!(entrypoint = door.route.get().entrypoint.name(), open = conns.len(), suppressed;
                    "no room for more connections: {}; new ones wait", limit.by.remedy());
            }
            let _muted = Muted::of(door);
            place(reactor, conns, capacity).await;
        }
        let accepted = door.listener.try_accept();
        if is_full && !matches!(accepted, Ok(Some(_))) {
            conns.offer_place();
        }
        if let Some(accepted) = accepted? {
            return Ok(accepted);
        }
    }
}

/// Waits for a place in a set that is full. Connections that wait for each other in a circle, through other proxies or an address that is ours
/// only in the kernel's tables, would hold all places for ever once their client has finished: so whoever is half-closed and has been silent for
/// the longest gives way, and with it the whole circle.
async fn place(reactor: &Rc<Reactor>, conns: &Conns, capacity: &Cell<Capacity>) {
    /// What was cut leaves the set when its task is dropped, which is at once, but not yet.
    const AT_LEAST: Duration = Duration::from_millis(100);
    /// Who is so late has not run meanwhile, and a pause of the program is nobody's silence.
    const PAUSE_MIN: Duration = Duration::from_secs(1);
    let is_half_closed = |conn: &Conn| conn.phase() == Phase::HalfClosed;
    let mut free = pin!(conns.place(|| capacity.get().connections));
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
            // In the next iteration what has come meanwhile is read first.
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
fn admit(executor: &LocalExecutor<'static>, door: &Door, stream: Stream, peer: Peer) {
    let route = door.route.get();
    let (entrypoint, service) = (&route.entrypoint, &route.service);
    let guard = Guard::insert(&route.conns, entrypoint, service, peer, route.reactor.now());
    let conn = guard.conn().clone();
    conn.owned_by(executor.spawn(conn::serve(guard, route, stream)));
}

/// Keeps a listener from waking the loop: it is level-triggered, and would do so without end.
struct Muted<'a>(&'a Door);

impl<'a> Muted<'a> {
    fn of(door: &'a Door) -> Self {
        let muted = Self(door);
        muted.set(true);
        muted
    }

    fn set(&self, muted: bool) {
        if let Err(error) = self.0.listener.set_muted(muted) {
            let route = self.0.route.get();
            log::error!("entrypoint {}: epoll_ctl: {error}", route.entrypoint.name());
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
