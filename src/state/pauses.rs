//! Times when the program did not run, which must not count as silence of a connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The recent pauses. Older ones are merged.
#[derive(Debug, Default)]
pub struct Pauses {
    recent: VecDeque<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    length: Duration,
    end: Instant,
}

impl Pauses {
    /// The most pauses that are kept apart. When another one comes, the two oldest are merged,
    /// which can only make silences shorter.
    const AT_MOST: usize = 64;

    /// Records that the program did not run for `length`, until `end`. Pauses must be added in the
    /// order of their ends.
    pub fn add(&mut self, length: Duration, end: Instant) {
        if self.recent.len() == Self::AT_MOST
            && let Some(oldest) = self.recent.pop_front()
            && let Some(next) = self.recent.front_mut()
        {
            next.length += oldest.length;
        }
        self.recent.push_back(Pause { length, end });
    }

    /// Returns how long the program ran between `since` and `now`.
    #[must_use]
    pub fn awake(&self, since: Instant, now: Instant) -> Duration {
        let later = self.recent.iter().rev();
        let later = later.take_while(|pause| pause.end > since);
        let paused = later.map(|pause| pause.length.min(pause.end - since));
        now.saturating_duration_since(since)
            .saturating_sub(paused.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn only_pauses_in_between_are_subtracted() {
        let start = Instant::now();
        let at = |n| start + seconds(n);
        let mut pauses = Pauses::default();
        assert_eq!(pauses.awake(start, at(30)), seconds(30));
        pauses.add(seconds(10), at(20));
        pauses.add(seconds(5), at(30));
        assert_eq!(pauses.awake(start, at(40)), seconds(25));
        // From within a pause: no byte can arrive before its end, but a connection can be that old.
        assert_eq!(pauses.awake(at(15), at(40)), seconds(15));
        assert_eq!(pauses.awake(at(20), at(40)), seconds(15));
        assert_eq!(pauses.awake(at(30), at(40)), seconds(10));
    }

    #[test]
    fn many_pauses_take_bounded_memory_and_never_lengthen_a_silence() {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        for n in 1..=1000 {
            pauses.add(seconds(1), start + seconds(2 * n));
        }
        assert_eq!(pauses.recent.len(), Pauses::AT_MOST);
        let end = start + seconds(2000);
        assert_eq!(pauses.awake(start, end), seconds(1000));
        assert!(pauses.awake(start + seconds(1000), end) <= seconds(500));
        assert_eq!(pauses.awake(start + seconds(1990), end), seconds(5));
    }
}
