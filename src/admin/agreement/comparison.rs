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
    /// The sum of both.
    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            opened: self.opened.wrapping_add(other.opened),
            closed: self.closed.wrapping_add(other.closed),
        }
    }

    /// The later moment at which all open connections have left.
    #[must_use]
    pub(super) fn ended(self) -> Self {
        Self {
            open: 0,
            opened: self.opened,
            closed: self.closed.wrapping_add(self.open),
        }
    }
}

/// How far `counted` lies outside the range of sizes that the set can have had between two moments:
/// positive above it, negative below it.
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

/// The part of a difference that two readings share: what persisted from one to the other.
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
    fn a_leaked_entry_is_found_even_if_the_counters_match_it() {
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
}
