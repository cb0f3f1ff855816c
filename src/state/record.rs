//! What a server's status shows besides its numbers: why and since when it is up or down, and its
//! last check.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The finished check of a server that came last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheck {
    /// Why it failed, or `None` if it succeeded.
    pub failure: Option<Arc<str>>,
    /// How long it took.
    pub took: Duration,
    /// When it ended.
    pub ended: Instant,
}

/// What is remembered of one server. The texts are shared with copies of it.
#[derive(Debug, Default)]
pub(super) struct Record {
    since: Cell<Option<Instant>>,
    why_down: RefCell<Option<Arc<str>>>,
    last_check: RefCell<Option<LastCheck>>,
}

impl Record {
    /// Records that the state has changed.
    pub(super) fn changed(&self, now: Instant) {
        self.since.set(Some(now));
    }

    /// Records what connections and checks have found, and the reason.
    pub(super) fn found(&self, is_up: bool, why: &str) {
        self.why_down.replace((!is_up).then(|| why.into()));
    }

    /// Records a check.
    pub(super) fn checked(&self, outcome: Result<(), &str>, took: Duration, ended: Instant) {
        let mut last = self.last_check.borrow_mut();
        // A server that fails for the same reason again and again has one copy of it.
        let same = last.take().and_then(|it| it.failure);
        let failure = outcome.err().map(|why| match same {
            Some(same) if *same == *why => same,
            _ => why.into(),
        });
        *last = Some(LastCheck {
            failure,
            took,
            ended,
        });
    }

    /// Forgets the last check.
    pub(super) fn unchecked(&self) {
        self.last_check.take();
    }

    /// Returns when the state last changed, or `None` if it never has.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since.get()
    }

    /// Returns why connections and checks find the server down.
    pub(super) fn why_down(&self) -> Option<Arc<str>> {
        self.why_down.borrow().clone()
    }

    /// Returns the last check.
    pub(super) fn last_check(&self) -> Option<LastCheck> {
        self.last_check.borrow().clone()
    }
}
