//! How often a configuration has come into force, and when it last did.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::counters::Counter;
use super::metric::{Metric, Publish};

/// The configurations that have come into force, the first one at the start included.
#[derive(Clone, Debug, Default)]
pub struct ConfigLoads {
    count: Counter,
    last: Cell<Duration>,
    has_failed: Cell<bool>,
}

impl ConfigLoads {
    /// Notes that a configuration has come into force at `now`.
    pub fn succeeded(&self, now: SystemTime) {
        self.count.increment();
        self.has_failed.set(false);
        // A clock before 1970 has not been set yet, as on a board without a battery: then the time is not known.
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        self.last.set(since.unwrap_or_default());
    }

    /// Notes that a configuration was refused, and that the one before it stays in force.
    pub fn failed(&self) {
        self.has_failed.set(true);
    }

    /// Whether the last one that was tried is in force.
    #[must_use]
    pub fn is_last_good(&self) -> bool {
        !self.has_failed.get()
    }

    /// How many there have been.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.value()
    }

    /// When the last one was, since 1970; zero if there was none.
    #[must_use]
    pub fn last(&self) -> Duration {
        self.last.get()
    }
}

impl Publish for ConfigLoads {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_config_last_reload_successful",
            "Whether the last attempt to load a configuration succeeded: 1 if it did, 0 if the one before it stays in force.",
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
    fn each_load_counts_and_the_last_one_has_its_time() {
        let loads = ConfigLoads::default();
        assert_eq!((loads.count(), loads.last()), (0, Duration::ZERO));
        for seconds in [1_700_000_000, 1_700_000_060] {
            let at = Duration::from_secs(seconds);
            loads.succeeded(SystemTime::UNIX_EPOCH + at);
            assert_eq!(loads.last(), at);
        }
        assert_eq!(loads.count(), 2);
        loads.failed();
        assert!(!loads.is_last_good());
        assert_eq!((loads.count(), loads.last().as_secs()), (2, 1_700_000_060));
        loads.succeeded(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!((loads.count(), loads.last()), (3, Duration::ZERO));
        assert!(loads.is_last_good());
    }
}
