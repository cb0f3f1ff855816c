//! Whether another count of the connections agrees with the set, although the two are not read at one instant.

use std::time::Duration;

/// A difference must show in this many readings in a row.
pub(super) const READINGS: u32 = 3;
/// The time from one of them to the next: the loop has long heard by then of whatever has ended in the kernel.
pub(super) const BETWEEN_READINGS: Duration = Duration::from_millis(100);

/// An entrypoint's connections at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// Connections in the set.
    pub open: u64,
    /// Connections that have ever entered it.
    pub opened: u64,
    /// Connections that have ever left it.
    pub closed: u64,
}

impl Moment {
    /// Of both together.
    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            opened: self.opened.wrapping_add(other.opened),
            closed: self.closed.wrapping_add(other.closed),
        }
    }

    /// The moment at which all that were open have left.
    #[must_use]
    pub(super) fn ended(self) -> Self {
        Self {
            open: 0,
            opened: self.opened,
            closed: self.closed.wrapping_add(self.open),
        }
    }
}

/// How far `counted` lies outside of what the set can have been between two moments: above it is positive, below negative.
///
/// Between them the set has held at least those that were in it all the time, and at most those that were in it at any time.
/// A count that was taken meanwhile, socket by socket, may be any number from the one to the other without a contradiction;
/// where nothing came or went the two are the same, and the comparison is exact.
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

/// The part of a difference that two readings share: what lasted from the one to the other.
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
    fn where_nothing_came_or_went_the_comparison_is_exact() {
        let still = moment(5, 9, 4);
        let of = |counted| mismatch(still, counted, still);
        assert_eq!([of(3), of(5), of(8)], [-2, 0, 3]);
    }

    #[test]
    fn what_came_and_went_meanwhile_is_no_contradiction() {
        // Two came and three went while it was counted: from 5 - 3 to 5 + 2.
        let (before, after) = (moment(5, 9, 4), moment(4, 11, 7));
        let of = |counted| mismatch(before, counted, after);
        assert_eq!([of(1), of(2), of(7), of(8)], [-1, 0, 0, 1]);
    }

    #[test]
    fn a_leaked_entry_shows_although_no_counter_tells_of_it() {
        // The kernel has none, the set keeps one for ever.
        let leaked = moment(1, 10, 9);
        assert_eq!(mismatch(leaked, 0, leaked), -1);
    }

    #[test]
    fn only_what_both_readings_share_lasts() {
        let cases = [(0, 3), (3, 0), (-1, 1), (2, 5), (5, 2), (-4, -3)];
        let shared = cases.map(|(first, second)| lasting(first, second));
        assert_eq!(shared, [0, 0, 0, 2, 2, -3]);
    }
}
