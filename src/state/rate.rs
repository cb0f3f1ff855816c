//! How often something may happen: token buckets that need no timer.

use std::fmt;
use std::time::Duration;

/// A number of events per unit of time, and how many of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The number of events, at least 1 and at most [`Rate::MOST`].
    pub count: u32,
    /// The unit of time, at least a second and at most an hour.
    pub per: Duration,
    /// How many may come at once after a pause, at least 1 and at most [`Rate::MOST`].
    pub burst: u32,
}

impl Rate {
    /// The largest number of events.
    pub const MOST: u32 = 1_000_000;

    /// The nanoseconds in which one token comes.
    fn interval(&self) -> u64 {
        self.per.as_nanos() as u64 / u64::from(self.count)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per, burst } = self;
        let unit = match per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{count}/{unit}")?;
        match burst == count {
            true => Ok(()),
            false => write!(f, " with a burst of {burst}"),
        }
    }
}

/// A token bucket, as the time at which it is full again, in nanoseconds (the generic cell rate
/// algorithm; ITU-T I.371, annex A). A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket(u64);

impl Bucket {
    /// Takes a token. Returns `false` if there is none.
    pub(super) fn take(&mut self, rate: &Rate, now: u64) -> bool {
        let full_at = self.0.max(now);
        let has_one = full_at - now <= u64::from(rate.burst - 1) * rate.interval();
        if has_one {
            self.0 = full_at + rate.interval();
        }
        has_one
    }

    /// Returns whether it is as a new one.
    pub(super) fn is_full(&self, now: u64) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket by its definition: what is in it grows with time up to the burst. Counted in
    /// nanoseconds, of which a token takes as many as it takes to come.
    struct Model {
        level: u64,
        at: u64,
    }

    impl Model {
        fn take(&mut self, rate: &Rate, now: u64) -> bool {
            let most = u64::from(rate.burst) * rate.interval();
            self.level = (self.level + (now - self.at)).min(most);
            self.at = now;
            let has_one = self.level >= rate.interval();
            if has_one {
                self.level -= rate.interval();
            }
            has_one
        }
    }

    #[test]
    fn buckets_agree_with_their_definition() {
        let mut random = fastrand::Rng::with_seed(0x2672);
        let mut taken = 0;
        for round in 0..1_000 {
            let rate = Rate {
                count: random.u32(1..50),
                per: Duration::from_secs([1, 60, 3600][random.usize(..3)]),
                burst: random.u32(1..8),
            };
            let mut now = random.u64(..1 << 40);
            let most = u64::from(rate.burst) * rate.interval();
            let (mut bucket, mut model) = (
                Bucket::default(),
                Model {
                    level: most,
                    at: now,
                },
            );
            for _ in 0..100 {
                // Often exactly when a token comes.
                now += match random.u8(..3) {
                    0 => 0,
                    1 => rate.interval(),
                    _ => random.u64(..2 * rate.interval()),
                };
                let is_taken = bucket.take(&rate, now);
                assert_eq!(is_taken, model.take(&rate, now), "round {round}: {rate:?}");
                assert_eq!(bucket.is_full(now), model.level == most, "round {round}");
                taken += u32::from(is_taken);
            }
        }
        assert!((30_000..90_000).contains(&taken), "{taken}");
    }

    #[test]
    fn extremes_do_not_overflow() {
        let rate = Rate {
            count: 1,
            per: Duration::from_secs(3600),
            burst: Rate::MOST,
        };
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(100 * 365 * 86_400).as_nanos() as u64;
        let taken = (0..2 * Rate::MOST).filter(|_| bucket.take(&rate, now));
        assert_eq!(taken.count(), Rate::MOST as usize);
    }
}
