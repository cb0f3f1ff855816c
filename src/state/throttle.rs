//! Limits a repeated event to one per interval, and counts the events in between.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Admits one event per interval.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    last: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Throttle {
    /// Creates a throttle that admits one event per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Cell::new(None),
            suppressed: Cell::new(0),
        }
    }

    /// Returns how many events were suppressed before the one at `now`, or `None` if that one is
    /// suppressed too.
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
    fn one_event_per_interval_passes_and_the_rest_are_counted() {
        let throttle = Throttle::new(Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis| throttle.admit(start + Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(2000)],
            [Some(0), None, None, Some(2), Some(0)]
        );
    }
}
