//! The loop's timers: an ordered map from deadlines to wakers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Instant;

/// The armed timers.
///
/// Only short phases and background tasks have one; an idle connection has none.
#[derive(Debug, Default)]
pub(super) struct Timers {
    armed: RefCell<BTreeMap<TimerKey, Waker>>,
    last_id: Cell<u64>,
}

/// Identifies a timer.
///
/// Timers with the same deadline fire in the order in which they were created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey {
    deadline: Instant,
    id: u64,
}

impl Timers {
    pub(super) fn key(&self, deadline: Instant) -> TimerKey {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        TimerKey { deadline, id }
    }

    /// Arms a timer, or replaces its waker.
    pub(super) fn arm(&self, key: TimerKey, waker: &Waker) {
        let old = self.armed.borrow_mut().insert(key, waker.clone());
        // Outside the borrow, because dropping a waker may drop a task and with it a timer.
        drop(old);
    }

    pub(super) fn disarm(&self, key: TimerKey) {
        let old = self.armed.borrow_mut().remove(&key);
        drop(old);
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let armed = self.armed.borrow();
        armed.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Wakes the tasks of all timers that are due.
    pub(super) fn fire(&self, now: Instant) {
        loop {
            let due = {
                let mut armed = self.armed.borrow_mut();
                match armed.first_entry() {
                    Some(first) if first.key().deadline <= now => first.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }
}
