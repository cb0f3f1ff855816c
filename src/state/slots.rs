//! A number of slots for work that must not happen all at once, given in order of arrival.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::waiters::Waiters;

/// The slots. Each is held through a [`Slot`].
#[derive(Debug)]
pub struct Slots {
    free: Cell<usize>,
    waiting: Waiters,
}

impl Slots {
    /// Creates `n` free slots.
    #[must_use]
    pub fn new(n: usize) -> Rc<Self> {
        Rc::new(Self {
            free: Cell::new(n),
            waiting: Waiters::default(),
        })
    }

    /// Waits for a slot. Nobody who comes later gets one sooner.
    pub async fn take(self: Rc<Self>) -> Slot {
        let mut place = self.waiting.waiting();
        let mut is_new = true;
        poll_fn(|cx| {
            let is_my_turn = !std::mem::take(&mut is_new) || self.waiting.is_empty();
            if self.free.get() > 0 && is_my_turn {
                self.free.set(self.free.get() - 1);
                place.is_served();
                return Poll::Ready(());
            }
            place.wait(cx.waker());
            Poll::Pending
        })
        .await;
        drop(place);
        Slot(self)
    }
}

/// One slot. Dropping it frees it for the longest-waiting task.
#[derive(Debug)]
pub struct Slot(Rc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.waiting.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use smol::LocalExecutor;
    use smol::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn slots_are_given_in_order_and_never_more_than_there_are() {
        let executor = LocalExecutor::new();
        let slots = Slots::new(2);
        let order = Rc::new(RefCell::new(Vec::new()));
        let held = Rc::new(RefCell::new(VecDeque::new()));
        let mut tasks: Vec<_> = (0..6)
            .map(|n| {
                let (slots, order, held) = (slots.clone(), order.clone(), held.clone());
                Some(executor.spawn(async move {
                    let slot = slots.take().await;
                    order.borrow_mut().push(n);
                    held.borrow_mut().push_back(slot);
                }))
            })
            .collect();
        let run = || while executor.try_tick() {};
        run();
        assert_eq!(*order.borrow(), [0, 1]);
        // One that leaves keeps nobody waiting, even if it has been notified.
        held.borrow_mut().pop_front();
        tasks[2] = None;
        run();
        assert_eq!(*order.borrow(), [0, 1, 3]);
        // A newcomer goes to the end, even if it asks before the notified task runs.
        held.borrow_mut().pop_front();
        let newcomer = slots.clone().take();
        assert!(block_on(poll_once(newcomer)).is_none());
        let (late, ordered) = (slots.clone(), order.clone());
        let late = executor.spawn(async move {
            let _slot = late.take().await;
            ordered.borrow_mut().push(9);
        });
        run();
        held.borrow_mut().clear();
        block_on(executor.run(late));
        assert_eq!(*order.borrow(), [0, 1, 3, 4, 5, 9]);
    }
}
