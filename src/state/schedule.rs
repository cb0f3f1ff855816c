//! When the checks of one server begin.

use std::time::{Duration, Instant};

/// The beginnings of one server's checks.
///
/// A server that stops answering is noticed by `fall` failed checks in a row. If no check takes
/// longer than half of the interval, and `fall` is at least 2, the last of them has failed at most
/// `fall` intervals after the server stopped: the first begins within one interval, each further one
/// half an interval after the one before, and the last takes another half.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    jitter: Duration,
    random: u64,
}

impl Schedule {
    /// Creates a schedule of checks from `interval` to `interval - jitter` apart.
    ///
    /// `seed` decides the random parts.
    #[must_use]
    pub fn new(interval: Duration, jitter: Duration, seed: u64) -> Self {
        let jitter = jitter.min(interval);
        Self {
            interval,
            jitter,
            random: seed,
        }
    }

    /// Returns when the first check begins: at once, but not together with those of others.
    pub fn first(&mut self, now: Instant) -> Instant {
        now + self.part_of_jitter()
    }

    /// Returns when the next check begins after one from `begun` to `ended`.
    ///
    /// `in_doubt` is whether it failed, and the server still counts as up.
    pub fn next(&mut self, begun: Instant, ended: Instant, in_doubt: bool) -> Instant {
        let pause = match in_doubt {
            true => self.interval / 2,
            false => self.interval - self.part_of_jitter(),
        };
        (begun + pause).max(ended)
    }

    fn part_of_jitter(&mut self) -> Duration {
        let part = (self.next_random() >> 32) as u32;
        // At most jitter: a part of 2^32.
        self.jitter.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn checks_spread_between_interval_less_jitter_and_interval() {
        let start = Instant::now();
        let mut schedule = Schedule::new(ms(1000), ms(100), 1);
        let mut seen = Vec::new();
        for _ in 0..1000 {
            assert!(schedule.first(start) <= start + ms(100));
            seen.push(schedule.next(start, start + ms(1), false) - start);
        }
        assert!(seen.iter().all(|it| (ms(900)..=ms(1000)).contains(it)));
        let tenth = |n: u64| ms(900 + 10 * n)..ms(910 + 10 * n);
        for n in 0..10 {
            let there = seen.iter().filter(|it| tenth(n).contains(it)).count();
            assert!(
                (50..200).contains(&there),
                "{there} of 1000 in {:?}",
                tenth(n)
            );
        }
    }

    #[test]
    fn check_that_ends_late_delays_the_next_one_only_as_far_as_it_must() {
        let start = Instant::now();
        let mut schedule = Schedule::new(ms(1000), ms(0), 1);
        assert_eq!(
            schedule.next(start, start + ms(10), false),
            start + ms(1000)
        );
        assert_eq!(schedule.next(start, start + ms(10), true), start + ms(500));
        assert_eq!(schedule.next(start, start + ms(700), true), start + ms(700));
        assert_eq!(
            schedule.next(start, start + ms(5000), false),
            start + ms(5000)
        );
    }

    proptest! {
        #[test]
        fn silent_server_is_out_within_fall_intervals(
            seed in any::<u64>(),
            interval in 1..100_000u64,
            (jitter, timeout, dies) in (0..=100u64, 0..=50u64, 0..1000u64),
            fall in 2..10u32,
        ) {
            let (interval, jitter) = (ms(interval), ms(interval) * jitter as u32 / 100);
            let timeout = interval * timeout as u32 / 100;
            let start = Instant::now();
            let mut schedule = Schedule::new(interval, jitter, seed);
            // It answers at once until it dies, some time between the first check and ten intervals
            // later, and not at all from then on.
            let mut begun = schedule.first(start);
            let dies = begun + interval * dies as u32 / 100;
            let mut failed = 0;
            loop {
                let answers = begun <= dies;
                let ended = if answers { begun } else { begun + timeout };
                failed = if answers { 0 } else { failed + 1 };
                if failed == fall {
                    prop_assert!(ended <= dies + interval * fall, "{:?}", ended - dies);
                    break;
                }
                begun = schedule.next(begun, ended, failed > 0);
                prop_assert!(begun >= ended);
            }
        }

        #[test]
        fn checks_are_never_closer_than_half_the_interval(
            seed in any::<u64>(),
            jitter in 0..=50u64,
            in_doubt in any::<bool>(),
        ) {
            let start = Instant::now();
            let mut schedule = Schedule::new(ms(1000), ms(10 * jitter), seed);
            prop_assert!(schedule.next(start, start, in_doubt) >= start + ms(500));
        }
    }
}
