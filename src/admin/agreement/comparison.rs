//! Decides whether another count of the connections agrees with the set, although the two are not
//! read at the same instant.

use std::time::Duration;

/// A difference must appear in this many consecutive readings.
pub(super) const READINGS: u32 = 3;
/// The time between two readings. By the next one, the data loop has long been notified of
/// everything that ended in the kernel.
pub(super) const BETWEEN_READINGS: Duration = Duration::from_millis(100);

/// An entrypoint's connections at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Connections in the set.
    pub open: u64,
    /// Connections that ever entered it.
    pub opened: u64,
    /// Connections that ever left it.
    pub closed: u64,
}

impl Moment {
    /// Returns the sum of both.
    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            opened: self.opened.wrapping_add(other.opened),
            closed: self.closed.wrapping_add(other.closed),
        }
    }

    /// Returns the later moment at which all open connections have left.
    #[must_use]
    pub(super) fn ended(self) -> Self {
        Self {
            open: 0,
            opened: self.opened,
            closed: self.closed.wrapping_add(self.open),
        }
    }
}

/// Returns how far `counted` lies outside the range of sizes that the set can have had between two
/// moments: positive above it, negative below it.
///
/// Between the moments, the set held at least the connections that were in it all the time, and at
/// most those that were in it at any time. A count taken meanwhile, socket by socket, can be any
/// number in that range without contradicting the set. If nothing came or went, the range is a
/// single number and the comparison is exact.
#[must_use]
pub(super) fn mismatch(before: Moment, counted: u64, after: Moment) -> i64 {
    let came = after.opened.wrapping_sub(before.opened);
    let went = after.closed.wrapping_sub(before.closed);
    let least = before.open.saturating_sub(went);
    let most = before.open.saturating_add(came);
    if counted > most {
        i64::try_from(counted - most).unwrap_or(i64::MAX)
    } else {
        i64::try_from(least.saturating_sub(counted)).map_or(i64::MIN, |missing| -missing)
    }
}

/// Returns the part of a difference that two readings share: what persisted from one to the other.
#[must_use]
pub(super) fn lasting(first: i64, second: i64) -> i64 {
    if first.signum() != second.signum() {
        return 0;
    }
    if first.unsigned_abs() < second.unsigned_abs() {
        first
    } else {
        second
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn moment(open: u64, opened: u64, closed: u64) -> Moment {
        Moment {
            open,
            opened,
            closed,
        }
    }

    #[test]
    fn without_changes_the_comparison_is_exact() {
        let still = moment(5, 9, 4);
        let of = |counted| mismatch(still, counted, still);
        assert_eq!([of(3), of(5), of(8)], [-2, 0, 3]);
    }

    #[test]
    fn changes_during_the_count_are_tolerated() {
        // Two came and three went during the count: from 5 - 3 to 5 + 2.
        let (before, after) = (moment(5, 9, 4), moment(4, 11, 7));
        let of = |counted| mismatch(before, counted, after);
        assert_eq!([of(1), of(2), of(7), of(8)], [-1, 0, 0, 1]);
    }

    #[test]
    fn leaked_entry_is_found_even_if_the_counters_match_it() {
        // The kernel has no connection, and the set keeps one forever.
        let leaked = moment(1, 10, 9);
        assert_eq!(mismatch(leaked, 0, leaked), -1);
    }

    #[test]
    fn only_the_shared_part_of_a_difference_persists() {
        let cases = [(0, 3), (3, 0), (-1, 1), (2, 5), (5, 2), (-4, -3)];
        let shared = cases.map(|(first, second)| lasting(first, second));
        assert_eq!(shared, [0, 0, 0, 2, 2, -3]);
    }

    /// The connections of an entrypoint over a span of events, each of which is one connection that
    /// enters or leaves.
    #[derive(Debug)]
    struct History {
        /// How many had entered and left before the first event.
        opened: u64,
        /// When each connection is open, in numbers of events.
        lives: Vec<Range<usize>>,
        events: usize,
    }

    impl History {
        fn moment(&self, at: usize) -> Moment {
            let entered = self.lives.iter().filter(|life| life.start <= at).count() as u64;
            let open = self.lives.iter().filter(|life| life.contains(&at)).count() as u64;
            let opened = self.opened.wrapping_add(entered);
            moment(open, opened, opened.wrapping_sub(open))
        }

        /// Returns the kernel's count, which looks for each connection at a different time.
        fn counted(&self, looks: &[Index]) -> u64 {
            let looks = looks.iter().map(|look| look.index(self.events + 1));
            let seen = self.lives.iter().zip(looks);
            seen.filter(|(life, at)| life.contains(at)).count() as u64
        }

        /// Returns the mismatch if the set also holds `leaked` entries without a connection.
        fn mismatch(&self, looks: &[Index], leaked: u64) -> i64 {
            let leaked = moment(leaked, leaked, 0);
            let [before, after] = [0, self.events].map(|at| self.moment(at).plus(leaked));
            mismatch(before, self.counted(looks), after)
        }
    }

    const OPEN: usize = 20;
    const EVENTS: usize = 30;

    prop_compose! {
        fn history(events: usize)(
            opened in any::<u64>(),
            open in 0..OPEN,
            // A connection leaves, or one enters.
            events in vec(option::of(any::<Index>()), 0..=events),
        ) -> History {
            let mut lives = vec![0..usize::MAX; open];
            for (event, leaves) in events.iter().enumerate() {
                let now = event + 1;
                let mut open: Vec<_> = lives.iter_mut().filter(|life| life.end > now).collect();
                match leaves {
                    Some(which) if !open.is_empty() => which.get_mut(&mut open).end = now,
                    _ => lives.push(now..usize::MAX),
                }
            }
            History { opened, lives, events: events.len() }
        }
    }

    fn looks() -> impl Strategy<Value = Vec<Index>> {
        vec(any::<Index>(), OPEN + EVENTS)
    }

    proptest! {
        #[test]
        fn true_count_is_never_a_mismatch(history in history(EVENTS), looks in looks()) {
            prop_assert_eq!(history.mismatch(&looks, 0), 0);
        }

        #[test]
        fn leak_always_shows_while_nothing_enters_or_leaves(
            history in history(0),
            looks in looks(),
            leaked in 1..10_u64,
        ) {
            prop_assert_eq!(history.mismatch(&looks, leaked), -(leaked as i64));
        }

        #[test]
        fn leak_larger_than_the_churn_lasts_through_all_readings(
            readings in vec((history(EVENTS), looks()), READINGS as usize),
            more in 1..10_u64,
        ) {
            let leaked = EVENTS as u64 + more;
            let shown = readings.iter().map(|(history, looks)| history.mismatch(looks, leaked));
            let lasts = shown.reduce(lasting).expect("several readings");
            prop_assert!((-(leaked as i64)..0).contains(&lasts), "{}", lasts);
        }
    }
}
