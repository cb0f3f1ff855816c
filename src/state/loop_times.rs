//! How long the iterations of the loop that moves data take. Pure: times are arguments.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::metric::{Metric, Publish};

/// How long a maximum is kept, at least. A Prometheus that scrapes once a minute misses none.
const PERIOD: Duration = Duration::from_secs(60);

/// The longest iteration of the last one to two minutes.
#[derive(Debug, Default)]
pub struct LoopTimes {
    /// When the present period began.
    began: Cell<Option<Instant>>,
    longest: Cell<Duration>,
    /// The longest one of the period before.
    before: Cell<Duration>,
}

impl LoopTimes {
    /// Records one iteration: its work, without the wait for events.
    pub fn worked(&self, from: Instant, to: Instant) {
        let began = self.began.get().unwrap_or(from);
        let age = to.saturating_duration_since(began);
        if self.began.get().is_none() || age >= PERIOD {
            let is_recent = age < 2 * PERIOD;
            let longest = self.longest.take();
            self.before
                .set(if is_recent { longest } else { Duration::ZERO });
            self.began.set(Some(to));
        }
        let took = to.saturating_duration_since(from);
        if took > self.longest.get() {
            self.longest.set(took);
        }
    }

    /// Returns a copy.
    #[must_use]
    pub fn numbers(&self) -> LoopNumbers {
        LoopNumbers {
            longest: self.longest.get().max(self.before.get()),
        }
    }
}

/// A copy of [`LoopTimes`].
#[derive(Clone, Copy, Debug)]
pub struct LoopNumbers {
    /// The longest iteration of the last one to two minutes.
    pub longest: Duration,
}

impl Publish for LoopNumbers {
    const METRICS: &'static [Metric<Self>] = &[Metric::gauge(
        "coracle_loop_longest_iteration_seconds",
        "The longest time in the last one to two minutes that the loop that moves data worked without looking for events.",
        |it, out| out.number(None, it.longest.as_secs_f64()),
    )];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_iteration_is_kept_for_one_to_two_periods() {
        let (times, start) = (LoopTimes::default(), Instant::now());
        let work = |at: u64, millis: u64| {
            let from = start + Duration::from_secs(at);
            times.worked(from, from + Duration::from_millis(millis));
            times.numbers().longest.as_millis()
        };
        assert_eq!(times.numbers().longest, Duration::ZERO);
        assert_eq!(work(0, 5), 5);
        assert_eq!(work(1, 40), 40);
        assert_eq!(work(2, 1), 40);
        assert_eq!(work(61, 7), 40, "the period before counts");
        assert_eq!(work(125, 3), 7);
        assert_eq!(work(1000, 1), 1, "nothing happened for long");
    }
}
