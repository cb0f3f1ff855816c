//! Tasks that wait for the same thing: one waker each, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Those who wait. Each has a place by its [`Waiting`], and leaves with it.
#[derive(Debug, Default)]
pub struct Waiters {
    wakers: RefCell<BTreeMap<u64, Waiter>>,
    last_ticket: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    /// It has been told by [`Waiters::wake_one`], and has not looked yet.
    is_told: bool,
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
        let wakers = self.wakers.borrow();
        let wakers: Vec<Waker> = wakers.values().map(|it| it.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes the one who has waited the longest of those that have not been told yet. One who has no use for it, or leaves before it
    /// has looked, passes it on to those who came later.
    pub fn wake_one(&self) {
        self.tell_one(Bound::Unbounded);
    }

    fn tell_one(&self, after: Bound<u64>) {
        let mut wakers = self.wakers.borrow_mut();
        let mut later = wakers.range_mut((after, Bound::Unbounded));
        let waker = later.find(|(_, it)| !it.is_told).map(|(_, it)| {
            it.is_told = true;
            it.waker.clone()
        });
        drop(wakers);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes the one who has waited the longest.
    pub fn wake_first(&self) {
        let wakers = self.wakers.borrow();
        let first = wakers.values().next().map(|it| it.waker.clone());
        drop(wakers);
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
        let was_told = match wakers.get_mut(&ticket) {
            Some(it) if it.waker.will_wake(waker) => {
                let was_told = std::mem::take(&mut it.is_told);
                drop(wakers);
                was_told
            }
            _ => {
                let waiter = Waiter {
                    waker: waker.clone(),
                    is_told: false,
                };
                let old = wakers.insert(ticket, waiter);
                // Outside the borrow: a waker's drop may drop a task, and with it another place.
                drop(wakers);
                old.is_some_and(|old| old.is_told)
            }
        };
        if was_told {
            self.waiters.tell_one(Bound::Excluded(ticket));
        }
    }

    /// True if it waits, and nobody has waited longer.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let wakers = self.waiters.wakers.borrow();
        self.ticket.is_some() && self.ticket.as_ref() == wakers.keys().next()
    }

    /// Gives the place up. What it was told and has not looked at goes to the next.
    pub fn leave(&mut self) {
        if let Some(ticket) = self.ticket
            && self.take()
        {
            self.waiters.tell_one(Bound::Excluded(ticket));
        }
    }

    /// Gives the place up, having got what it has waited for.
    pub fn is_served(&mut self) {
        self.take();
    }

    /// Whether it was told and has not looked.
    fn take(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else {
            return false;
        };
        let waiter = self.waiters.wakers.borrow_mut().remove(&ticket);
        waiter.is_some_and(|it| it.is_told)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Waits until a condition holds. It is looked at when it is polled, so whoever makes it hold wakes those who wait.
#[derive(Debug)]
pub struct Until<'a, F> {
    waiting: Waiting<'a>,
    holds: F,
}

impl<'a, F: Fn() -> bool> Until<'a, F> {
    pub(super) fn new(waiters: &'a Waiters, holds: F) -> Self {
        let waiting = waiters.waiting();
        Self { waiting, holds }
    }
}

impl<F: Fn() -> bool + Unpin> Future for Until<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if (self.holds)() {
            self.waiting.is_served();
            return Poll::Ready(());
        }
        self.waiting.wait(cx.waker());
        Poll::Pending
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

    #[test]
    fn one_is_told_and_passes_on_what_it_has_no_use_for() {
        let waiters = Waiters::default();
        let counts = [0; 3].map(|_| Arc::<Count>::default());
        let mut places: Vec<_> = counts.iter().map(|_| waiters.waiting()).collect();
        for (place, count) in places.iter_mut().zip(&counts) {
            place.wait(&count.clone().into());
        }
        let woken = || counts.each_ref().map(|count| count.woken());
        waiters.wake_one();
        assert_eq!(woken(), [1, 0, 0]);
        // A second event before the first one has looked is for the next.
        waiters.wake_one();
        assert_eq!(woken(), [1, 1, 0]);
        // The first goes on waiting, with another waker or the same: the last is told.
        places[0].wait(&counts[0].clone().into());
        assert_eq!(woken(), [1, 1, 1]);
        // The second is served: nobody else is told.
        places[1].is_served();
        assert_eq!(woken(), [1, 1, 1]);
        // The last leaves without having looked, and nobody is behind it.
        places[2].leave();
        assert_eq!(woken(), [1, 1, 1]);
        waiters.wake_one();
        places[1].wait(&counts[1].clone().into());
        places[0].leave();
        assert_eq!(woken(), [2, 2, 1], "told and gone: the next is told");
    }

    #[test]
    fn whoever_waits_for_a_condition_is_done_when_it_holds() {
        let waiters = Waiters::default();
        let open = Cell::new(2);
        let count = Arc::<Count>::default();
        let waker = count.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut until = Until::new(&waiters, || open.get() == 0);
        for left in [1, 0] {
            assert!(Pin::new(&mut until).poll(&mut cx).is_pending());
            open.set(left);
            waiters.wake_one();
        }
        assert_eq!(count.woken(), 2);
        assert!(Pin::new(&mut until).poll(&mut cx).is_ready());
        assert!(waiters.is_empty());
    }
}
