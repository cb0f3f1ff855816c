//! How much a client may use in a period, and what happens to one that uses more.

use std::time::{Duration, SystemTime};

/// How much each client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The bytes of both directions together.
    pub bytes: u64,
    /// In which time.
    pub period: Period,
    /// What happens to a client that has used them.
    pub then: OverQuota,
}

/// The time in which a quota may be used. Each begins at midnight UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month of the calendar.
    Month,
}

/// What happens to a client that has used its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverQuota {
    /// It is logged.
    #[default]
    Log,
    /// All its connections together get so many bytes per second.
    Slow(u64),
    /// Its connections are reset, and new ones as well.
    Refuse,
}

impl Period {
    /// Returns the word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Returns the number of the period that `wall`, in seconds since 1970, is in. The next period
    /// has the next number.
    #[must_use]
    pub fn number(self, wall: u64) -> u64 {
        const DAY: u64 = 24 * 60 * 60;
        match self {
            Self::Day => wall / DAY,
            // The first day of 1970 was a Thursday.
            Self::Week => (wall / DAY + 3) / 7,
            Self::Month => {
                /// The end of the year 9999; later dates cannot be shown.
                const LAST: u64 = 253_402_300_799;
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(wall.min(LAST));
                let date = humantime::format_rfc3339_seconds(at).to_string();
                let part = |range| date.get(range).and_then(|it: &str| it.parse::<u64>().ok());
                part(0..4).unwrap_or(0) * 12 + part(5..7).unwrap_or(1) - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(period: Period, date: &str) -> u64 {
        let at = humantime::parse_rfc3339(date).expect("a date");
        let wall = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        period.number(wall.as_secs())
    }

    #[test]
    fn periods_begin_at_midnight_of_days_mondays_and_firsts() {
        for (period, last, first) in [
            (Period::Day, "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z"),
            (Period::Week, "2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"),
            (
                Period::Month,
                "2026-11-30T23:59:59Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                Period::Month,
                "2026-12-31T23:59:59Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                Period::Month,
                "2028-02-29T23:59:59Z",
                "2028-03-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                number(period, last) + 1,
                number(period, first),
                "{period:?} {first}"
            );
        }
        for (period, first, last) in [
            (Period::Week, "2026-11-30T00:00:00Z", "2026-12-06T23:59:59Z"),
            (
                Period::Month,
                "2026-12-01T00:00:00Z",
                "2026-12-31T23:59:59Z",
            ),
        ] {
            assert_eq!(number(period, first), number(period, last));
        }
        // A clock that was never set.
        assert_eq!([Period::Day, Period::Week].map(|it| it.number(0)), [0, 0]);
        assert_eq!(Period::Month.number(0), 1970 * 12);
        let _ = Period::Month.number(u64::MAX);
    }
}
