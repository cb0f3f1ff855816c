//! The set of open connections: creating a guard adds an entry, and dropping the guard removes it.
//!
//! There is no counter beside the set. The number of open connections is [`Conns::len`], read on
//! demand.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::Task;

use super::accounts::{Accounts, Slot};
use super::branch::Branch;
use super::counters::label;
use super::direction::Direction;
use super::entrypoint::Entrypoint;
use super::health::Change;
use super::identity::{ConnId, Identities};
use super::past::Passed;
use super::peer::{PackedPeer, Peer, Proxied};
use super::reason::{CloseReason, RefuseReason};
use super::server::{Place, Server};
use super::service::Service;
use super::shaping::Shaping;
use super::waiters::{Until, Waiters};

label! {
    /// How far a connection has progressed.
    Phase {
        /// The bytes that decide about it have not arrived.
        Prologue = "prologue",
        /// A server is being chosen and dialled.
        Dialling = "dialling",
        /// Every server is at its limit, and one with room is awaited.
        Queued = "queued",
        /// Bytes pass in both directions.
        Relaying = "relaying",
        /// Bytes wait because the bandwidth is limited. Only [`Conn::shown_phase`] says so.
        Limited = "limited",
        /// One side has finished sending and the other has not.
        HalfClosed = "half-closed",
    }
}

/// One entry of the set: what is known about a connection, updated in cells while it is open.
pub struct Conn {
    /// The connection's identity.
    pub id: ConnId,
    /// The socket's.
    peer: PackedPeer,
    /// The entrypoint that accepted it.
    pub entrypoint: Rc<Entrypoint>,
    /// Where it goes, once that is decided.
    branch: OnceCell<Rc<Branch>>,
    server: OnceCell<Rc<Server>>,
    /// Whose connection it is, if its peer is a proxy. Boxed because most are not proxied.
    proxied: OnceCell<Box<Proxied>>,
    /// When the connection was accepted, in nanoseconds after its entrypoint began: 64 bits hold
    /// 584 years.
    opened: u64,
    phase: Cell<Phase>,
    /// Its client's row, if there is one.
    account: Cell<Option<Slot>>,
    /// Whether its bandwidth is limited, and whether it waits because of that.
    pub(super) is_limited: Cell<bool>,
    pub(super) is_paused: Cell<bool>,
    bytes: [Cell<u64>; 2],
    /// When a byte last passed, the phase last changed, or the connection ended, in nanoseconds
    /// after `opened`.
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
    /// Returns who the client is: the one that a trusted proxy names, or else who is at the other
    /// end of the socket.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.proxied().map_or(self.socket_peer(), |it| it.peer)
    }

    /// Returns who is at the other end of the client's socket.
    #[must_use]
    pub fn socket_peer(&self) -> Peer {
        self.peer.into()
    }

    /// Returns what a proxy has said about the connection, if it did.
    #[must_use]
    pub fn proxied(&self) -> Option<&Proxied> {
        self.proxied.get().map(|it| &**it)
    }

    /// Returns the service that it is for, once that is decided.
    #[must_use]
    pub fn service(&self) -> Option<&Rc<Service>> {
        self.branch.get().map(|it| &it.service)
    }

    /// Returns the label of the rule that has decided where it goes, if the entrypoint has rules.
    #[must_use]
    pub fn route(&self) -> Option<&Arc<str>> {
        self.branch.get().and_then(|it| it.route())
    }

    /// Records where it goes, which is decided once, and counts it there.
    pub fn takes(&self, branch: &Rc<Branch>) {
        if self.branch.set(branch.clone()).is_ok() {
            branch.take();
        }
    }

    /// Records that the bytes that decide about the connection are awaited, or have arrived.
    pub fn reads_prologue(&self, is_awaited: bool, now: Instant) {
        let phase = if is_awaited {
            Phase::Prologue
        } else {
            Phase::Dialling
        };
        self.phase.set(phase);
        self.active_at(now);
    }

    /// Returns when the connection was accepted.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.entrypoint.began() + Duration::from_nanos(self.opened)
    }

    /// Returns the server, once the connection is connected to one.
    #[must_use]
    pub fn server(&self) -> Option<&Rc<Server>> {
        self.server.get()
    }

    /// Returns how far the connection has progressed.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Returns how far the connection has progressed, or that it waits because its bandwidth is
    /// limited.
    #[must_use]
    pub fn shown_phase(&self) -> Phase {
        match self.is_paused() {
            true => Phase::Limited,
            false => self.phase(),
        }
    }

    /// Returns the number of payload bytes relayed so far.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].get()
    }

    /// Returns its client's row, if there is one.
    pub(super) fn account(&self) -> Option<Slot> {
        self.account.get()
    }

    pub(super) fn set_account(&self, slot: Option<Slot>) {
        self.account.set(slot);
    }

    /// Returns whether its bandwidth is limited.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.is_limited.get()
    }

    /// Returns whether it waits because its bandwidth is limited.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused.get()
    }

    /// Returns the bytes relayed so far, as what adds to that of a client.
    pub(super) fn carried(&self) -> Passed {
        Passed {
            opened: 0,
            bytes: [Direction::ToServer, Direction::ToClient].map(|it| self.bytes(it)),
        }
    }

    /// Returns when a byte last passed or the phase last changed.
    #[must_use]
    pub fn last_activity(&self) -> Instant {
        self.opened() + self.active_for()
    }

    /// Returns the connection's age when a byte last passed, the phase last changed, or it ended.
    #[must_use]
    pub fn active_for(&self) -> Duration {
        Duration::from_nanos(self.active.get())
    }

    pub(super) fn active_at(&self, now: Instant) {
        let since = now.saturating_duration_since(self.opened());
        self.active.set(since.as_nanos() as u64);
    }

    fn ends(&self, reason: CloseReason, now: Instant) {
        self.end.set(Some(reason));
        self.active_at(now);
    }

    /// Records that the connection is connected to the server of `place` and relays from now on,
    /// and adds it to the server's open connections. Returns the change if that brings the server
    /// up.
    pub fn relaying(&self, place: Place, now: Instant) -> Option<Change> {
        self.phase.set(Phase::Relaying);
        self.active_at(now);
        // A connection connects once. A second time would add it to a set that it never leaves.
        self.server.set(place.server().clone()).ok()?;
        place.connected(now)
    }

    /// Records that the connection waits for a server with room, or no longer does.
    pub fn queued(&self, is_queued: bool, now: Instant) {
        let phase = if is_queued {
            Phase::Queued
        } else {
            Phase::Dialling
        };
        self.phase.set(phase);
        self.active_at(now);
    }

    /// Counts `n` bytes relayed in `direction`.
    pub fn moved(&self, direction: Direction, n: usize, now: Instant) {
        let bytes = &self.bytes[direction as usize];
        bytes.set(bytes.get() + n as u64);
        self.entrypoint.counters.bytes.of(direction).add(n as u64);
        if let Some(server) = self.server.get() {
            server.counters.bytes.of(direction).add(n as u64);
        }
        self.active_at(now);
    }

    /// Records that one side has finished sending.
    pub fn half_closed(&self, now: Instant) {
        self.phase.set(Phase::HalfClosed);
        self.active_at(now);
    }
}

/// The set of open connections.
#[derive(Debug, Default)]
pub struct Conns {
    map: RefCell<HashMap<ConnId, Rc<Conn>>>,
    identities: Identities,
    /// Tasks that wait for the set to shrink.
    fewer: Waiters,
    /// The number of connections that lack a descriptor to reach their server.
    starving: Cell<usize>,
    /// Whether nobody may enter, although there is room.
    is_closed: Cell<bool>,
    left: Cell<Option<Left>>,
    /// What each client has used, if that is counted.
    pub(super) accounts: RefCell<Option<Box<Accounts>>>,
    /// The connections whose bandwidth is limited, with times since a moment.
    pub(super) shaping: RefCell<Shaping>,
    pub(super) shaped_since: OnceCell<Instant>,
    /// Tasks that wait for such connections to wait.
    pub(super) pausing: Waiters,
    hook: OnceCell<Hook>,
}

/// Receives each connection that has left the set, and the reason.
pub type Left = fn(&Conn, CloseReason);

/// A hook with which a test acts inside a connection's task.
#[derive(Clone)]
pub struct Hook(pub Rc<dyn Fn(&Conn)>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Conns {
    /// Returns the number of open connections: the gauge.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.borrow().len()
    }

    /// Returns how many connections have entered the set so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.identities.count()
    }

    /// Returns `true` if no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with every entry. `visit` must not change the set.
    pub fn for_each(&self, mut visit: impl FnMut(&Conn)) {
        self.map.borrow().values().for_each(|conn| visit(conn));
    }

    /// Calls `visit` with every entry, to keep. `visit` must not change the set.
    pub(super) fn for_each_entry(&self, visit: impl FnMut(&Rc<Conn>)) {
        self.map.borrow().values().for_each(visit);
    }

    /// Returns the entry of a connection, if it is open.
    #[must_use]
    pub fn get(&self, id: ConnId) -> Option<Rc<Conn>> {
        self.map.borrow().get(&id).cloned()
    }

    /// Ends a connection by dropping its task, and with it the sockets, the guard and the entry.
    ///
    /// Returns `false` if there is no such connection, or it ends already. A task must not end
    /// itself this way.
    pub fn kill(&self, id: ConnId, reason: CloseReason, now: Instant) -> bool {
        let Some(conn) = self.get(id).filter(|conn| conn.end.get().is_none()) else {
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

    /// Returns the connections for which `reason` returns a reason to end them, with that reason.
    pub fn overdue(
        &self,
        reason: impl Fn(&Conn) -> Option<CloseReason>,
    ) -> Vec<(ConnId, CloseReason)> {
        let map = self.map.borrow();
        map.values()
            .filter_map(|conn| Some((conn.id, reason(conn)?)))
            .collect()
    }

    /// Returns whether new connections of a client are refused, because it has used up its quota.
    #[must_use]
    pub fn refuses(&self, peer: Peer) -> bool {
        let accounts = self.accounts.borrow();
        accounts.as_ref().is_some_and(|it| it.refuses(peer))
    }

    /// Records whose connection it is, as a proxy says, which says it once. It counts as that
    /// client's instead of the proxy's.
    ///
    /// # Errors
    /// Returns the reason why the entrypoint refuses that client.
    pub fn is_proxied(
        &self,
        conn: &Conn,
        proxied: Proxied,
        now: Instant,
    ) -> Result<(), RefuseReason> {
        if conn.proxied.set(Box::new(proxied)).is_err() {
            return Ok(());
        }
        // Judged before it counts. A quota comes first, which uses up nothing of a rate.
        let admitted = match self.refuses(proxied.peer) {
            true => Err(RefuseReason::Quota),
            false => conn.entrypoint.admit_proxied(proxied.peer, now),
        };
        conn.entrypoint
            .is_proxied(conn.id, conn.socket_peer(), proxied.peer);
        if let Some(accounts) = self.accounts.borrow_mut().as_mut() {
            accounts.take_back(conn.account(), now);
            let slot = accounts.enter(proxied.peer, now);
            conn.set_account(slot);
        }
        admitted
    }

    /// Calls `left` once with each connection that leaves from now on, whatever ends it; `None`
    /// stops the calls. `left` must not change the set.
    pub fn tell_leaving(&self, left: Option<Left>) {
        self.left.set(left);
    }

    /// Calls `hook` in each connection's task before it dials, so that a test can make the task
    /// fail. Only the first hook is kept.
    pub fn hook(&self, hook: Hook) {
        let _ = self.hook.set(hook);
    }

    /// Runs the test hook, if any, at the start of a connection's task.
    pub fn tell_serving(&self, conn: &Conn) {
        if let Some(Hook(hook)) = self.hook.get() {
            hook(conn);
        }
    }

    /// Returns the connection that has been silent the longest among those for which `fits` returns
    /// `true`, and since when. Connections that are already ending do not count.
    pub fn longest_silent(&self, fits: impl Fn(&Conn) -> bool) -> Option<(ConnId, Instant)> {
        let map = self.map.borrow();
        let fitting = map
            .values()
            .filter(|conn| conn.end.get().is_none() && fits(conn));
        fitting
            .map(|conn| (conn.id, conn.last_activity()))
            .min_by_key(|(id, since)| (*since, *id))
    }

    /// Waits until fewer than `limit` connections are open. Leaving connections wake it; nothing
    /// polls.
    pub fn below(&self, limit: usize) -> Until<'_, impl Fn() -> bool + Unpin> {
        Until::new(&self.fewer, move || self.len() < limit)
    }

    /// Returns whether another connection may enter: fewer than `capacity` are open and none of
    /// them starves.
    ///
    /// Starving connections get freed descriptors first. Otherwise new connections would take them
    /// for their clients' sockets, until there are many connections and none can reach a server.
    pub fn has_place(&self, capacity: usize) -> bool {
        self.len() < capacity && self.starving.get() == 0 && !self.is_closed.get()
    }

    /// Lets nobody enter until this is called with `false`.
    pub fn close(&self, is_closed: bool) {
        if self.is_closed.replace(is_closed) && !is_closed {
            self.offer_places();
        }
    }

    /// Returns whether nobody may enter, although there is room.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Ends the `n` connections that have been silent the longest. Returns how many there were.
    pub fn kill_longest_silent(&self, n: usize, reason: CloseReason, now: Instant) -> usize {
        let map = self.map.borrow();
        let open = map.values().filter(|conn| conn.end.get().is_none());
        let mut silent: Vec<_> = open.map(|conn| (conn.last_activity(), conn.id)).collect();
        drop(map);
        silent.sort_unstable();
        let ended = silent.iter().take(n);
        ended.filter(|(_, id)| self.kill(*id, reason, now)).count()
    }

    /// Waits until [`Conns::has_place`] holds. A caller that then does not take the place must
    /// [offer](Conns::offer_place) it to the next waiter.
    pub fn place(
        &self,
        capacity: impl Fn() -> usize + Unpin,
    ) -> Until<'_, impl Fn() -> bool + Unpin> {
        Until::new(&self.fewer, move || self.has_place(capacity()))
    }

    /// Wakes the next task that waits for a place, because a place is free and was not taken.
    pub fn offer_place(&self) {
        self.fewer.wake_one();
    }

    /// Wakes every task that waits for a place, because the capacity may have grown.
    pub fn offer_places(&self) {
        self.fewer.wake_all();
    }

    /// Records that a connection lacks a descriptor, until the returned value is dropped.
    pub fn starves(&self) -> Starving<'_> {
        self.starving.set(self.starving.get() + 1);
        Starving(self)
    }
}

/// Marks a connection that starves (see [`Conns::starves`]).
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

/// Keeps one connection in the set. Dropping it removes the entry and counts it as closed; there is
/// no other way out.
#[derive(Debug)]
pub struct Guard {
    conns: Rc<Conns>,
    conn: Rc<Conn>,
}

impl Guard {
    /// Adds a new connection to the set. `branch` is where it goes, if that is decided.
    #[must_use]
    pub fn insert(
        conns: &Rc<Conns>,
        entrypoint: &Rc<Entrypoint>,
        branch: Option<&Rc<Branch>>,
        peer: Peer,
        now: Instant,
    ) -> Self {
        let id = conns.identities.next();
        let mut accounts = conns.accounts.borrow_mut();
        let account = accounts.as_mut().and_then(|it| it.enter(peer, now));
        drop(accounts);
        let since = now.saturating_duration_since(entrypoint.began());
        let conn = Rc::new(Conn {
            id,
            peer: peer.into(),
            entrypoint: entrypoint.clone(),
            branch: branch.cloned().map_or_else(OnceCell::new, OnceCell::from),
            server: OnceCell::new(),
            proxied: OnceCell::new(),
            opened: since.as_nanos() as u64,
            phase: Cell::new(Phase::Dialling),
            account: Cell::new(account),
            is_limited: Cell::new(false),
            is_paused: Cell::new(false),
            bytes: [Cell::new(0), Cell::new(0)],
            active: Cell::new(0),
            end: Cell::new(None),
            task: Cell::new(None),
        });
        conns.map.borrow_mut().insert(id, conn.clone());
        entrypoint.enters(id, peer);
        entrypoint.counters.opened.increment();
        Self {
            conns: conns.clone(),
            conn,
        }
    }

    /// Returns the entry.
    #[must_use]
    pub fn conn(&self) -> &Rc<Conn> {
        &self.conn
    }

    /// Removes the connection from the set and records why it ended.
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
        debug_assert!(removed.is_some(), "only the guard removes an entry");
        // A task that ends by itself drops this guard while it runs, so detach it instead of
        // cancelling it.
        if let Some(task) = self.conn.task.take() {
            task.detach();
        }
        conns.unlimit(&self.conn);
        let entrypoint = &self.conn.entrypoint;
        if let Some(server) = self.conn.server() {
            server.leaves(self.conn.id);
        }
        if let Some(accounts) = conns.accounts.borrow_mut().as_mut() {
            let (slot, ended) = (self.conn.account(), self.conn.last_activity());
            accounts.leave(slot, self.conn.carried(), ended);
        }
        entrypoint.leaves(self.conn.id, || self.conn.peer());
        // Without a reason the end was unexpected, and the time of the last activity stands in for
        // the time of the end.
        let reason = self.conn.end.get().unwrap_or(CloseReason::Dropped);
        entrypoint.counters.closed.of(reason).increment();
        entrypoint.counters.duration.observe(self.conn.active_for());
        if let Some(left) = conns.left.get() {
            left(&self.conn, reason);
        }
        conns.fewer.wake_one();
    }
}
