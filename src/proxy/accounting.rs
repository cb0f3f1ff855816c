//! Counts what clients use as the configuration says: checks quotas, and keeps the file that
//! survives a restart.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use smol::Task;

use super::account_file::{AccountFile, Loaded};
use super::bind::BindError;
use super::ground::Ground;
use super::kill;
use crate::config::{self, AtQuota, QuotaPeriod};
use crate::state::{
    AccountNumbers, AccountRules, CloseReason, OverQuota, Passed, Period, Prefixes, Quota,
};

/// The time between two checks of the quotas: that of the slowest sweep.
const CHECK: Duration = Duration::from_secs(5);
/// How long the program may wait at its end until the file is written.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// What runs for the accounting in force.
#[derive(Debug, Default)]
pub(super) struct Accounting {
    configured: Option<config::Accounting>,
    checking: Option<Task<()>>,
    file: Option<Rc<AccountFile>>,
    saving: Option<Task<()>>,
}

/// A file for a configuration that is about to come into force.
#[derive(Debug)]
pub(super) struct Next(Option<Rc<AccountFile>>);

impl Accounting {
    /// Starts the thread for a configuration's file, unless it runs already.
    ///
    /// # Errors
    /// Returns an error if no thread can be started. Nothing has changed then.
    pub(super) fn prepare(
        &self,
        configured: Option<&config::Accounting>,
    ) -> Result<Next, BindError> {
        let path = configured.and_then(|it| it.file.as_ref());
        let now = self
            .file
            .as_ref()
            .filter(|it| Some(it.path()) == path.map(PathBuf::as_path));
        if let Some(same) = now {
            return Ok(Next(Some(same.clone())));
        }
        let file = path.map(|path| AccountFile::open(path.clone())).transpose();
        let file = file.map_err(|error| BindError::thread("accounts", &error))?;
        Ok(Next(file.map(Rc::new)))
    }

    /// Counts as the configuration says from now on.
    pub(super) fn adopt(
        &mut self,
        ground: &Ground,
        configured: Option<&config::Accounting>,
        next: Next,
    ) {
        let is_same_file = match (&self.file, &next.0) {
            (Some(before), Some(next)) => Rc::ptr_eq(before, next),
            (before, next) => before.is_none() && next.is_none(),
        };
        if is_same_file && configured == self.configured.as_ref() {
            return;
        }
        let (shared, now) = (&ground.shared, ground.reactor.now());
        if !is_same_file && let Some(before) = self.file.take() {
            save(ground, &before);
            // What it has is not added to what another file has.
            shared.account_by(None, now);
        }
        shared.account_by(configured.map(rules), now);
        let has_quota = configured.is_some_and(|it| it.quota.is_some());
        self.checking = has_quota.then(|| ground.spawn(check(ground.clone())));
        self.saving = configured.zip(next.0.clone()).map(|(configured, file)| {
            ground.spawn(keep(ground.clone(), file, configured.save_interval))
        });
        self.file = next.0;
        self.configured = configured.cloned();
    }

    /// Saves what clients have used, at the program's end.
    pub(super) async fn finish(&mut self, ground: &Ground) {
        self.saving = None;
        let Some(file) = self.file.take() else {
            return;
        };
        save(ground, &file);
        let late = ground.reactor.sleep(LAST_SAVE);
        smol::future::or(file.written(), late).await;
    }
}

fn rules(configured: &config::Accounting) -> AccountRules {
    let then = match configured.at_quota {
        AtQuota::Log => OverQuota::Log,
        AtQuota::Slow => OverQuota::Slow(configured.quota_rate.unwrap_or(u64::MAX)),
        AtQuota::Refuse => OverQuota::Refuse,
    };
    AccountRules {
        clients: configured.clients as usize,
        prefixes: Prefixes {
            ipv4: configured.ipv4_prefix,
            ipv6: configured.ipv6_prefix,
        },
        quota: configured.quota.map(|it| Quota {
            bytes: it.bytes,
            period: match it.period {
                QuotaPeriod::Day => Period::Day,
                QuotaPeriod::Week => Period::Week,
                QuotaPeriod::Month => Period::Month,
            },
            then,
        }),
    }
}

/// Checks the quotas until dropped.
async fn check(ground: Ground) {
    loop {
        let checked = ground.shared.check_quotas(wall(), ground.reactor.now());
        for (client, bytes) in &checked.over {
            log::warn!(client:% = client, bytes; "a client has used up its quota of this period");
        }
        kill::end_each(&ground, &checked.ends, CloseReason::Quota).await;
        ground.reactor.sleep(CHECK).await;
    }
}

/// Reads the file, and saves to it what has changed until dropped.
async fn keep(ground: Ground, file: Rc<AccountFile>, interval: Duration) {
    if let Some(Loaded(Some(saved))) = file.loaded().await {
        let now = ground.reactor.now();
        ground.shared.add_accounts(&saved, now, wall());
    }
    file.may_be_written();
    let mut before = None;
    loop {
        ground.reactor.sleep(interval).await;
        let numbers = ground.shared.account_numbers(ground.reactor.now());
        let sum = numbers.as_ref().map(sum);
        if sum != before {
            before = sum;
            save(&ground, &file);
        }
    }
}

/// Returns what differs once anybody has used anything.
fn sum(numbers: &AccountNumbers) -> (Passed, Option<u64>) {
    let used = numbers.clients.iter().map(|it| it.used);
    (used.fold(numbers.others, Passed::and), numbers.period)
}

fn save(ground: &Ground, file: &AccountFile) {
    if let Some(numbers) = ground.shared.account_numbers(ground.reactor.now()) {
        file.save(numbers, wall());
    }
}

/// Returns the seconds since 1970.
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
