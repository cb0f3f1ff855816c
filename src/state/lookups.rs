//! Schedules name look-ups in a limited number of places, so that names that hang do not block the
//! others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::sorted::Sorted;

/// How long an answer is used before it is refreshed, unless [`Lookups::set_interval`] says
/// otherwise. getaddrinfo(3) does not report an answer's time to live.
const REFRESH: Duration = Duration::from_secs(30);
/// The pause after a first failure; it doubles up to [`REFRESH`], or to a shorter interval.
const RETRY: Duration = Duration::from_secs(1);

/// The schedule of all look-ups. A look-up cannot be cancelled: it occupies its place until it
/// returns, however late.
#[derive(Debug)]
pub struct Lookups {
    names: Sorted<usize, Name>,
    last: usize,
    places: usize,
    /// The names that are due, in the order in which they became due. A name that has to wait keeps
    /// its position.
    due: VecDeque<usize>,
}

#[derive(Debug)]
struct Name {
    phase: Phase,
    /// How long an answer is used.
    interval: Duration,
    retry: Backoff,
    /// The last look-up took longer than [`Lookups::DEADLINE`].
    is_slow: bool,
    /// A look-up has returned in time.
    is_proven: bool,
    /// A connection waits for this name.
    is_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Due,
    Running {
        deadline: Instant,
    },
    /// Still running, and already reported as late.
    Late,
    Resting {
        until: Instant,
    },
}

impl Name {
    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Late)
    }
}

impl Lookups {
    /// How long a look-up may take. Time spent waiting for a place does not count.
    pub const DEADLINE: Duration = Duration::from_secs(5);

    /// Creates a schedule without names in which `places` names can be looked up at the same time.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            names: Sorted::new(),
            last: 0,
            places,
            due: VecDeque::new(),
        }
    }

    /// Changes how many names can be looked up at the same time.
    pub fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    /// Adds a name, which is due at once. Returns its number.
    pub fn add(&mut self) -> usize {
        let name = Name {
            phase: Phase::Due,
            interval: REFRESH,
            retry: Backoff::new(RETRY, REFRESH),
            is_slow: false,
            is_proven: false,
            is_wanted: false,
        };
        self.last += 1;
        self.names.insert(self.last, name);
        self.due.push_back(self.last);
        self.last
    }

    /// Removes a name. Returns `false`, and keeps the name, if it is being looked up.
    pub fn remove(&mut self, name: usize) -> bool {
        if self.names.get(&name).is_some_and(Name::is_running) {
            return false;
        }
        self.names.remove(&name);
        self.due.retain(|due| *due != name);
        true
    }

    /// Records that a connection waits for a name. Returns `false` if that was already recorded.
    pub fn want(&mut self, name: usize) -> bool {
        let name = self.names.get_mut(&name);
        name.is_some_and(|name| !std::mem::replace(&mut name.is_wanted, true))
    }

    /// Advances to `now`. Returns the names whose look-up has just become late.
    pub fn advance(&mut self, now: Instant) -> Vec<usize> {
        let mut late = Vec::new();
        let mut rested = Vec::new();
        for (&index, name) in self.names.iter_mut() {
            match name.phase {
                Phase::Running { deadline } if deadline <= now => {
                    name.phase = Phase::Late;
                    name.is_slow = true;
                    late.push(index);
                }
                Phase::Resting { until } if until <= now => {
                    name.phase = Phase::Due;
                    rested.push((until, index));
                }
                _ => {}
            }
        }
        rested.sort_unstable();
        self.due.extend(rested.iter().map(|(_, index)| index));
        late
    }

    /// Starts the next look-up that may start, and returns its name. Names that a connection waits
    /// for go first; otherwise the order counts.
    pub fn begin(&mut self, now: Instant) -> Option<usize> {
        let running = self.names.values().filter(|name| name.is_running());
        let slow = running.clone().filter(|name| name.is_slow).count();
        let free = self.places.saturating_sub(running.count());
        let may_begin = |index: &usize| {
            let Some(name) = self.names.get(index) else {
                return false;
            };
            match name {
                // A quarter of the places is for names that are known to hang.
                _ if name.is_slow => free > 0 && slow < (self.places / 4).max(1),
                // The last place is reserved: names that may turn out to hang get it only if a
                // connection waits for them.
                _ if name.is_proven || name.is_wanted || self.places == 1 => free > 0,
                _ => free > 1,
            }
        };
        let is_wanted = |index: &usize| self.names.get(index).is_some_and(|name| name.is_wanted);
        let wanted = self
            .due
            .iter()
            .position(|index| is_wanted(index) && may_begin(index));
        let at = wanted.or_else(|| self.due.iter().position(may_begin))?;
        let index = self.due.remove(at)?;
        self.names.get_mut(&index)?.phase = Phase::Running {
            deadline: now + Self::DEADLINE,
        };
        Some(index)
    }

    /// Records that a look-up has returned, late or not. The name becomes due again after a while.
    pub fn finished(&mut self, index: usize, now: Instant, is_good: bool) {
        let Some(name) = self.names.get_mut(&index) else {
            return;
        };
        name.is_wanted = false;
        if name.phase != Phase::Late {
            name.is_slow = false;
            name.is_proven = true;
        }
        let rest = match is_good {
            true => {
                name.retry.reset();
                name.interval
            }
            false => name.retry.pause(),
        };
        name.phase = Phase::Resting { until: now + rest };
    }

    /// Sets how long an answer for a name is used. Shortens a rest that would now be too long.
    pub fn set_interval(&mut self, index: usize, interval: Duration, now: Instant) {
        let Some(name) = self.names.get_mut(&index) else {
            return;
        };
        if name.interval == interval {
            return;
        }
        name.interval = interval;
        name.retry = Backoff::new(RETRY.min(interval), REFRESH.min(interval));
        if let Phase::Resting { until } = &mut name.phase {
            *until = (*until).min(now + interval);
        }
    }

    /// Returns when [`Lookups::advance`] next has something to do.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        let event = |name: &Name| match name.phase {
            Phase::Running { deadline } => Some(deadline),
            Phase::Resting { until } => Some(until),
            Phase::Due | Phase::Late => None,
        };
        self.names.values().filter_map(event).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(lookups: &mut Lookups, now: Instant) -> Vec<usize> {
        std::iter::from_fn(|| lookups.begin(now)).collect()
    }

    /// Creates a schedule of `names` names, numbered from 1.
    fn lookups(names: usize, places: usize) -> Lookups {
        let mut lookups = Lookups::new(places);
        for _ in 0..names {
            lookups.add();
        }
        lookups
    }

    const LATE: Duration = Lookups::DEADLINE;

    #[test]
    fn queued_time_does_not_count_and_the_order_is_kept() {
        let start = Instant::now();
        let mut lookups = lookups(6, 4);
        assert_eq!(begun(&mut lookups, start), [1, 2, 3]);
        // No look-up returns in time. The others have waited just as long, and are not late.
        let now = start + LATE;
        assert_eq!(lookups.advance(now), [1, 2, 3]);
        assert_eq!(lookups.advance(now), [0; 0], "reported once");
        lookups.finished(2, now, false);
        // 2 rests before its retry, and is then due behind the names that have waited.
        let now = now + RETRY;
        assert_eq!(lookups.advance(now), [0; 0]);
        assert_eq!(begun(&mut lookups, now), [4]);
        lookups.finished(4, now, true);
        assert_eq!(begun(&mut lookups, now), [5]);
        assert_eq!(lookups.advance(now + LATE), [5]);
    }

    #[test]
    fn hanging_names_hold_a_quarter_of_the_places() {
        let mut now = Instant::now();
        // Eight names that hang, and a healthy one behind them.
        let mut lookups = lookups(9, 4);
        let hang = |index: &usize| *index != 9;
        let mut round = |now: Instant| {
            lookups.advance(now);
            let some = begun(&mut lookups, now);
            if some.contains(&9) {
                lookups.finished(9, now, true);
            }
            // The names that hang do return, but too late.
            let late = now + LATE;
            lookups.advance(late);
            let hanging: Vec<_> = some.iter().copied().filter(hang).collect();
            for index in &hanging {
                lookups.finished(*index, late, false);
            }
            (hanging.len(), some.contains(&9))
        };
        // Until each has hung once.
        for _ in 0..8 {
            round(now);
            now += LATE;
        }
        for n in 0..100 {
            now += REFRESH;
            assert_eq!(
                round(now),
                (1, true),
                "round {n}: one hanging name and the healthy one"
            );
            now += LATE;
        }
    }

    #[test]
    fn wanted_name_is_looked_up_immediately_while_others_hang() {
        let start = Instant::now();
        let mut lookups = lookups(9, 4);
        assert_eq!(
            begun(&mut lookups, start),
            [1, 2, 3],
            "the last place is reserved"
        );
        assert!(lookups.want(9));
        assert!(!lookups.want(9), "already recorded");
        assert_eq!(begun(&mut lookups, start), [9]);
        lookups.finished(9, start, true);
        assert_eq!(begun(&mut lookups, start), [0; 0]);
    }

    #[test]
    fn name_that_answers_in_time_is_no_longer_slow() {
        let mut now = Instant::now();
        let mut lookups = lookups(2, 2);
        assert_eq!(begun(&mut lookups, now), [1]);
        now += LATE;
        lookups.advance(now);
        lookups.finished(1, now, true);
        assert_eq!(
            lookups.next_event(),
            Some(now + REFRESH),
            "a late answer is still good"
        );
        assert_eq!(begun(&mut lookups, now), [2]);
        now += LATE;
        lookups.advance(now);
        now += REFRESH;
        lookups.advance(now);
        assert_eq!(
            begun(&mut lookups, now),
            [0; 0],
            "one slow name fills the share of slow names"
        );
        lookups.finished(2, now, false);
        assert_eq!(begun(&mut lookups, now), [1]);
        lookups.finished(1, now, true);
        now += REFRESH;
        lookups.advance(now);
        assert_eq!(begun(&mut lookups, now), [2, 1], "2 is slow, 1 is not");
    }

    #[test]
    fn single_name_is_looked_up_repeatedly() {
        let mut now = Instant::now();
        let mut lookups = lookups(1, 1);
        let mut pauses = Vec::new();
        for is_good in [false, false, true, false] {
            assert_eq!(begun(&mut lookups, now), [1]);
            lookups.finished(1, now, is_good);
            let next = lookups.next_event().expect("the name rests");
            pauses.push(next.duration_since(now).as_secs());
            now = next;
            lookups.advance(now);
        }
        assert_eq!(pauses, [1, 2, 30, 1]);
    }

    #[test]
    fn interval_of_a_name_counts_from_now_on() {
        let now = Instant::now();
        let mut lookups = lookups(2, 4);
        assert_eq!(begun(&mut lookups, now), [1, 2]);
        lookups.finished(1, now, true);
        lookups.set_interval(2, Duration::from_secs(60), now);
        lookups.finished(2, now, true);
        lookups.set_interval(1, Duration::from_millis(200), now);
        let soon = now + Duration::from_millis(200);
        assert_eq!(lookups.next_event(), Some(soon), "the rest is shortened");
        lookups.advance(soon);
        assert_eq!(begun(&mut lookups, soon), [1]);
        lookups.finished(1, soon, false);
        let retry = soon + Duration::from_millis(200);
        assert_eq!(lookups.next_event(), Some(retry), "no longer than that");
        lookups.advance(retry);
        assert_eq!(begun(&mut lookups, retry), [1]);
        lookups.finished(1, retry, true);
        lookups.set_interval(1, Duration::from_secs(3600), retry);
        let then = retry + Duration::from_millis(200);
        assert_eq!(lookups.next_event(), Some(then), "never lengthened");
        lookups.advance(then);
        assert_eq!(begun(&mut lookups, then), [1]);
        lookups.finished(1, then, true);
        let other = now + Duration::from_secs(60);
        assert_eq!(lookups.next_event(), Some(other));
    }

    #[test]
    fn name_is_removed_only_while_it_is_not_being_looked_up() {
        let now = Instant::now();
        let mut lookups = lookups(3, 1);
        assert_eq!(begun(&mut lookups, now), [1]);
        assert!(lookups.remove(2));
        assert!(!lookups.remove(1), "its look-up is still running");
        assert_eq!(begun(&mut lookups, now), [0; 0]);
        lookups.finished(1, now, true);
        assert!(lookups.remove(1));
        assert_eq!(begun(&mut lookups, now), [3]);
        assert_eq!(lookups.add(), 4, "numbers are never reused");
    }
}
