//! The limits of the bandwidth of each connection: which it has, by the rules of its entrypoint, its
//! service and the accounting, and what that means for it now.

use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::Shared;
use super::byte_rate::{Bandwidth, ByteRate};
use super::conns::{Conn, Conns, Phase};
use super::direction::Direction;
use super::gate::client_key;
use super::shaping::{Called, Chain, Sharers, Wanted};
use super::waiters::Until;

impl Conns {
    /// Gives a connection the limits that hold for it now. Called before bytes pass, once its client
    /// and its service are known.
    pub fn limit(&self, conn: &Conn, now: Instant) {
        let chain = self.chain(conn);
        if !conn.is_limited() && chain.iter().all(Option::is_none) {
            return;
        }
        let (mut shaping, mut called) = (self.shaping.borrow_mut(), Vec::new());
        let before = shaping.next();
        let nanos = self.nanos(now);
        let is_limited = shaping.limit(conn.id, chain, nanos, &mut called);
        conn.is_limited.set(is_limited);
        let is_sooner = shaping.next() != before;
        drop(shaping);
        self.wake(called, now);
        if is_sooner {
            self.pausing.wake_all();
        }
    }

    /// Returns the limits of a connection by the rules in force.
    fn chain(&self, conn: &Conn) -> Chain {
        let mut chain = Chain::default();
        if let Some(rules) = conn.entrypoint.bandwidth() {
            chain[0] = limit(None, rules.per_connection);
            if let (Some(ip), false) = (conn.peer().ip(), rules.per_client.is_unlimited()) {
                let client = client_key(ip, rules.ipv6_prefix);
                let client = Sharers::Client(conn.entrypoint.id(), client);
                chain[1] = limit(Some(client), rules.per_client);
            }
        }
        if let Some(service) = conn.service() {
            let sharers = Sharers::Service(service.name.clone());
            chain[2] = limit(Some(sharers), service.rules().bandwidth);
        }
        if let (Some(slot), Some(accounts)) = (conn.account(), &*self.accounts.borrow())
            && let Some(rate) = accounts.slow_rate(slot)
        {
            chain[3] = Some(Wanted {
                sharers: Some(Sharers::Account(slot.index())),
                bandwidth: Bandwidth {
                    to_server: Some(ByteRate::new(rate)),
                    to_client: None,
                },
                is_joint: true,
            });
        }
        chain
    }

    /// Forgets the limits of a connection that leaves the set.
    pub(super) fn unlimit(&self, conn: &Conn) {
        if conn.is_limited() {
            // It left when it was last active, or later.
            let now = self.nanos(conn.last_activity());
            self.shaping.borrow_mut().leave(conn.id, now);
        }
    }

    /// Returns how many bytes a connection with limits may pass on now.
    #[must_use]
    pub fn allowance(&self, conn: &Conn, direction: Direction, now: Instant) -> usize {
        let mut shaping = self.shaping.borrow_mut();
        let most = shaping.allowance(conn.id, direction, self.nanos(now));
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Takes `n` bytes that a connection has passed on off what it may pass on.
    pub fn spend(&self, conn: &Conn, direction: Direction, n: usize, now: Instant) {
        let mut shaping = self.shaping.borrow_mut();
        shaping.spend(conn.id, direction, n, self.nanos(now));
    }

    /// Has the task of a connection wait that may pass on nothing in this direction.
    pub fn pause(&self, conn: &Conn, direction: Direction, waker: &Waker, now: Instant) {
        let mut shaping = self.shaping.borrow_mut();
        let is_sooner = shaping.wait(conn.id, direction, waker, self.nanos(now));
        conn.is_paused.set(shaping.waits(conn.id));
        drop(shaping);
        if is_sooner {
            self.pausing.wake_all();
        }
    }

    /// Wakes the connections that may pass something on now. Returns when to call this again, which
    /// is the next iteration of the loop if it is `now`, and never if nothing waits.
    pub fn resume(&self, now: Instant) -> Option<Instant> {
        let mut called = Vec::new();
        let nanos = self.nanos(now);
        let mut shaping = self.shaping.borrow_mut();
        shaping.resume(nanos, &mut called);
        let next = shaping.next();
        drop(shaping);
        self.wake(called, now);
        next.map(|at| now + Duration::from_nanos(at.saturating_sub(nanos)))
    }

    /// Waits until connections are to be resumed before `at`, or at all.
    pub fn resumes_before(&self, at: Option<Instant>) -> Until<'_, impl Fn() -> bool + Unpin> {
        let at = at.map_or(u64::MAX, |at| self.nanos(at));
        let is_sooner = move || self.shaping.borrow().next().is_some_and(|next| next < at);
        Until::new(&self.pausing, is_sooner)
    }

    fn wake(&self, called: Vec<Called>, now: Instant) {
        for it in called {
            let Some(conn) = self.get(it.id) else {
                continue;
            };
            conn.is_paused.set(it.still_waits);
            // Its silence was ours.
            conn.active_at(now);
            conn.entrypoint.counters.limited.of(it.limit).add(it.waited);
            it.waker.into_iter().for_each(Waker::wake);
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = *self.shaped_since.get_or_init(|| now);
        now.saturating_duration_since(since).as_nanos() as u64
    }
}

fn limit(sharers: Option<Sharers>, bandwidth: Bandwidth) -> Option<Wanted> {
    (!bandwidth.is_unlimited()).then_some(Wanted {
        sharers,
        bandwidth,
        is_joint: false,
    })
}

impl Shared {
    /// Gives the open connections the limits of rules that have come into force.
    pub fn limit_all(&self, now: Instant) {
        let mut relaying: Vec<Rc<Conn>> = Vec::new();
        self.conns.for_each_entry(|conn| {
            if matches!(conn.phase(), Phase::Relaying | Phase::HalfClosed) {
                relaying.push(conn.clone());
            }
        });
        for conn in relaying {
            self.conns.limit(&conn, now);
        }
    }
}
