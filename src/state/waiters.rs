//! Tasks that wait for the same event: one waker each, in order of arrival.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The waiting tasks. Each holds a place through its [`Waiting`], and gives it up with it.
#[derive(Debug, Default)]
pub struct Waiters {
    wakers: RefCell<BTreeMap<u64, Waiter>>,
    last_ticket: Cell<u64>,
}

#[derive(Debug)]
struct Waiter {
    waker: Waker,
    /// [`Waiters::wake_one`] has notified this task, and it has not been polled since.
    is_told: bool,
}

impl Waiters {
    /// Returns `true` if no task waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wakers.borrow().is_empty()
    }

    /// Returns the number of waiting tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wakers.borrow().len()
    }

    /// Creates a handle for a task that is about to wait.
    #[must_use]
    pub fn waiting(&self) -> Waiting<'_> {
        Waiting {
            waiters: self,
            ticket: None,
        }
    }

    /// Wakes all tasks in order of arrival. They keep their places until they leave.
    pub fn wake_all(&self) {
        // Outside the borrow: a waker may run any code.
        let wakers = self.wakers.borrow();
        let wakers: Vec<Waker> = wakers.values().map(|it| it.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes the longest-waiting task that has not been notified yet.
    ///
    /// A notified task that goes on waiting, or that leaves before it is polled, passes the
    /// notification on to a task behind it.
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

    /// Wakes the longest-waiting task.
    pub fn wake_first(&self) {
        let wakers = self.wakers.borrow();
        let first = wakers.values().next().map(|it| it.waker.clone());
        drop(wakers);
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// One waiting task. Dropping it gives up the place.
#[derive(Debug)]
pub struct Waiting<'a> {
    waiters: &'a Waiters,
    ticket: Option<u64>,
}

impl Waiting<'_> {
    /// Registers `waker`: takes a place at the end, or keeps the current one.
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
                // Outside the borrow: dropping a waker may drop a task, and with it another place.
                drop(wakers);
                old.is_some_and(|old| old.is_told)
            }
        };
        if was_told {
            self.waiters.tell_one(Bound::Excluded(ticket));
        }
    }

    /// Returns `true` if this task waits and no task has waited longer.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let wakers = self.waiters.wakers.borrow();
        self.ticket.is_some() && self.ticket.as_ref() == wakers.keys().next()
    }

    /// Returns `true` if it is this task's turn: it has waited the longest, or it was notified.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let Some(ticket) = &self.ticket else {
            return false;
        };
        let wakers = self.waiters.wakers.borrow();
        let is_told = wakers.get(ticket).is_some_and(|it| it.is_told);
        is_told || wakers.keys().next() == Some(ticket)
    }

    /// Gives up the place. A pending notification goes to the next task.
    pub fn leave(&mut self) {
        if let Some(ticket) = self.ticket
            && self.take()
        {
            self.waiters.tell_one(Bound::Excluded(ticket));
        }
    }

    /// Gives up the place after the wait succeeded.
    pub fn is_served(&mut self) {
        self.take();
    }

    /// Removes the place, and returns whether it had a pending notification.
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

/// Waits until a condition holds. The condition is checked only when polled, so code that makes it
/// true must wake the waiters.
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
    fn polling_again_replaces_the_waker() {
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
        assert_eq!(Arc::strong_count(&old), 1, "the old waker is dropped");
    }

    #[test]
    fn wake_first_wakes_the_first_until_it_leaves() {
        let waiters = Waiters::default();
        let counts = [0; 3].map(|_| Arc::<Count>::default());
        let mut places: Vec<_> = counts.iter().map(|_| waiters.waiting()).collect();
        for (place, count) in places.iter_mut().zip(&counts) {
            assert!(!place.is_first());
            place.wait(&count.clone().into());
        }
        let woken = || counts.each_ref().map(|count| count.woken());
        waiters.wake_first();
        // Neither being woken nor waiting again changes a task's place.
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
    fn wake_one_notifies_one_task_which_passes_on_what_it_cannot_use() {
        let waiters = Waiters::default();
        let counts = [0; 3].map(|_| Arc::<Count>::default());
        let mut places: Vec<_> = counts.iter().map(|_| waiters.waiting()).collect();
        for (place, count) in places.iter_mut().zip(&counts) {
            place.wait(&count.clone().into());
        }
        let woken = || counts.each_ref().map(|count| count.woken());
        waiters.wake_one();
        assert_eq!(woken(), [1, 0, 0]);
        // A second event before the first task is polled is for the next task.
        waiters.wake_one();
        assert_eq!(woken(), [1, 1, 0]);
        // The first goes on waiting, with another waker or the same: the last is notified.
        places[0].wait(&counts[0].clone().into());
        assert_eq!(woken(), [1, 1, 1]);
        // The second is served: no other task is notified.
        places[1].is_served();
        assert_eq!(woken(), [1, 1, 1]);
        // The last leaves without being polled, and no task is behind it.
        places[2].leave();
        assert_eq!(woken(), [1, 1, 1]);
        waiters.wake_one();
        places[1].wait(&counts[1].clone().into());
        places[0].leave();
        assert_eq!(woken(), [2, 2, 1], "the next is notified instead");
    }

    #[test]
    fn until_completes_when_its_condition_holds() {
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
