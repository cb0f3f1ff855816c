//! How long to wait after consecutive failures: a pause that doubles up to a limit.

use std::time::Duration;

/// The pauses between failing attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The most recent pause, if the last attempt failed.
    last: Option<Duration>,
}

impl Backoff {
    /// Creates a backoff whose pauses start at `first` and double up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            last: None,
        }
    }

    /// Records a failure and returns the pause to make after it.
    pub fn pause(&mut self) -> Duration {
        let pause = self.last.map_or(self.first, |last| last * 2);
        *self.last.insert(pause.min(self.longest))
    }

    /// Returns `true` if nothing has failed since the last success.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.last.is_none()
    }

    /// Records a success: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_success_resets_them() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        assert!(backoff.is_fresh());
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 50, 50]);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert_eq!(backoff.pause().as_millis(), 10);
    }
}
