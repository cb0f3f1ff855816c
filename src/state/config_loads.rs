//! How many configurations have come into force, and when the last one did.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::counters::Counter;
use super::metric::{Metric, Publish};

/// The configurations that have come into force, including the first one at startup.
#[derive(Clone, Debug, Default)]
pub struct ConfigLoads {
    count: Counter,
    last: Cell<Duration>,
    changes: RefCell<Arc<str>>,
    failures: Counter,
    has_failed: Cell<bool>,
    reason: RefCell<Arc<str>>,
}

impl ConfigLoads {
    /// Records that a configuration came into force at `now`, with these changes, one on each line.
    pub fn succeeded(&self, now: SystemTime, changes: &str) {
        self.changes.replace(changes.into());
        self.count.increment();
        self.has_failed.set(false);
        // A clock before 1970 is not set yet, as on a board without a battery, so the time is
        // unknown.
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        self.last.set(since.unwrap_or_default());
    }

    /// Records that a configuration was rejected for this reason, and the previous one stays in
    /// force.
    pub fn failed(&self, reason: &str) {
        self.reason.replace(reason.into());
        self.failures.increment();
        self.has_failed.set(true);
    }

    /// Returns whether the most recent attempt succeeded.
    #[must_use]
    pub fn is_last_good(&self) -> bool {
        !self.has_failed.get()
    }

    /// Returns how many configurations have come into force.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.value()
    }

    /// Returns how many configurations were rejected.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.value()
    }

    /// Returns the changes that the last configuration brought, one on each line.
    #[must_use]
    pub fn changes(&self) -> Arc<str> {
        self.changes.borrow().clone()
    }

    /// Returns why the last configuration that was rejected was.
    #[must_use]
    pub fn reason(&self) -> Arc<str> {
        self.reason.borrow().clone()
    }

    /// Returns when the last configuration came into force, as time since 1970, or zero if that is
    /// unknown.
    #[must_use]
    pub fn last(&self) -> Duration {
        self.last.get()
    }
}

impl Publish for ConfigLoads {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_config_last_reload_successful",
            "Whether the last attempt to load a configuration succeeded: 1 if so, 0 if the previous one stays in force.",
            |it, out| out.value(u64::from(it.is_last_good())),
        ),
        Metric::gauge(
            "coracle_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded, in seconds since the Unix epoch.",
            |it, out| out.number(None, it.last().as_secs_f64()),
        ),
    ];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_counted_and_the_last_one_is_timed() {
        let loads = ConfigLoads::default();
        assert_eq!((loads.count(), loads.last()), (0, Duration::ZERO));
        for seconds in [1_700_000_000, 1_700_000_060] {
            let at = Duration::from_secs(seconds);
            loads.succeeded(SystemTime::UNIX_EPOCH + at, "a\nb");
            assert_eq!(loads.last(), at);
        }
        assert_eq!((loads.count(), &*loads.changes()), (2, "a\nb"));
        loads.failed("c");
        assert_eq!(&*loads.reason(), "c");
        assert!(!loads.is_last_good());
        assert_eq!(loads.failures(), 1);
        assert_eq!((loads.count(), loads.last().as_secs()), (2, 1_700_000_060));
        loads.succeeded(SystemTime::UNIX_EPOCH - Duration::from_secs(1), "");
        assert_eq!((loads.count(), loads.last()), (3, Duration::ZERO));
        assert!(loads.is_last_good());
    }
}
