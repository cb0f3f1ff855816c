//! How often a configuration has come into force, and when it last did.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use super::counters::Counter;

/// The configurations that have come into force, the first one at the start included.
#[derive(Clone, Debug, Default)]
pub struct ConfigLoads {
    count: Counter,
    last: Cell<Duration>,
}

impl ConfigLoads {
    /// Notes that a configuration has come into force at `now`.
    pub fn succeeded(&self, now: SystemTime) {
        self.count.increment();
        // A clock before 1970 has not been set yet, as on a board without a battery: then the time is not known.
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        self.last.set(since.unwrap_or_default());
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
        loads.succeeded(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!((loads.count(), loads.last()), (3, Duration::ZERO));
    }
}
