//! Limits how many lines with the same cause and object may be written. No I/O: the time is an
//! argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The span over which lines with the same cause are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// The number of causes that are tracked separately. Beyond that, new causes of one place in the
/// source share one limit.
const CAUSES: usize = 512;

/// What lines that are counted together have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cause {
    /// The place in the source.
    pub(super) place: (&'static str, u32),
    /// What the line is about, as logfmt fields.
    pub(super) object: String,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    suppressed: u64,
    what: String,
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= WINDOW
    }
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The text of the first of them.
    pub(super) what: String,
    /// What they were about.
    pub(super) object: String,
    pub(super) count: u64,
}

/// The windows of all causes.
#[derive(Debug, Default)]
pub(super) struct Floods(HashMap<Cause, Window>);

impl Floods {
    /// Returns how many lines with this cause were left out before, or `None` if this line, `what`,
    /// is left out too.
    pub(super) fn admit(
        &mut self,
        mut cause: Cause,
        limit: u32,
        now: Instant,
        what: impl FnOnce() -> String,
    ) -> Option<u64> {
        if self.0.len() >= CAUSES && !self.0.contains_key(&cause) {
            self.0
                .retain(|_, window| window.suppressed > 0 || !window.is_over(now));
            if self.0.len() >= CAUSES {
                cause.object.clear();
            }
        }
        let window = self.0.entry(cause).or_insert_with(|| Window {
            began: now,
            written: 0,
            suppressed: 0,
            what: String::new(),
        });
        if window.is_over(now) {
            window.began = now;
            window.written = 0;
        }
        if window.written >= limit {
            if window.suppressed == 0 {
                window.what = what();
            }
            window.suppressed += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.suppressed))
    }

    pub(super) fn nothing_is_left_out(&self) -> bool {
        self.0.values().all(|window| window.suppressed == 0)
    }

    /// Takes what was left out and not yet reported: in windows that are over, or in all windows.
    pub(super) fn left_out(&mut self, now: Instant, all: bool) -> Vec<LeftOut> {
        let told = |window: &Window| window.suppressed > 0 && (all || window.is_over(now));
        let windows = self.0.iter_mut().filter(|(_, window)| told(window));
        let left_out = windows.map(|(cause, window)| LeftOut {
            what: std::mem::take(&mut window.what),
            object: cause.object.clone(),
            count: std::mem::take(&mut window.suppressed),
        });
        left_out.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 10;

    fn cause(line: u32, object: &str) -> Cause {
        Cause {
            place: ("a.rs", line),
            object: object.to_owned(),
        }
    }

    fn written(floods: &mut Floods, cause: &Cause, now: Instant) -> usize {
        let admitted = |_: &usize| {
            let admitted = floods.admit(cause.clone(), LIMIT, now, || "x".to_owned());
            admitted.is_some()
        };
        (0..100).filter(admitted).count()
    }

    #[test]
    fn lines_per_cause_are_bounded_and_the_rest_is_reported() {
        let mut floods = Floods::default();
        let now = Instant::now();
        assert_eq!(written(&mut floods, &cause(1, ""), now), 10);
        let mut admit = |line, now| floods.admit(cause(line, ""), LIMIT, now, String::new);
        assert_eq!(admit(2, now), Some(0), "another cause");
        assert_eq!(admit(1, now + WINDOW), Some(90));
        assert_eq!(admit(1, now + WINDOW), Some(0));
    }

    #[test]
    fn noisy_server_does_not_hide_the_lines_of_another() {
        let mut floods = Floods::default();
        let now = Instant::now();
        assert_eq!(written(&mut floods, &cause(1, " server=a"), now), 10);
        assert_eq!(written(&mut floods, &cause(1, " server=b"), now), 10);
        let left_out = floods.left_out(now + WINDOW, false);
        assert_eq!(left_out.len(), 2);
        assert!(left_out.iter().all(|left_out| left_out.count == 90));
        assert!(floods.nothing_is_left_out());
    }

    #[test]
    fn many_objects_take_bounded_memory_and_share_a_limit() {
        let mut floods = Floods::default();
        let now = Instant::now();
        let mut all = 0;
        for n in 0..10 * CAUSES {
            all += written(&mut floods, &cause(1, &format!(" server={n}")), now);
        }
        assert_eq!(all, (CAUSES + 1) * LIMIT as usize);
        assert_eq!(floods.0.len(), CAUSES + 1);
        // Once their windows are over and reported, they make room for others.
        floods.left_out(now + WINDOW, false);
        let other = cause(1, " server=other");
        assert_eq!(written(&mut floods, &other, now + WINDOW), 10);
        assert!(floods.0.len() < 10);
    }
}
