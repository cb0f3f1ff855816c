//! Whether a server is up, by what its connections and its checks have shown. Pure: the time is an
//! argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::backoff::Backoff;

/// How long a server that was taken out is left alone at first. The time doubles with each failed
/// trial.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest time until the next trial.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What takes a server down and brings it up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthRules {
    /// How many failed connections in a row, within `fail_window`, take it down; 0 for never.
    pub max_fails: u32,
    /// The time within which failed connections count.
    pub fail_window: Duration,
    /// How many successful checks in a row bring it up.
    pub rise: u32,
    /// How many failed checks in a row take it down.
    pub fall: u32,
}

/// A server went up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether it is up now.
    pub is_up: bool,
    /// The reason, for the log.
    pub why: String,
}

/// One server's health. A server that nothing is known of is up.
#[derive(Debug)]
pub(super) struct Health {
    /// When connections failed since one last succeeded, at most `max_fails` of them.
    fails: VecDeque<Instant>,
    /// Until when it is left alone, if failed connections have taken it out.
    out_until: Option<Instant>,
    pauses: Backoff,
    /// Whether the checks have not taken it down.
    checks_pass: bool,
    /// The checks in a row that contradict `checks_pass`.
    against: u32,
    /// When it last came up.
    since: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            fails: VecDeque::new(),
            out_until: None,
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            checks_pass: true,
            against: 0,
            since: None,
        }
    }
}

impl Health {
    pub(super) fn is_up(&self) -> bool {
        self.out_until.is_none() && self.checks_pass
    }

    /// Returns whether it is time for a connection to try a server that connections have taken out.
    pub(super) fn is_trial_due(&self, now: Instant) -> bool {
        self.checks_pass && self.out_until.is_some_and(|until| until <= now)
    }

    /// Returns when a connection may try the server again, if connections have taken it out.
    pub(super) fn next_trial(&self) -> Option<Instant> {
        self.out_until
    }

    /// Returns the server's present share in 256ths while it starts slowly.
    pub(super) fn share(&self, slow_start: Duration, now: Instant) -> u32 {
        let Some(since) = self.since.filter(|_| !slow_start.is_zero()) else {
            return 256;
        };
        let age = now.saturating_duration_since(since);
        let share = age.as_nanos() * 256 / slow_start.as_nanos().max(1);
        u32::try_from(share).unwrap_or(256).clamp(1, 256)
    }

    /// Lets the share grow from zero again.
    pub(super) fn starts(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Records that a connection has reached the server.
    pub(super) fn connected(&mut self, now: Instant) -> Option<Change> {
        self.fails.clear();
        self.out_until?;
        self.out_until = None;
        self.pauses.reset();
        self.came_up(now, "a connection has reached it".to_owned())
    }

    /// Records that a connection could not reach the server, and why.
    pub(super) fn failed(&mut self, why: &str, rules: HealthRules, now: Instant) -> Option<Change> {
        if self.out_until.is_some() {
            // Attempts that began before it was taken out say nothing new.
            if self.is_trial_due(now) {
                self.out_until = Some(now + self.pauses.pause());
            }
            return None;
        }
        if rules.max_fails == 0 {
            return None;
        }
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > rules.fail_window;
        while self.fails.front().is_some_and(is_old) {
            self.fails.pop_front();
        }
        self.fails.push_back(now);
        let fails = self.fails.len();
        if fails < rules.max_fails as usize {
            return None;
        }
        self.fails.clear();
        self.pauses.reset();
        self.out_until = Some(now + self.pauses.pause());
        let times = if fails == 1 {
            "connection"
        } else {
            "connections in a row"
        };
        // If the checks have taken it down already, this is no change.
        self.checks_pass.then(|| Change {
            is_up: false,
            why: format!("{fails} {times} failed: {why}"),
        })
    }

    /// Records the outcome of a check.
    pub(super) fn checked(
        &mut self,
        outcome: Result<(), &str>,
        rules: HealthRules,
        now: Instant,
    ) -> Option<Change> {
        let is_out = self.out_until.is_some();
        // A good check of a server that connections have taken out counts towards its return.
        let agrees = outcome.is_ok() == self.checks_pass && !(outcome.is_ok() && is_out);
        if agrees {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let n = self.against;
        let needed = if outcome.is_ok() {
            rules.rise
        } else {
            rules.fall
        };
        if n < needed {
            return None;
        }
        self.against = 0;
        let checks = if n == 1 { "check" } else { "checks in a row" };
        match outcome {
            Ok(()) => {
                self.checks_pass = true;
                self.out_until = None;
                self.fails.clear();
                self.pauses.reset();
                self.came_up(now, format!("{n} {checks} succeeded"))
            }
            Err(why) => {
                self.checks_pass = false;
                (!is_out).then(|| Change {
                    is_up: false,
                    why: format!("{n} {checks} failed: {why}"),
                })
            }
        }
    }

    /// Records that the server is no longer checked.
    pub(super) fn unchecked(&mut self, now: Instant) -> Option<Change> {
        self.against = 0;
        if std::mem::replace(&mut self.checks_pass, true) || self.out_until.is_some() {
            return None;
        }
        self.came_up(now, "it is no longer checked".to_owned())
    }

    fn came_up(&mut self, now: Instant, why: String) -> Option<Change> {
        if !self.is_up() {
            return None;
        }
        self.starts(now);
        Some(Change { is_up: true, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: HealthRules = HealthRules {
        max_fails: 3,
        fail_window: Duration::from_secs(10),
        rise: 2,
        fall: 3,
    };

    struct Clocked(Health, Instant);

    impl Clocked {
        fn new() -> Self {
            Self(Health::default(), Instant::now())
        }

        fn at(&self, seconds: f64) -> Instant {
            self.1 + Duration::from_secs_f64(seconds)
        }

        fn fails(&mut self, seconds: f64) -> Option<bool> {
            let now = self.at(seconds);
            self.0.failed("refused", RULES, now).map(|it| it.is_up)
        }

        fn connects(&mut self, seconds: f64) -> Option<bool> {
            let now = self.at(seconds);
            self.0.connected(now).map(|it| it.is_up)
        }

        fn checked(&mut self, is_good: bool, seconds: f64) -> Option<bool> {
            let outcome = if is_good { Ok(()) } else { Err("refused") };
            let now = self.at(seconds);
            self.0.checked(outcome, RULES, now).map(|it| it.is_up)
        }
    }

    #[test]
    fn failures_in_a_row_within_the_window_take_it_out() {
        let mut it = Clocked::new();
        assert_eq!([it.fails(0.0), it.fails(1.0), it.fails(10.5)], [None; 3]);
        assert_eq!(it.fails(10.6), Some(false), "three within ten seconds");
        let mut it = Clocked::new();
        assert_eq!([it.fails(0.0), it.fails(1.0), it.connects(2.0)], [None; 3]);
        assert_eq!(
            [it.fails(3.0), it.fails(4.0)],
            [None; 2],
            "a success clears"
        );
        let never = HealthRules {
            max_fails: 0,
            ..RULES
        };
        let now = Instant::now();
        let mut health = Health::default();
        assert!((0..99).all(|_| health.failed("refused", never, now).is_none()));
    }

    #[test]
    fn trials_come_at_growing_distances_until_one_succeeds() {
        let mut it = Clocked::new();
        for at in [0.0, 0.0, 0.0] {
            it.fails(at);
        }
        let mut due = 0.0;
        for pause in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            assert!(!it.0.is_trial_due(it.at(due + pause - 0.1)), "{pause}");
            due += pause;
            assert!(it.0.is_trial_due(it.at(due)), "{pause}");
            assert_eq!(it.fails(due), None, "it is down already");
        }
        assert!(!it.0.is_up());
        assert_eq!(it.connects(due + 60.0), Some(true));
        assert!(it.0.is_up());
        for _ in 0..3 {
            it.fails(due + 61.0);
        }
        assert!(
            it.0.is_trial_due(it.at(due + 62.0)),
            "the pauses start over"
        );
    }

    #[test]
    fn late_failures_do_not_prolong_the_pause() {
        let mut it = Clocked::new();
        for at in [0.0, 0.0, 0.0, 0.5, 0.9] {
            it.fails(at);
        }
        assert!(it.0.is_trial_due(it.at(1.0)));
    }

    #[test]
    fn checks_take_it_down_and_bring_it_up() {
        let mut it = Clocked::new();
        let all = [
            false, false, true, false, false, false, false, true, true, true,
        ];
        let changes = all.map(|is_good| it.checked(is_good, 0.0));
        let mut expected = [None; 10];
        (expected[5], expected[8]) = (Some(false), Some(true));
        assert_eq!(changes, expected);
    }

    #[test]
    fn checks_and_connections_take_it_down_once() {
        let mut it = Clocked::new();
        for _ in 0..3 {
            it.checked(false, 0.0);
        }
        assert_eq!([0.0; 4].map(|at| it.fails(at)), [None; 4]);
        assert!(!it.0.is_trial_due(it.at(99.0)), "the checks decide");
        assert_eq!(
            [it.checked(true, 1.0), it.checked(true, 2.0)],
            [None, Some(true)]
        );
        assert!(it.0.is_up(), "good checks end what connections began");
        for _ in 0..3 {
            it.fails(3.0);
        }
        assert_eq!([3.0; 3].map(|at| it.checked(false, at)), [None; 3]);
        assert_eq!(it.connects(4.0), None, "the checks still fail");
        assert_eq!(it.0.unchecked(it.at(5.0)).map(|it| it.is_up), Some(true));
    }

    #[test]
    fn share_grows_over_the_slow_start() {
        let mut it = Clocked::new();
        let slow = Duration::from_secs(10);
        assert_eq!(it.0.share(slow, it.at(0.0)), 256, "it never was down");
        for _ in 0..3 {
            it.fails(0.0);
        }
        it.connects(1.0);
        let shares = [1.0, 3.5, 6.0, 11.0, 99.0].map(|at| it.0.share(slow, it.at(at)));
        assert_eq!(shares, [1, 64, 128, 256, 256]);
        assert_eq!(it.0.share(Duration::ZERO, it.at(1.0)), 256);
    }
}
