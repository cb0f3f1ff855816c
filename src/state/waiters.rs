//! Tasks that wait for the same thing: one waker each, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;

/// Those who wait. Each has a place by its [`Waiting`], and leaves with it.
#[derive(Debug, Default)]
pub struct Waiters {
    wakers: RefCell<BTreeMap<u64, Waker>>,
    last_ticket: Cell<u64>,
}

impl Waiters {
    /// True if nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wakers.borrow().len()
    }

    /// For a task that is about to wait.
    #[must_use]
    pub fn waiting(&self) -> Waiting<'_> {
        Waiting {
            waiters: self,
            ticket: None,
        }
    }

    /// Wakes all of them, first come first. They keep their places until they leave.
    pub fn wake_all(&self) {
        // Outside the borrow: a waker may do anything.
        let wakers: Vec<Waker> = self.wakers.borrow().values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes the one who has waited the longest.
    pub fn wake_first(&self) {
        let first = self.wakers.borrow().values().next().cloned();
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// One who waits. Dropping it gives the place up.
#[derive(Debug)]
pub struct Waiting<'a> {
    waiters: &'a Waiters,
    ticket: Option<u64>,
}

impl Waiting<'_> {
    /// Has `waker` woken: takes a place at the end, or keeps the one it has.
    pub fn wait(&mut self, waker: &Waker) {
        let ticket = self.ticket.unwrap_or_else(|| {
            let ticket = self.waiters.last_ticket.get() + 1;
            self.waiters.last_ticket.set(ticket);
            ticket
        });
        self.ticket = Some(ticket);
        let mut wakers = self.waiters.wakers.borrow_mut();
        if wakers.get(&ticket).is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        let old = wakers.insert(ticket, waker.clone());
        // Outside the borrow: a waker's drop may drop a task, and with it another place.
        drop(wakers);
        drop(old);
    }

    /// True if it waits, and nobody has waited longer.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let wakers = self.waiters.wakers.borrow();
        self.ticket.is_some() && self.ticket.as_ref() == wakers.keys().next()
    }

    /// Gives the place up.
    pub fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let waker = self.waiters.wakers.borrow_mut().remove(&ticket);
            drop(waker);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn polling_again_adds_no_waker_and_replaces_the_old_one() {
        let waiters = Waiters::default();
        let mut waiting = waiters.waiting();
        let (old, new) = (Arc::<Count>::default(), Arc::<Count>::default());
        for _ in 0..100 {
            waiting.wait(&old.clone().into());
        }
        waiting.wait(&new.clone().into());
        assert_eq!(waiters.len(), 1);
        waiters.wake_all();
        assert_eq!((old.woken(), new.woken()), (0, 1));
        assert_eq!(Arc::strong_count(&old), 1, "the old waker is let go");
    }

    #[test]
    fn the_first_is_woken_until_it_leaves() {
        let waiters = Waiters::default();
        let counts = [0; 3].map(|_| Arc::<Count>::default());
        let mut places: Vec<_> = counts.iter().map(|_| waiters.waiting()).collect();
        for (place, count) in places.iter_mut().zip(&counts) {
            assert!(!place.is_first());
            place.wait(&count.clone().into());
        }
        let woken = || counts.each_ref().map(|count| count.woken());
        waiters.wake_first();
        // Being woken, or waiting anew, does not change one's place.
        places[0].wait(&counts[0].clone().into());
        waiters.wake_first();
        assert_eq!(woken(), [2, 0, 0]);
        assert!(places[0].is_first() && !places[1].is_first());
        drop(places.remove(0));
        waiters.wake_first();
        assert_eq!(woken(), [2, 1, 0]);
        waiters.wake_all();
        assert_eq!(woken(), [2, 2, 1]);
        drop(places);
        assert!(waiters.is_empty());
    }
}
