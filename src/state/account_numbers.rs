//! Copies of what clients have used, with the bytes of open connections, and the check of quotas.

use std::time::{Duration, Instant};

use super::Shared;
use super::accounts::{AccountRules, Accounts, Row};
use super::client::Client;
use super::identity::ConnId;
use super::metric::{Metric, Publish};
use super::past::Passed;
use super::quota::OverQuota;

/// What all clients have used, at one moment.
#[derive(Clone, Debug)]
pub struct AccountNumbers {
    /// The rules.
    pub rules: AccountRules,
    /// The clients, in no particular order.
    pub clients: Vec<ClientNumbers>,
    /// What clients have used that are not in the list.
    pub others: Passed,
    /// How many clients were forgotten because the table was full.
    pub forgotten: u64,
    /// The number of the quota's period.
    pub period: Option<u64>,
}

/// What one client has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNumbers {
    /// The client.
    pub client: Client,
    /// How many of its connections are open.
    pub open: u32,
    /// Its connections and bytes, including those of open connections.
    pub used: Passed,
    /// How long ago it was first seen.
    pub since: Duration,
    /// How long it has had no open connection.
    pub quiet: Option<Duration>,
    /// The bytes that it has used of its quota.
    pub of_quota: u64,
    /// Whether it has used up its quota.
    pub is_over: bool,
}

/// How many clients are known.
#[derive(Clone, Copy, Debug)]
pub struct AccountSize {
    /// How many there are.
    pub clients: u64,
    /// How many there may be.
    pub most: u64,
    /// How many were forgotten because the table was full.
    pub forgotten: u64,
    /// How many have used up their quota.
    pub over: u64,
}

impl Publish for AccountSize {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_accounting_clients",
            "Clients whose use is counted, if there is an [accounting] section.",
            |it, out| out.value(it.clients),
        ),
        Metric::counter(
            "coracle_accounting_forgotten_total",
            "Clients that were forgotten because the table was full.",
            |it, out| out.value(it.forgotten),
        ),
        Metric::gauge(
            "coracle_accounting_clients_over_quota",
            "Clients that have used up their quota of this period.",
            |it, out| out.value(it.over),
        ),
    ];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}

/// What a check of the quotas found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The clients that have used up their quota since the last check, and how much they have used.
    pub over: Vec<(Client, u64)>,
    /// The open connections to end.
    pub ends: Vec<ConnId>,
}

fn bytes(used: Passed) -> u64 {
    used.bytes.iter().fold(0, |a, b| a.wrapping_add(*b))
}

impl Accounts {
    fn numbers(&self, row: &Row, used: Passed, now: Instant) -> ClientNumbers {
        ClientNumbers {
            client: row.client,
            open: row.open,
            used,
            since: self.ago(row.since, now),
            quiet: (row.open == 0).then(|| self.ago(row.ended, now)),
            of_quota: bytes(used).wrapping_sub(row.before),
            is_over: row.is_over,
        }
    }

    pub(super) fn size(&self) -> AccountSize {
        AccountSize {
            clients: self.rows.len() as u64,
            most: self.rules.clients as u64,
            forgotten: self.forgotten,
            over: self.rows.iter().filter(|it| it.is_over).count() as u64,
        }
    }
}

impl Shared {
    /// Copies what each client has used, or returns `None` if that is not counted. This walks
    /// through all open connections.
    #[must_use]
    pub fn account_numbers(&self, now: Instant) -> Option<AccountNumbers> {
        let accounts = self.conns.accounts.borrow();
        let accounts = accounts.as_ref()?;
        let (used, others) = self.used(accounts);
        let rows = accounts.rows.iter().zip(used);
        Some(AccountNumbers {
            rules: accounts.rules,
            clients: rows
                .map(|(row, used)| accounts.numbers(row, used, now))
                .collect(),
            others,
            forgotten: accounts.forgotten,
            period: accounts.period,
        })
    }

    /// Returns how many clients are known, if what they use is counted.
    pub(super) fn account_size(&self) -> Option<AccountSize> {
        let accounts = self.conns.accounts.borrow();
        accounts.as_ref().map(|it| it.size())
    }

    /// Returns what each row has used, and what clients without a row have.
    fn used(&self, accounts: &Accounts) -> (Vec<Passed>, Passed) {
        let mut used: Vec<_> = accounts.rows.iter().map(|row| row.used).collect();
        let mut others = accounts.others;
        self.conns.for_each(|conn| {
            let sum = match conn.account() {
                Some(slot) => &mut used[slot.index()],
                None => &mut others,
            };
            *sum = sum.and(conn.carried());
        });
        (used, others)
    }

    /// Finds the clients that have used up their quota. `wall` is the time in seconds since 1970.
    /// The first check of a period sets what has been used of the quotas to zero.
    #[must_use]
    pub fn check_quotas(&self, wall: u64, now: Instant) -> Checked {
        let mut checked = Checked::default();
        let mut borrowed = self.conns.accounts.borrow_mut();
        let Some(accounts) = borrowed.as_mut() else {
            return checked;
        };
        let Some(quota) = accounts.rules.quota else {
            return checked;
        };
        let (used, _) = self.used(accounts);
        let period = quota.period.number(wall.max(accounts.not_before));
        let is_new = accounts
            .period
            .replace(period)
            .is_some_and(|it| it != period);
        let mut has_changed = false;
        for (row, used) in accounts.rows.iter_mut().zip(used) {
            let was_over = row.is_over;
            if is_new {
                (row.before, row.is_over) = (bytes(used), false);
            }
            // Those of Unix sockets can be anybody.
            let is_over =
                row.client != Client::Unix && bytes(used).wrapping_sub(row.before) >= quota.bytes;
            if is_over && !row.is_over {
                checked
                    .over
                    .push((row.client, bytes(used).wrapping_sub(row.before)));
            }
            row.is_over = is_over;
            has_changed |= was_over != is_over;
        }
        if quota.then == OverQuota::Refuse {
            self.conns.for_each(|conn| {
                if conn
                    .account()
                    .is_some_and(|slot| accounts.rows[slot.index()].is_over)
                {
                    checked.ends.push(conn.id);
                }
            });
        }
        drop(borrowed);
        if has_changed && matches!(quota.then, OverQuota::Slow(_)) {
            self.limit_all(now);
        }
        checked
    }

    /// Counts by these rules from now on; `None` stops it. What is known is kept as far as the rules
    /// allow. Connections that are open already count from their beginning.
    pub fn account_by(&self, rules: Option<AccountRules>, now: Instant) {
        self.set_rules(rules, now);
        // The next check finds those that are over again.
        self.limit_all(now);
    }

    fn set_rules(&self, rules: Option<AccountRules>, now: Instant) {
        let mut accounts = self.conns.accounts.borrow_mut();
        let Some(rules) = rules else {
            *accounts = None;
            self.conns.for_each(|conn| conn.set_account(None));
            return;
        };
        if let Some(same) = accounts.as_mut()
            && (same.rules.prefixes, same.rules.clients) == (rules.prefixes, rules.clients)
        {
            same.adopt(rules);
            return;
        }
        let before = accounts.take();
        let mut new = Box::new(Accounts::after(before.as_deref(), rules, now));
        self.conns.for_each(|conn| {
            let slot = match &before {
                // It is counted already.
                Some(_) => new.join(conn.peer(), now),
                None => new.enter(conn.peer(), conn.opened()),
            };
            conn.set_account(slot);
        });
        *accounts = Some(new);
    }
}

#[cfg(test)]
mod tests;
