//! The set of open connections: an entry is made with its guard and leaves with its guard's drop.
//!
//! Nothing counts beside the set. How many connections are open is [`Conns::len`], read when somebody asks.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::Task;

use super::entrypoint::{Direction, Entrypoint};
use super::identity::{ConnId, Identities};
use super::peer::{PackedPeer, Peer};
use super::reason::CloseReason;
use super::service::{Server, Service};
use super::waiters::{Until, Waiters};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A server is being chosen and dialled.
    Dialling,
    /// Bytes pass both ways.
    Relaying,
    /// One side has finished sending and the other has not.
    HalfClosed,
}

/// One entry of the set: what is known of one connection, kept up to date in cells while the connection lives.
pub struct Conn {
    /// Its identity.
    pub id: ConnId,
    peer: PackedPeer,
    /// Where it came in.
    pub entrypoint: Rc<Entrypoint>,
    /// The service it is for.
    pub service: Rc<Service>,
    server: OnceCell<Rc<Server>>,
    /// When it was accepted, in nanoseconds after its entrypoint began: 64 bits hold 584 years.
    opened: u64,
    phase: Cell<Phase>,
    bytes: [Cell<u64>; 2],
    /// When a byte last passed, the phase last changed, or it ended: in nanoseconds after `opened`.
    active: Cell<u64>,
    end: Cell<Option<CloseReason>>,
    task: Cell<Option<Task<()>>>,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut conn = f.debug_struct("Conn");
        conn.field("id", &self.id).field("peer", &self.peer());
        conn.finish_non_exhaustive()
    }
}

impl Conn {
    /// Who is at the client's end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer.into()
    }

    /// When it was accepted.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.entrypoint.began() + Duration::from_nanos(self.opened)
    }

    /// The server it talks to, once it is connected to one.
    #[must_use]
    pub fn server(&self) -> Option<&Rc<Server>> {
        self.server.get()
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Payload bytes passed on so far.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].get()
    }

    /// When a byte last passed, or the phase last changed.
    #[must_use]
    pub fn last_activity(&self) -> Instant {
        self.opened() + self.active_for()
    }

    /// How long it was open when a byte last passed, the phase last changed, or it ended.
    #[must_use]
    pub fn active_for(&self) -> Duration {
        Duration::from_nanos(self.active.get())
    }

    fn active_at(&self, now: Instant) {
        let since = now.saturating_duration_since(self.opened());
        self.active.set(since.as_nanos() as u64);
    }

    fn ends(&self, reason: CloseReason, now: Instant) {
        self.end.set(Some(reason));
        self.active_at(now);
    }

    /// Notes that it is connected to `server` and relays from now on: it is among the server's open connections.
    pub fn relaying(&self, server: &Rc<Server>, now: Instant) {
        // It is connected once. A second time would put it into a set that it never leaves.
        if self.server.set(server.clone()).is_ok() {
            server.open.insert(self.id);
        }
        self.phase.set(Phase::Relaying);
        self.active_at(now);
    }

    /// Counts `n` bytes passed on.
    pub fn moved(&self, direction: Direction, n: usize, now: Instant) {
        let bytes = &self.bytes[direction as usize];
        bytes.set(bytes.get() + n as u64);
        self.entrypoint.counters.bytes.of(direction).add(n as u64);
        self.active_at(now);
    }

    /// Notes that one side has finished sending.
    pub fn half_closed(&self, now: Instant) {
        self.phase.set(Phase::HalfClosed);
        self.active_at(now);
    }
}

/// The set.
#[derive(Debug, Default)]
pub struct Conns {
    map: RefCell<HashMap<ConnId, Rc<Conn>>>,
    identities: Identities,
    /// Those who wait for it to shrink.
    fewer: Waiters,
    /// How many of its connections lack a descriptor to reach their server.
    starving: Cell<usize>,
    left: Cell<Option<Left>>,
    hook: OnceCell<Hook>,
}

/// Is told of each connection that has left the set, and why.
pub type Left = fn(&Conn, CloseReason);

/// A test's way into a connection's task.
#[derive(Clone)]
pub struct Hook(pub Rc<dyn Fn(&Conn)>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Conns {
    /// How many connections are open: the gauge.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.borrow().len()
    }

    /// True when no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with every entry. `visit` must not change the set.
    pub fn for_each(&self, mut visit: impl FnMut(&Conn)) {
        self.map.borrow().values().for_each(|conn| visit(conn));
    }

    /// Ends a connection by dropping its task, and with it the sockets, the guard and the entry. False if there is no such
    /// connection. A task must not end itself this way.
    pub fn kill(&self, id: ConnId, reason: CloseReason, now: Instant) -> bool {
        let Some(conn) = self.map.borrow().get(&id).cloned() else {
            return false;
        };
        conn.ends(reason, now);
        // Outside of any borrow: dropping the task re-enters the set through the guard.
        drop(conn.task.take());
        true
    }

    /// Ends every connection. Returns how many there were.
    pub fn kill_all(&self, reason: CloseReason, now: Instant) -> usize {
        let ids: Vec<_> = self.map.borrow().keys().copied().collect();
        ids.iter().filter(|id| self.kill(**id, reason, now)).count()
    }

    /// The connections that `reason` finds a reason to end.
    pub fn overdue(
        &self,
        reason: impl Fn(&Conn) -> Option<CloseReason>,
    ) -> Vec<(ConnId, CloseReason)> {
        let map = self.map.borrow();
        map.values()
            .filter_map(|conn| Some((conn.id, reason(conn)?)))
            .collect()
    }

    /// Has `left` be called with each connection that leaves from now on, once, whatever ends it; `None` ends that. It must not change the
    /// set.
    pub fn tell_leaving(&self, left: Option<Left>) {
        self.left.set(left);
    }

    /// Has `hook` called in each connection's task before it dials, so that tests can have it fail. The first one stays.
    pub fn hook(&self, hook: Hook) {
        let _ = self.hook.set(hook);
    }

    /// Notes that a connection's task has begun.
    pub fn tell_serving(&self, conn: &Conn) {
        if let Some(Hook(hook)) = self.hook.get() {
            hook(conn);
        }
    }

    /// Of the connections that `fits`, the one that has been silent for the longest, and since when. Those that are being ended do not count.
    pub fn longest_silent(&self, fits: impl Fn(&Conn) -> bool) -> Option<(ConnId, Instant)> {
        let map = self.map.borrow();
        let fitting = map
            .values()
            .filter(|conn| conn.end.get().is_none() && fits(conn));
        fitting
            .map(|conn| (conn.id, conn.last_activity()))
            .min_by_key(|(id, since)| (*since, *id))
    }

    /// Waits until fewer than `limit` connections are open. Woken by what leaves the set; nothing polls.
    pub fn below(&self, limit: usize) -> Until<'_, impl Fn() -> bool + Unpin> {
        Until::new(&self.fewer, move || self.len() < limit)
    }

    /// Whether another connection may come in: fewer than `capacity` are open, and none of them starves. What becomes free is theirs first:
    /// new ones would take it for their clients' sockets, until there are many and no server for any of them.
    pub fn has_place(&self, capacity: usize) -> bool {
        self.len() < capacity && self.starving.get() == 0
    }

    /// Waits until [`Conns::has_place`]. Whoever then takes none has to [offer](Conns::offer_place) it to the next.
    pub fn place(
        &self,
        capacity: impl Fn() -> usize + Unpin,
    ) -> Until<'_, impl Fn() -> bool + Unpin> {
        Until::new(&self.fewer, move || self.has_place(capacity()))
    }

    /// Wakes the next who waits for a place: there is one that nobody has taken.
    pub fn offer_place(&self) {
        self.fewer.wake_one();
    }

    /// Wakes all who wait for a place: there may be more than there were.
    pub fn offer_places(&self) {
        self.fewer.wake_all();
    }

    /// Notes that one of its connections lacks a descriptor, until this is dropped.
    pub fn starves(&self) -> Starving<'_> {
        self.starving.set(self.starving.get() + 1);
        Starving(self)
    }
}

/// A connection that starves ([`Conns::starves`]).
#[derive(Debug)]
pub struct Starving<'a>(&'a Conns);

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.starving.set(self.0.starving.get() - 1);
        if self.0.starving.get() == 0 {
            self.0.fewer.wake_all();
        }
    }
}

/// Keeps one connection in the set. Dropping it takes the entry out and counts it as closed: the one way out.
#[derive(Debug)]
pub struct Guard {
    conns: Rc<Conns>,
    conn: Rc<Conn>,
}

impl Guard {
    /// Puts a new connection into the set.
    #[must_use]
    pub fn insert(
        conns: &Rc<Conns>,
        entrypoint: &Rc<Entrypoint>,
        service: &Rc<Service>,
        peer: Peer,
        now: Instant,
    ) -> Self {
        let id = conns.identities.next();
        let since = now.saturating_duration_since(entrypoint.began());
        let conn = Rc::new(Conn {
            id,
            peer: peer.into(),
            entrypoint: entrypoint.clone(),
            service: service.clone(),
            server: OnceCell::new(),
            opened: since.as_nanos() as u64,
            phase: Cell::new(Phase::Dialling),
            bytes: [Cell::new(0), Cell::new(0)],
            active: Cell::new(0),
            end: Cell::new(None),
            task: Cell::new(None),
        });
        conns.map.borrow_mut().insert(id, conn.clone());
        entrypoint.open.insert(id);
        entrypoint.counters.opened.increment();
        Self {
            conns: conns.clone(),
            conn,
        }
    }

    /// The entry.
    #[must_use]
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Takes the connection out of the set, with the reason for which it ended.
    pub fn close(self, reason: CloseReason, now: Instant) {
        self.conn.ends(reason, now);
    }
}

impl Conn {
    /// Hands over the task that serves this connection, so that the set can end it.
    pub fn owned_by(&self, task: Task<()>) {
        self.task.set(Some(task));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let conns = &self.conns;
        let removed = conns.map.borrow_mut().remove(&self.conn.id);
        debug_assert!(removed.is_some(), "an entry leaves only by its guard");
        // A task that ends by itself drops this guard while it runs: it is let go, not cancelled.
        if let Some(task) = self.conn.task.take() {
            task.detach();
        }
        let entrypoint = &self.conn.entrypoint;
        if let Some(server) = self.conn.server() {
            server.open.remove(self.conn.id);
        }
        entrypoint.open.remove(self.conn.id);
        // Without a reason nobody knew that it would end, and what was last seen of it has to do.
        let reason = self.conn.end.get().unwrap_or(CloseReason::Dropped);
        entrypoint.counters.closed.of(reason).increment();
        entrypoint.counters.duration.observe(self.conn.active_for());
        if let Some(left) = conns.left.get() {
            left(&self.conn, reason);
        }
        conns.fewer.wake_one();
    }
}
