//! A token bucket: so many at once, then one per interval. No clock: the time is an argument.

use std::time::{Duration, Instant};

/// What may happen `AT_ONCE` times in a row and then once per `EVERY`.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    at_once: u32,
    every: Duration,
    /// When it will be full again. Says all that there is to know: how much is missing until then.
    full_at: Instant,
}

impl Bucket {
    /// Creates a full bucket.
    #[must_use]
    pub fn new(at_once: u32, every: Duration, now: Instant) -> Self {
        Self {
            at_once,
            every,
            full_at: now,
        }
    }

    /// Returns how long it takes until there is something to take; zero if there is now.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now) + self.every;
        missing.saturating_sub(self.every * self.at_once)
    }

    /// Takes one. Call this only if there is one.
    pub fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.every;
    }

    /// Returns when it will be full.
    #[must_use]
    pub fn full_at(&self) -> Instant {
        self.full_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_one_per_interval() {
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        let mut bucket = Bucket::new(10, second, now);
        for _ in 0..10 {
            assert_eq!(bucket.wait(now), Duration::ZERO);
            bucket.take(now);
        }
        assert_eq!(bucket.wait(now), second);
        now += second / 4;
        assert_eq!(bucket.wait(now), second * 3 / 4);
        now += second * 3 / 4;
        assert_eq!(bucket.wait(now), Duration::ZERO);
        bucket.take(now);
        assert_eq!(bucket.wait(now), second);
        // After any time it holds no more than at first.
        now += second * 1000;
        for _ in 0..10 {
            assert_eq!(bucket.wait(now), Duration::ZERO);
            bucket.take(now);
        }
        assert_eq!(bucket.wait(now), second);
    }
}
