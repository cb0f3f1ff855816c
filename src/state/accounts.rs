//! What each client has used, in a bounded table. Reads no clock.
//!
//! A client's row has what its closed connections have used. The bytes of open ones are in their
//! entries, and [`Shared::account_numbers`](super::Shared::account_numbers) adds them. A full table
//! forgets the client that has been without a connection the longest. What it had used is then part
//! of [`Accounts::others`], so that nothing is lost from the sum.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::client::{Client, Prefixes};
use super::past::Passed;
use super::peer::Peer;
use super::quota::{OverQuota, Quota};

/// The rules of the accounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountRules {
    /// How many clients are known at most.
    pub clients: usize,
    /// What is one client.
    pub prefixes: Prefixes,
    /// How much each may use.
    pub quota: Option<Quota>,
}

/// The place of a client's row. It stays while the client has an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(NonZeroU32);

impl Slot {
    fn of(index: usize) -> Option<Self> {
        let number = u32::try_from(index + 1).ok()?;
        NonZeroU32::new(number).map(Self)
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What is known of one client.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) client: Client,
    /// How many of its connections are open.
    pub(super) open: u32,
    /// The neighbours in the list of clients without open connections.
    earlier: Option<Slot>,
    later: Option<Slot>,
    /// What it has used, without the bytes of open connections.
    pub(super) used: Passed,
    /// When it was first seen, and when its last connection ended.
    pub(super) since: Moment,
    pub(super) ended: Moment,
    /// The bytes that it had used before the quota's period.
    pub(super) before: u64,
    pub(super) is_over: bool,
}

/// Seconds since the table began; negative for those before.
pub(super) type Moment = i64;

/// The table of clients.
#[derive(Debug)]
pub struct Accounts {
    pub(super) rules: AccountRules,
    began: Instant,
    pub(super) rows: Vec<Row>,
    /// The rows sorted by their clients.
    order: Vec<Slot>,
    /// The clients without open connections: that of the longest time, and of the shortest.
    first: Option<Slot>,
    last: Option<Slot>,
    /// What clients without a row have used.
    pub(super) others: Passed,
    /// How many rows were given to other clients.
    pub(super) forgotten: u64,
    /// The number of the quota's period.
    pub(super) period: Option<u64>,
    /// The clock was not before this, in seconds since 1970.
    pub(super) not_before: u64,
}

impl Accounts {
    /// Creates a table without clients.
    #[must_use]
    pub fn new(rules: AccountRules, now: Instant) -> Self {
        Self {
            rules,
            began: now,
            rows: Vec::new(),
            order: Vec::new(),
            first: None,
            last: None,
            others: Passed::default(),
            forgotten: 0,
            period: None,
            not_before: 0,
        }
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        let after = at.checked_duration_since(self.began);
        let before = || self.began.saturating_duration_since(at).as_secs() as Moment;
        after.map_or_else(|| -before(), |after| after.as_secs() as Moment)
    }

    /// Returns how long ago that was.
    pub(super) fn ago(&self, moment: Moment, now: Instant) -> Duration {
        Duration::from_secs(u64::try_from(self.moment(now) - moment).unwrap_or(0))
    }

    fn find(&self, client: Client) -> Result<usize, usize> {
        let client_of = |slot: &Slot| self.rows[slot.index()].client;
        self.order.binary_search_by_key(&client, client_of)
    }

    /// Returns the client's row. If it has none, makes one, for which another client may be
    /// forgotten. Returns `None` if all rows are those of clients with open connections.
    fn row(&mut self, client: Client, now: Moment) -> Option<Slot> {
        let at = match self.find(client) {
            Ok(at) => return Some(self.order[at]),
            Err(at) => at,
        };
        let row = Row {
            client,
            open: 0,
            earlier: None,
            later: None,
            used: Passed::default(),
            since: now,
            ended: now,
            before: 0,
            is_over: false,
        };
        if self.rows.len() < self.rules.clients {
            let slot = Slot::of(self.rows.len())?;
            self.rows.push(row);
            self.order.insert(at, slot);
            self.rest(slot);
            return Some(slot);
        }
        let slot = self.first?;
        self.unlink(slot);
        if let Ok(at) = self.find(self.rows[slot.index()].client) {
            self.order.remove(at);
        }
        let forgotten = std::mem::replace(&mut self.rows[slot.index()], row);
        self.others = self.others.and(forgotten.used);
        self.forgotten += 1;
        let at = self
            .order
            .partition_point(|it| self.rows[it.index()].client < client);
        self.order.insert(at, slot);
        self.rest(slot);
        Some(slot)
    }

    /// Counts a connection that opens.
    pub(super) fn enter(&mut self, peer: Peer, now: Instant) -> Option<Slot> {
        let slot = self.join(peer, now);
        let one = Passed {
            opened: 1,
            ..Passed::default()
        };
        match slot {
            Some(slot) => self.rows[slot.index()].used.opened += 1,
            None => self.others = self.others.and(one),
        }
        slot
    }

    /// Undoes [`Accounts::enter`] for a connection that is another client's.
    pub(super) fn take_back(&mut self, slot: Option<Slot>, now: Instant) {
        let used = match slot {
            Some(slot) => &mut self.rows[slot.index()].used,
            None => &mut self.others,
        };
        used.opened = used.opened.saturating_sub(1);
        self.leave(slot, Passed::default(), now);
    }

    /// Returns the row of a connection that is open.
    pub(super) fn join(&mut self, peer: Peer, now: Instant) -> Option<Slot> {
        let client = self.rules.prefixes.client(peer);
        let slot = self.row(client, self.moment(now))?;
        if self.rows[slot.index()].open == 0 {
            self.unlink(slot);
        }
        self.rows[slot.index()].open += 1;
        Some(slot)
    }

    /// Counts a connection that ends and has carried this.
    pub(super) fn leave(&mut self, slot: Option<Slot>, carried: Passed, now: Instant) {
        let now = self.moment(now);
        let Some(slot) = slot else {
            self.others = self.others.and(carried);
            return;
        };
        let row = &mut self.rows[slot.index()];
        row.used = row.used.and(carried);
        row.open -= 1;
        if row.open == 0 {
            row.ended = now;
            self.rest(slot);
        }
    }

    /// Adds a client to the end of the list of those without open connections.
    fn rest(&mut self, slot: Slot) {
        let last = self.last.replace(slot);
        match last {
            Some(last) => self.rows[last.index()].later = Some(slot),
            None => self.first = Some(slot),
        }
        let row = &mut self.rows[slot.index()];
        (row.earlier, row.later) = (last, None);
    }

    fn unlink(&mut self, slot: Slot) {
        let row = &mut self.rows[slot.index()];
        let (earlier, later) = (row.earlier.take(), row.later.take());
        match earlier {
            Some(earlier) => self.rows[earlier.index()].later = later,
            None => self.first = later,
        }
        match later {
            Some(later) => self.rows[later.index()].earlier = earlier,
            None => self.last = earlier,
        }
    }

    /// Creates a table by other rules with what `earlier` has, but without its open connections.
    pub(super) fn after(earlier: Option<&Self>, rules: AccountRules, now: Instant) -> Self {
        let mut new = Self::new(rules, now);
        let Some(earlier) = earlier else {
            return new;
        };
        new.began = earlier.began;
        new.rules.quota = earlier.rules.quota;
        (new.others, new.forgotten) = (earlier.others, earlier.forgotten);
        (new.period, new.not_before) = (earlier.period, earlier.not_before);
        let mut rows: Vec<_> = earlier.rows.iter().collect();
        rows.sort_by_key(|row| (row.open > 0, row.ended));
        for row in rows {
            new.add(row.client, row.used, (row.since, row.ended), row.before);
        }
        new.adopt(rules);
        new
    }

    /// Takes another quota. One with another period begins at the next check.
    pub(super) fn adopt(&mut self, rules: AccountRules) {
        let period = |rules: AccountRules| rules.quota.map(|it| it.period);
        if period(rules) != period(self.rules) {
            // No period has this number.
            self.period = rules.quota.map(|_| u64::MAX);
        }
        self.rules = rules;
        self.rows.iter_mut().for_each(|row| row.is_over = false);
    }

    /// Adds what a client had used before, as a file or another table has it. `before` are the bytes
    /// of it that do not count for the quota.
    pub(super) fn add(
        &mut self,
        client: Client,
        used: Passed,
        (since, ended): (Moment, Moment),
        before: u64,
    ) {
        let client = self.rules.prefixes.of(client);
        let slot = client.and_then(|client| self.row(client, ended));
        let Some(slot) = slot else {
            self.others = self.others.and(used);
            return;
        };
        let row = &mut self.rows[slot.index()];
        row.used = row.used.and(used);
        row.before = row.before.wrapping_add(before);
        row.since = row.since.min(since);
        row.ended = row.ended.max(ended);
    }

    /// Returns whether new connections of a client are refused.
    pub(super) fn refuses(&self, peer: Peer) -> bool {
        let refuses = matches!(
            self.rules.quota,
            Some(Quota {
                then: OverQuota::Refuse,
                ..
            })
        );
        let client = self.rules.prefixes.client(peer);
        refuses
            && self
                .find(client)
                .is_ok_and(|at| self.rows[self.order[at].index()].is_over)
    }

    /// Returns the bytes per second of a client that is over its quota, if it is slowed then.
    fn rate(&self) -> Option<u64> {
        match self.rules.quota?.then {
            OverQuota::Slow(rate) => Some(rate),
            OverQuota::Log | OverQuota::Refuse => None,
        }
    }

    /// Returns the bytes per second that a row's client gets, if it is slowed.
    pub(super) fn slow_rate(&self, slot: Slot) -> Option<u64> {
        self.rate().filter(|_| self.rows[slot.index()].is_over)
    }
}
