//! Says a repeated thing at most once per interval, with how often it was left unsaid.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lets one event per interval through.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    last: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Throttle {
    /// One event per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Cell::new(None),
            suppressed: Cell::new(0),
        }
    }

    /// If the event at `now` may be told: how many before it were not.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let is_early = |last| now.saturating_duration_since(last) < self.interval;
        if self.last.get().is_some_and(is_early) {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.suppressed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_interval_and_the_rest_is_counted() {
        let throttle = Throttle::new(Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis| throttle.admit(start + Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(2000)],
            [Some(0), None, None, Some(2), Some(0)]
        );
    }
}
