//! Does one piece of work at a time and gives its result to everyone who asked before it began.

use std::cell::RefCell;

use event_listener::Event;
use smol::channel::{Sender, bounded};

/// The queue of those who asked a question `Q` and wait for an answer `A`.
#[derive(Debug)]
pub(super) struct Desk<Q, A> {
    waiting: RefCell<Vec<Waiting<Q, A>>>,
    came: Event,
}

/// One who waits. Dropping it without an answer means that there will be none.
#[derive(Debug)]
pub(super) struct Waiting<Q, A> {
    /// The question.
    pub question: Q,
    answer: Sender<A>,
}

impl<Q, A> Waiting<Q, A> {
    /// Sends the answer.
    pub(super) fn tell(self, answer: A) {
        // The receiver may be gone.
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
    /// Asks, and waits for the answer. Returns `None` if there will be none because of an internal
    /// error.
    pub(super) async fn ask(&self, question: Q) -> Option<A> {
        let (answer, told) = bounded(1);
        self.waiting.borrow_mut().push(Waiting { question, answer });
        self.came.notify(1);
        told.recv().await.ok()
    }

    /// Waits until someone asks.
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

    /// Takes everyone who waits now. Those who ask later get the next piece of work.
    pub(super) fn take(&self) -> Vec<Waiting<Q, A>> {
        self.waiting.take()
    }
}
