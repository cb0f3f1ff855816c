//! Which connections may pass bytes on, and which wait: limits of the bandwidth. Does no I/O and
//! reads no clock.
//!
//! A connection with limits has a chain of up to four of them, in the order of [`Limit`]. Each is a
//! pair of buckets, one for each direction, which it may share with other connections. A flow passes
//! on what every bucket of its direction has. If one has nothing, the flow waits in that bucket's
//! queue, and [`Shaping::resume`] calls as many of its first as there are pieces. A flow that is
//! called may pass although others wait, until it has passed something on. It keeps that right while
//! it waits for another of its buckets, so none starves.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use slab::Slab;

use super::byte_rate::{Bandwidth, ByteBucket, ByteRate, Limit};
use super::counters::Label as _;
use super::direction::Direction;
use super::identity::{ConnId, EntrypointId};

/// How many limits a connection can have.
const LIMITS: usize = Limit::ALL.len();

/// Which connections share a pair of buckets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sharers {
    /// Those of one client at one entrypoint.
    Client(EntrypointId, u128),
    /// Those to one service.
    Service(Arc<str>),
    /// Those of one row of the accounting.
    Account(usize),
}

/// One limit of a connection.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// With whom it is shared, if it is.
    pub(super) sharers: Option<Sharers>,
    pub(super) bandwidth: Bandwidth,
    /// Whether both directions together have the rate from the client to the server.
    pub(super) is_joint: bool,
}

/// The limits of a connection, by [`Limit`].
pub(super) type Chain = [Option<Wanted>; LIMITS];

/// All connections with limits, and their buckets.
///
/// Times are in nanoseconds since a moment of the caller's choice.
#[derive(Debug, Default)]
pub(super) struct Shaping {
    limited: HashMap<ConnId, Limited>,
    shares: Slab<Share>,
    shared: HashMap<Sharers, usize>,
    /// When to look at which bucket.
    due: BinaryHeap<Reverse<(u64, usize, bool)>>,
    /// How many shares have no connection.
    idle: usize,
    /// When to look again for shares to forget.
    forgets_at: u64,
}

/// A connection with limits.
#[derive(Debug, Default)]
struct Limited {
    chain: [Option<usize>; LIMITS],
    flows: [Flow; 2],
    waker: Option<Waker>,
}

/// One of its directions.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Where and since when it waits.
    waits: Option<(Limit, u64)>,
    /// The limits that have called it, one bit each.
    called: u8,
}

/// A pair of buckets.
#[derive(Debug)]
struct Share {
    sharers: Option<Sharers>,
    is_joint: bool,
    /// How many connections have it.
    users: usize,
    queues: [Queue; 2],
}

/// A bucket, and who waits for it.
#[derive(Debug, Default)]
struct Queue {
    rate: Option<ByteRate>,
    bucket: ByteBucket,
    /// The connections and directions of flows. Some may be gone.
    waiting: VecDeque<(ConnId, Direction)>,
    /// When [`Shaping::resume`] looks at it.
    due: Option<u64>,
}

/// A flow that may pass something on now.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) id: ConnId,
    pub(super) waker: Option<Waker>,
    /// What it waited for, and for how many nanoseconds.
    pub(super) limit: Limit,
    pub(super) waited: u64,
    /// Whether the other direction of the connection still waits.
    pub(super) still_waits: bool,
}

impl Queue {
    /// Returns how many bytes a flow may pass on now.
    fn offer(&mut self, is_called: bool, now: u64) -> u64 {
        let Some(rate) = &self.rate else {
            return u64::MAX;
        };
        if !is_called && !self.waiting.is_empty() {
            return 0;
        }
        let level = self.bucket.level(rate, now);
        let others = self.waiting.len() as u64;
        match level < rate.least() {
            true => 0,
            // The others get as much.
            false if others > 0 => level.min(rate.piece().max(level / (others + 1))),
            false => level,
        }
    }

    fn set(&mut self, rate: Option<ByteRate>, now: u64) -> bool {
        if self.rate == rate {
            return false;
        }
        match (&self.rate, &rate) {
            (Some(from), Some(to)) => self.bucket.change(from, to, now),
            _ => self.bucket = ByteBucket::default(),
        }
        self.rate = rate;
        true
    }
}

impl Share {
    fn queue(&mut self, direction: Direction) -> &mut Queue {
        let is_second = !self.is_joint && direction == Direction::ToClient;
        &mut self.queues[usize::from(is_second)]
    }

    fn is_full(&mut self, now: u64) -> bool {
        let mut queues = self.queues.iter_mut();
        queues.all(|it| it.rate.is_none_or(|rate| it.bucket.is_full(&rate, now)))
    }
}

impl Shaping {
    /// How many buckets without connections are known at most.
    pub(super) const STRANGERS: usize = 1024;
    const FORGETS_EVERY: u64 = 1_000_000_000;

    /// Gives a connection these limits, instead of those that it has. What was used of a bucket stays
    /// used. Returns whether it has limits, and tells whom to wake.
    pub(super) fn limit(
        &mut self,
        id: ConnId,
        chain: Chain,
        now: u64,
        called: &mut Vec<Called>,
    ) -> bool {
        if chain.iter().all(Option::is_none) {
            self.call_both(id, u8::MAX, now, called);
            self.leave(id, now);
            return false;
        }
        let mut limited = self.limited.remove(&id).unwrap_or_default();
        let mut changed = 0;
        for (n, (wanted, place)) in chain.into_iter().zip(&mut limited.chain).enumerate() {
            let before = *place;
            let is_same = match (&wanted, before) {
                (Some(wanted), Some(share)) => self.shares[share].sharers == wanted.sharers,
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                changed |= 1 << n;
                *place = wanted.as_ref().map(|wanted| self.join(wanted));
                before.inspect(|share| self.part(*share, now));
            }
            if let (Some(share), Some(wanted)) = (*place, &wanted) {
                self.set(share, wanted, now);
            }
        }
        self.limited.insert(id, limited);
        self.call_both(id, changed, now, called);
        true
    }

    /// Forgets the limits of a connection.
    pub(super) fn leave(&mut self, id: ConnId, now: u64) {
        let limited = self.limited.remove(&id);
        for share in limited.into_iter().flat_map(|it| it.chain).flatten() {
            self.part(share, now);
        }
    }

    /// Returns how many bytes may pass now.
    pub(super) fn allowance(&mut self, id: ConnId, direction: Direction, now: u64) -> u64 {
        let Some(limited) = self.limited.get(&id) else {
            return u64::MAX;
        };
        let called = limited.flows[direction as usize].called;
        let mut most = u64::MAX;
        for (n, share) in limited.chain.iter().enumerate() {
            if let Some(share) = share {
                let queue = self.shares[*share].queue(direction);
                most = most.min(queue.offer(called & 1 << n != 0, now));
            }
        }
        most
    }

    /// Takes off what has passed.
    pub(super) fn spend(&mut self, id: ConnId, direction: Direction, bytes: usize, now: u64) {
        let Some(limited) = self.limited.get_mut(&id) else {
            return;
        };
        limited.flows[direction as usize].called = 0;
        for share in limited.chain.iter().flatten() {
            let queue = self.shares[*share].queue(direction);
            if let Some(rate) = &queue.rate {
                queue.bucket.take(rate, bytes as u64, now);
            }
        }
    }

    /// Has a flow wait that may pass nothing on. Returns whether it has to be looked at sooner than
    /// [`Shaping::next`] said before.
    pub(super) fn wait(
        &mut self,
        id: ConnId,
        direction: Direction,
        waker: &Waker,
        now: u64,
    ) -> bool {
        let Some(limited) = self.limited.get_mut(&id) else {
            return false;
        };
        limited.waker = Some(waker.clone());
        let flow = &mut limited.flows[direction as usize];
        if flow.waits.is_some() {
            return false;
        }
        for (n, share) in limited.chain.iter().enumerate() {
            let Some(share) = *share else { continue };
            let queue = self.shares[share].queue(direction);
            let is_called = flow.called & 1 << n != 0;
            if queue.offer(is_called, now) > 0 {
                continue;
            }
            flow.waits = Some((Limit::ALL[n], now));
            match is_called {
                // It was its turn, but others that were called have left too little.
                true => queue.waiting.push_front((id, direction)),
                false => queue.waiting.push_back((id, direction)),
            }
            return self.look_at(share, direction, now);
        }
        // No time has passed since it was told that it may not pass, so one of them has nothing.
        waker.wake_by_ref();
        false
    }

    /// Returns whether a direction of the connection waits.
    pub(super) fn waits(&self, id: ConnId) -> bool {
        let mut flows = self.limited.get(&id).into_iter().flat_map(|it| it.flows);
        flows.any(|flow| flow.waits.is_some())
    }

    /// Returns when to call [`Shaping::resume`].
    pub(super) fn next(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Calls those that may pass something on now.
    ///
    /// If more wait behind them, the buckets are due again now, because those that are called may
    /// leave something. Let them run before the next call.
    pub(super) fn resume(&mut self, now: u64, called: &mut Vec<Called>) {
        let mut again = Vec::new();
        while let Some(Reverse((at, share, is_second))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let direction = match is_second {
                true => Direction::ToClient,
                false => Direction::ToServer,
            };
            let Some(it) = self.shares.get_mut(share) else {
                continue;
            };
            let queue = &mut it.queues[usize::from(is_second)];
            if queue.due != Some(at) {
                continue;
            }
            queue.due = None;
            let (mut left, piece) = match &queue.rate {
                Some(rate) => (queue.bucket.level(rate, now), rate.piece()),
                None => (u64::MAX, 0),
            };
            while left >= piece {
                let queue = &mut self.shares[share].queues[usize::from(is_second)];
                let Some((id, direction)) = queue.waiting.pop_front() else {
                    break;
                };
                if let Some(it) = self.call(id, direction, Some(share), now) {
                    called.push(it);
                    left -= piece;
                }
            }
            again.push((share, direction));
        }
        for (share, direction) in again {
            let it = &self.shares[share];
            if !it.queues[usize::from(direction == Direction::ToClient)]
                .waiting
                .is_empty()
            {
                self.look_at(share, direction, now);
            }
        }
    }

    /// Wakes a flow, if it waits for a bucket of `share`, or for anything.
    fn call(
        &mut self,
        id: ConnId,
        direction: Direction,
        share: Option<usize>,
        now: u64,
    ) -> Option<Called> {
        let limited = self.limited.get_mut(&id)?;
        let flow = &mut limited.flows[direction as usize];
        let (limit, since) = flow.waits?;
        if share.is_some() && limited.chain[limit as usize] != share {
            return None;
        }
        flow.waits = None;
        flow.called |= 1 << limit as u8;
        Some(Called {
            id,
            waker: limited.waker.clone(),
            limit,
            waited: now.saturating_sub(since),
            still_waits: limited.flows.iter().any(|it| it.waits.is_some()),
        })
    }

    /// Wakes the flows of a connection that wait for one of these limits, one bit each.
    fn call_both(&mut self, id: ConnId, limits: u8, now: u64, called: &mut Vec<Called>) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let Some(limited) = self.limited.get_mut(&id) else {
                return;
            };
            let flow = &mut limited.flows[direction as usize];
            flow.called &= !limits;
            if flow
                .waits
                .is_some_and(|(limit, _)| limits & 1 << limit as u8 != 0)
            {
                called.extend(self.call(id, direction, None, now));
            }
        }
    }

    /// Sees to it that [`Shaping::resume`] looks at a bucket. Returns whether that is sooner than
    /// anything else.
    fn look_at(&mut self, share: usize, direction: Direction, now: u64) -> bool {
        let queue = self.shares[share].queue(direction);
        if queue.due.is_some() {
            return false;
        }
        let at = match &queue.rate {
            Some(rate) => queue.bucket.when(rate, rate.piece(), now),
            None => now,
        };
        queue.due = Some(at);
        let is_first = self.next().is_none_or(|next| at < next);
        let is_second = direction == Direction::ToClient && !self.shares[share].is_joint;
        self.due.push(Reverse((at, share, is_second)));
        is_first
    }

    /// Returns the share of these sharers, with one user more.
    fn join(&mut self, wanted: &Wanted) -> usize {
        let new = Share {
            sharers: wanted.sharers.clone(),
            is_joint: wanted.is_joint,
            users: 1,
            queues: <[Queue; 2]>::default(),
        };
        let Some(sharers) = wanted.sharers.clone() else {
            return self.shares.insert(new);
        };
        match self.shared.entry(sharers) {
            Entry::Occupied(entry) => {
                let share = &mut self.shares[*entry.get()];
                self.idle -= usize::from(share.users == 0);
                share.users += 1;
                *entry.get()
            }
            Entry::Vacant(entry) => *entry.insert(self.shares.insert(new)),
        }
    }

    fn set(&mut self, share: usize, wanted: &Wanted, now: u64) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let queue = self.shares[share].queue(direction);
            let rate = match wanted.is_joint {
                true => wanted.bandwidth.to_server,
                false => wanted.bandwidth.of(direction),
            };
            if queue.set(rate, now) && !queue.waiting.is_empty() {
                // By the other rate.
                queue.due = None;
                self.look_at(share, direction, now);
            }
        }
    }

    /// Takes one user off a share.
    fn part(&mut self, share: usize, now: u64) {
        let it = &mut self.shares[share];
        it.users -= 1;
        if it.users > 0 {
            return;
        }
        self.idle += 1;
        if it.sharers.is_none() || it.is_full(now) {
            self.forget(share);
            return;
        }
        if self.idle > Self::STRANGERS && now >= self.forgets_at {
            self.forgets_at = now + Self::FORGETS_EVERY;
            let idle = self.shares.iter_mut();
            let idle = idle.filter_map(|(n, it)| (it.users == 0 && it.is_full(now)).then_some(n));
            for share in idle.collect::<Vec<_>>() {
                self.forget(share);
            }
        }
        if self.idle > Self::STRANGERS {
            self.forget(share);
        }
    }

    fn forget(&mut self, share: usize) {
        self.idle -= 1;
        if let Some(sharers) = self.shares.remove(share).sharers {
            self.shared.remove(&sharers);
        }
    }
}

#[cfg(test)]
mod tests;
