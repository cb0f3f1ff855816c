//! When the checks of one server begin.

use std::time::{Duration, Instant};

/// The beginnings of one server's checks.
///
/// A server that stops answering is noticed by `fall` failed checks in a row. If no check takes
/// longer than half of the interval, and `fall` is at least 2, the last of them has failed at most
/// `fall` intervals after the server stopped: the first begins within one interval, each further one
/// half an interval after the one before, and the last takes another half.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval: Duration,
    jitter: Duration,
}

impl Schedule {
    /// Creates a schedule of checks from `interval` to `interval - jitter` apart.
    #[must_use]
    pub fn new(interval: Duration, jitter: Duration) -> Self {
        let jitter = jitter.min(interval);
        Self { interval, jitter }
    }

    /// Returns when the first check begins: at once, but not together with those of others.
    #[must_use]
    pub fn first(&self, now: Instant, random: u32) -> Instant {
        now + self.part_of_jitter(random)
    }

    /// Returns when the next check begins after one from `begun` to `ended`.
    ///
    /// `in_doubt` is whether it failed, and the server still counts as up.
    #[must_use]
    pub fn next(&self, begun: Instant, ended: Instant, in_doubt: bool, random: u32) -> Instant {
        let pause = match in_doubt {
            true => self.interval / 2,
            false => self.interval - self.part_of_jitter(random),
        };
        (begun + pause).max(ended)
    }

    fn part_of_jitter(&self, random: u32) -> Duration {
        let part = f64::from(random) / f64::from(u32::MAX);
        self.jitter.mul_f64(part).min(self.jitter)
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
        let mut random = fastrand::Rng::with_seed(0x2672);
        let start = Instant::now();
        let schedule = Schedule::new(ms(1000), ms(100));
        let mut seen = Vec::new();
        for _ in 0..1000 {
            assert!(schedule.first(start, random.u32(..)) <= start + ms(100));
            let next = schedule.next(start, start + ms(1), false, random.u32(..));
            seen.push(next - start);
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
        let schedule = Schedule::new(ms(1000), ms(0));
        let next = |took, in_doubt| schedule.next(start, start + ms(took), in_doubt, 7) - start;
        assert_eq!(next(10, false), ms(1000));
        assert_eq!(next(10, true), ms(500));
        assert_eq!(next(700, true), ms(700));
        assert_eq!(next(5000, false), ms(5000));
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
            let mut random = fastrand::Rng::with_seed(seed);
            let schedule = Schedule::new(interval, jitter);
            // It answers at once until it dies, some time between the first check and ten intervals
            // later, and not at all from then on.
            let mut begun = schedule.first(start, random.u32(..));
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
                begun = schedule.next(begun, ended, failed > 0, random.u32(..));
                prop_assert!(begun >= ended);
            }
        }

        #[test]
        fn checks_are_never_closer_than_half_the_interval(
            random in any::<u32>(),
            jitter in 0..=50u64,
            in_doubt in any::<bool>(),
        ) {
            let start = Instant::now();
            let schedule = Schedule::new(ms(1000), ms(10 * jitter));
            prop_assert!(schedule.next(start, start, in_doubt, random) >= start + ms(500));
        }
    }
}
