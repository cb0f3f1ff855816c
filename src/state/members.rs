//! The open connections of one entrypoint or server: a set of their identities, whose length is the gauge.

use std::cell::RefCell;
use std::collections::HashSet;

use super::identity::ConnId;
use super::waiters::{Until, Waiters};

/// A set of connections. A connection's [`Guard`](super::Guard) puts it in and takes it out; nothing counts beside it.
#[derive(Debug, Default)]
pub struct Members {
    ids: RefCell<HashSet<ConnId>>,
    fewer: Waiters,
}

impl Members {
    /// How many there are: the gauge.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.borrow().len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in no order.
    #[must_use]
    pub fn ids(&self) -> Vec<ConnId> {
        self.ids.borrow().iter().copied().collect()
    }

    /// Waits until there are fewer than `limit`. Woken by those that leave.
    pub fn below(&self, limit: usize) -> Until<'_, impl Fn() -> bool + Unpin> {
        Until::new(&self.fewer, move || self.len() < limit)
    }

    pub(super) fn insert(&self, id: ConnId) {
        let is_new = self.ids.borrow_mut().insert(id);
        debug_assert!(is_new, "a connection enters once");
    }

    pub(super) fn remove(&self, id: ConnId) {
        let was_there = self.ids.borrow_mut().remove(&id);
        debug_assert!(was_there, "a connection leaves once");
        self.fewer.wake_one();
    }
}
