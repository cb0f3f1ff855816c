//! The last hour of each entrypoint, service and server, in samples. Reads no clock.

use std::time::Duration;

use super::past::Passed;
use super::recorded::Recorded;
use super::tally::{Subject, Tally};

/// The samples of everything that lives.
///
/// Time is given as the time since the machine was booted, by a clock that also runs while the
/// machine is suspended. It is divided into intervals of [`History::INTERVAL`]; a sample belongs to
/// the interval that has ended most recently, however late it is taken. So an interval without a
/// sample leaves a gap and shifts no other sample.
///
/// An object that nothing happens to takes one byte per sample, a busy one about ten: for an hour,
/// 360 bytes to 4 KiB. More than [`History::MOST_OBJECTS`] objects share the samples of so many:
/// each has fewer, for a shorter time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The number of the interval that the last samples end.
    ended: Option<u64>,
    tracks: Vec<Track>,
}

/// What is kept of one object.
#[derive(Clone, Debug)]
pub struct Track {
    /// The entrypoint, service or server.
    pub subject: Subject,
    /// Its samples, oldest first. The last one ends with the history's last interval.
    pub samples: Recorded,
    /// What had passed in all at the last sample.
    before: Passed,
}

impl History {
    /// The time from one sample to the next.
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// The most samples of one object: those of an hour.
    pub const MOST: usize = 360;
    /// How many objects can have that many samples.
    pub const MOST_OBJECTS: usize = 1000;

    /// Returns how long after `now` the current interval ends.
    #[must_use]
    pub fn until_due(now: Duration) -> Duration {
        let begun = Self::INTERVAL * number(now) as u32;
        Self::INTERVAL - now.saturating_sub(begun)
    }

    /// Returns whether an interval has ended since the last sample.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.ended.is_none_or(|ended| number(now) > ended)
    }

    /// Returns when the last sample's interval ended.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        Some(Self::INTERVAL * self.ended? as u32)
    }

    /// Returns what is kept of each object: entrypoints, services, and then servers.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Adds a sample of each object in `tallies` and forgets all other objects. Does nothing if no
    /// interval has ended since the last sample.
    ///
    /// The first call adds no samples: what has passed before it belongs to no interval.
    pub fn take(&mut self, now: Duration, tallies: Vec<Tally>) {
        if !self.is_due(now) {
            return;
        }
        let number = number(now);
        let before = self.ended.replace(number);
        let missed = before.map(|before| (number - before - 1) as usize);
        let most = Self::MOST.min(Self::MOST * Self::MOST_OBJECTS / tallies.len().max(1));
        let mut known: Vec<_> = std::mem::take(&mut self.tracks)
            .into_iter()
            .map(Some)
            .collect();
        let mut at = 0;
        let tracks = tallies.into_iter().map(
            |Tally {
                 subject,
                 open,
                 passed,
             }| {
                // Both are in the same order, so the first guess is nearly always right.
                let is_same = |at: &usize| {
                    let track: Option<&Track> = known[*at].as_ref();
                    track.is_some_and(|track| track.subject.is(&subject))
                };
                let found = (at..known.len()).chain(0..at).find(is_same);
                let known = found.and_then(|found| {
                    at = found + 1;
                    known[found].take()
                });
                let mut track = known.unwrap_or_else(|| Track {
                    subject,
                    samples: Recorded::default(),
                    // It began after the last sample, unless there was none.
                    before: before.map_or(passed, |_| Passed::default()),
                });
                track.add(open, passed, missed, most);
                track
            },
        );
        self.tracks = tracks.collect();
    }
}

impl Track {
    fn add(&mut self, open: u64, passed: Passed, missed: Option<usize>, most: usize) {
        let Some(missed) = missed else {
            return;
        };
        (0..missed.min(most)).for_each(|_| self.samples.miss());
        self.samples.push(open, passed.since(self.before));
        self.samples.keep(most);
        self.before = passed;
    }
}

/// Returns the number of intervals that have ended. In 32 bits they last for 1,361 years.
fn number(now: Duration) -> u64 {
    now.as_secs() / History::INTERVAL.as_secs()
}

#[cfg(test)]
mod tests;
