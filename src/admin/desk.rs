//! One piece of work at a time, whose outcome goes to all who have asked for it before it began.

use std::cell::RefCell;

use event_listener::Event;
use smol::channel::{Sender, bounded};

/// Where those wait who have asked a question `Q` for an answer `A`.
#[derive(Debug)]
pub(super) struct Desk<Q, A> {
    waiting: RefCell<Vec<Waiting<Q, A>>>,
    came: Event,
}

/// One who waits. Dropping it without an answer says that there will be none.
#[derive(Debug)]
pub(super) struct Waiting<Q, A> {
    /// What it has asked.
    pub question: Q,
    answer: Sender<A>,
}

impl<Q, A> Waiting<Q, A> {
    /// Answers.
    pub(super) fn tell(self, answer: A) {
        // It may have gone.
        let _ = self.answer.try_send(answer);
    }
}

impl<Q, A> Default for Desk<Q, A> {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            came: Event::new(),
        }
    }
}

impl<Q, A> Desk<Q, A> {
    /// Asks, and waits for the answer; `None` when there is none, because something went wrong.
    pub(super) async fn ask(&self, question: Q) -> Option<A> {
        let (answer, told) = bounded(1);
        self.waiting.borrow_mut().push(Waiting { question, answer });
        self.came.notify(1);
        told.recv().await.ok()
    }

    /// Waits until somebody waits.
    pub(super) async fn wanted(&self) {
        loop {
            let came = self.came.listen();
            if self.has_waiting() {
                return;
            }
            came.await;
        }
    }

    fn has_waiting(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.answer.is_closed());
        !waiting.is_empty()
    }

    /// All who wait now. Who comes later has the next piece of work.
    pub(super) fn take(&self) -> Vec<Waiting<Q, A>> {
        self.waiting.take()
    }
}
