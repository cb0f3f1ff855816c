//! One listener's accept loop: admits connections, backs off on errors, waits for room, and runs
//! until cancelled.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::future::FutureExt;

use super::capacity::{Capacity, Limit};
use super::refuse::Refusals;
use crate::conn::{self, CurrentRoute};
use crate::net::{Listener, Reactor, Stream};
use crate::state::{
    AcceptError, Backoff, CloseReason, Conn, Conns, Guard, Peer, Phase, RefuseReason, Throttle,
};

/// The first pause after the kernel had no room; it doubles while that lasts.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
/// The longest pause, and so the longest time until a recovery is noticed.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// How long a half-closed connection may stay silent while others wait for a place in the set. The
/// value is the one in the example of `timeout client-fin` in HAProxy's manual.
const HALF_CLOSED_STAYS: Duration = Duration::from_secs(30);
/// How long accepting pauses after a connection was closed to make room.
const GIVES_WAY: Duration = Duration::from_secs(1);

/// A listener and the route of its connections.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: Listener,
    pub(super) route: CurrentRoute,
}

/// Accepts connections into the set until cancelled. `capacity` limits how many there may be.
pub(super) async fn accept(
    executor: Rc<LocalExecutor<'static>>,
    reactor: Rc<Reactor>,
    conns: Rc<Conns>,
    door: Rc<Door>,
    capacity: Rc<Cell<Capacity>>,
) {
    let full = Throttle::new(Duration::from_secs(1));
    let refusals = Refusals::default();
    let failed = Throttle::new(Duration::from_secs(1));
    let mut back_off = Backoff::new(BACK_OFF_MIN, BACK_OFF_MAX);
    loop {
        let error = match next_client(&reactor, &door, &conns, &capacity, &full, &refusals).await {
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
        // One client that leaves early must not delay the next one. A persistent error must.
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

/// Accepts the next client once the set and the entrypoint have a place for it; until then the
/// client waits in the kernel's backlog, or is refused.
///
/// No other task runs between finding the place and taking it, so all listeners together admit no
/// more than `capacity`.
async fn next_client(
    reactor: &Rc<Reactor>,
    door: &Door,
    conns: &Conns,
    capacity: &Cell<Capacity>,
    full: &Throttle,
    refusals: &Refusals,
) -> io::Result<(Stream, Option<SocketAddr>)> {
    loop {
        door.listener.ready().await?;
        let (mut has_waited, mut waited_at) = (false, None);
        loop {
            let entrypoint = door.route.get().entrypoint.clone();
            let limit = entrypoint.limit();
            if !entrypoint.has_room() && !limit.refuses {
                if let Some(suppressed) = full.admit(reactor.now()) {
                    log::warn!(entrypoint = entrypoint.name(), open = entrypoint.open.len(), suppressed;
                        "the entrypoint is at its max_connections; new ones wait; raise it, or see with `coracle list` who stays");
                }
                let _muted = Muted::of(door);
                // A reload can give the listener to another entrypoint.
                let has_room = || {
                    let entrypoint = door.route.get().entrypoint.clone();
                    entrypoint.has_room() || entrypoint.limit().refuses
                };
                entrypoint.open.until(has_room).await;
                waited_at = Some(entrypoint);
                continue;
            }
            let limit = capacity.get();
            if conns.has_place(limit.connections) {
                break;
            }
            if let Some(suppressed) = full.admit(reactor.now()) {
                let why = match conns.is_closed() {
                    true => Limit::Ceiling.remedy(),
                    false => limit.by.remedy(),
                };
                log::warn!(entrypoint = entrypoint.name(), open = conns.len(), suppressed;
                    "no room for more connections: {why}; new ones wait");
            }
            let _muted = Muted::of(door);
            place(reactor, conns, capacity).await;
            has_waited = true;
        }
        let accepted = door.listener.try_accept();
        let mut refused = None;
        if let Ok(Some((_, address))) = &accepted {
            let route = door.route.get();
            let entrypoint = route.entrypoint.clone();
            // A quota comes first, which uses up nothing of a rate.
            let peer = address.map_or(Peer::Unix, Peer::from);
            let admitted = match &route.accept_proxy {
                Some(_) => entrypoint.admit_proxy(),
                None if conns.refuses(peer) => Err(RefuseReason::Quota),
                None => entrypoint.admit(*address, reactor.now()),
            };
            refused = admitted.err().map(|reason| (entrypoint, reason));
        }
        if refused.is_some() || !matches!(accepted, Ok(Some(_))) {
            if has_waited {
                conns.offer_place();
            }
            if let Some(entrypoint) = waited_at {
                entrypoint.open.offer();
            }
        }
        match (accepted?, refused) {
            (Some(client), None) => return Ok(client),
            (Some(client), Some((entrypoint, reason))) => {
                refusals.refuse(&entrypoint, reason, client, reactor.now());
            }
            (None, _) => {}
        }
    }
}

/// Waits for a place in a full set.
///
/// Connections can wait for each other in a circle, through other proxies or through an address
/// that is ours only in the kernel's tables. Once their client has finished, they would hold all
/// places forever. So the half-closed connection that has been silent the longest is closed, and
/// the whole circle with it.
async fn place(reactor: &Rc<Reactor>, conns: &Conns, capacity: &Cell<Capacity>) {
    /// A killed connection leaves the set when its task is dropped, which happens soon, but not
    /// yet.
    const AT_LEAST: Duration = Duration::from_millis(100);
    /// A wake-up this late means that the program did not run, and that time does not count as
    /// silence.
    const PAUSE_MIN: Duration = Duration::from_secs(1);
    let is_half_closed = |conn: &Conn| conn.phase() == Phase::HalfClosed && !conn.is_paused();
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
            // In the next iteration, what has arrived meanwhile is read first.
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
                "making room: closing a half-closed connection that was silent for {} s; if this repeats, look for a server that leads back here", HALF_CLOSED_STAYS.as_secs());
            conns.kill(id, CloseReason::GaveWay, now);
            // The reset travels round the circle, which must not grow again meanwhile.
            reactor.sleep(GIVES_WAY).await;
        }
    }
}

/// Adds one connection to the set and starts its task, which owns the socket and the guard.
fn admit(executor: &LocalExecutor<'static>, door: &Door, stream: Stream, peer: Peer) {
    let route = door.route.get();
    let branch = route.only().map(|to| &to.branch);
    let now = route.reactor.now();
    let guard = Guard::insert(&route.conns, &route.entrypoint, branch, peer, now);
    let conn = guard.conn().clone();
    conn.owned_by(executor.spawn(conn::serve(guard, route, stream)));
}

/// Keeps a listener from waking the loop: it is level-triggered and would wake it endlessly.
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
            log::error!(
                "entrypoint {}: epoll_ctl: {error}; free memory",
                route.entrypoint.name()
            );
        }
    }
}

impl Drop for Muted<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Waits until a connection has left the set and freed its descriptors, or for `at_most`, because
/// others free descriptors too.
async fn room(reactor: &Rc<Reactor>, conns: &Conns, at_most: Duration) {
    let fewer = conns.below(conns.len());
    fewer.or(reactor.sleep(at_most)).await;
}

/// Classifies errors of accept(2). Network errors of the connection itself count as aborted, as
/// accept(2) advises.
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
            "out of file descriptors; raise the limit of open files (ulimit -n)"
        }
        AcceptError::SystemDescriptors => "out of file descriptors system-wide; raise fs.file-max",
        AcceptError::Memory => "the kernel has no memory for the connection",
        AcceptError::Aborted => "repeated failures, perhaps from a firewall or a missing network",
        AcceptError::Other => "unexpected error",
    }
}
