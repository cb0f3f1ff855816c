//! The only way from the admin thread to the data loop: asks it for a copy of its state, and makes
//! the copy there.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded, unbounded};

use super::limits::ClientLimits;
use super::park::Park;
use crate::state::{AccountNumbers, Entries, History, Shared, Snapshot};

/// The data loop rests this many times as long as a copy took, so the endpoint uses at most a
/// fiftieth of its time.
const REST: u32 = 50;
/// What else a question costs the data loop: a wake-up and one more iteration.
const OVERHEAD: Duration = Duration::from_micros(40);

#[derive(Debug)]
enum Question {
    Snapshot(Sender<Timed<Snapshot>>),
    Entries(Sender<Timed<Entries>>),
    History(Sender<Timed<History>>),
    Accounts(Sender<Timed<Option<AccountNumbers>>>),
    Sign(Sender<Timed<Sign>>),
}

/// An answer, and how long the data loop took to make it.
#[derive(Debug)]
struct Timed<T> {
    answer: T,
    took: Duration,
}

/// The data loop responds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    /// Whether it no longer accepts connections.
    pub is_draining: bool,
}

/// Creates the channel between the two threads.
#[must_use]
pub(super) fn channel() -> (Questions, Answers) {
    let (questions, asked) = unbounded();
    (Questions(questions), Answers(asked))
}

/// The admin thread's end of the channel, before it has arrived there.
#[derive(Debug)]
pub(super) struct Questions(Sender<Question>);

impl Questions {
    /// Ties it to the thread that waits in `park`, with these limits.
    #[must_use]
    pub(super) fn asked_from(self, park: Rc<Park>, limits: &ClientLimits) -> Moments {
        Moments {
            questions: self.0,
            park,
            limits: *limits,
            next: Cell::new(Instant::now()),
        }
    }
}

/// The data loop's end of the channel.
#[derive(Debug)]
pub struct Answers(Receiver<Question>);

impl Answers {
    /// Answers on the data loop's thread until the endpoint ends. It copies and does nothing else.
    pub async fn answer(self, shared: Rc<Shared>) {
        while let Ok(question) = self.0.recv().await {
            match question {
                Question::Snapshot(to) => answer(&to, || shared.snapshot()),
                Question::Entries(to) => answer(&to, || shared.entries(Instant::now())),
                Question::Accounts(to) => answer(&to, || shared.account_numbers(Instant::now())),
                Question::History(to) => answer(&to, || shared.history.borrow().clone()),
                Question::Sign(to) => answer(&to, || Sign {
                    is_draining: shared.is_draining(),
                }),
            }
        }
    }
}

fn answer<T>(to: &Sender<Timed<T>>, copy: impl FnOnce() -> T) {
    // The requester has given up.
    if to.is_closed() {
        return;
    }
    let begun = Instant::now();
    match catch_unwind(AssertUnwindSafe(copy)) {
        // A bug costs this answer, not the proxy.
        Err(_) => log::error!("admin: copying the state panicked; please report this"),
        Ok(answer) => {
            let took = begun.elapsed();
            // Never full: there is only one answer.
            let _ = to.try_send(Timed { answer, took });
        }
    }
}

/// The admin thread's end of the channel.
#[derive(Debug)]
pub(super) struct Moments {
    questions: Sender<Question>,
    park: Rc<Park>,
    limits: ClientLimits,
    /// When the data loop has rested from the last question.
    next: Cell<Instant>,
}

impl Moments {
    /// Waits until the data loop may be asked again. Must be awaited before each question.
    pub(super) async fn rested(&self) {
        while Instant::now() < self.next.get() {
            self.park.sleep_until(self.next.get()).await;
        }
        // Makes sure that only one of several waiting tasks continues.
        self.next.set(Instant::now() + OVERHEAD * REST);
    }

    /// Returns all numbers at one moment, or `None` if the data loop does not answer.
    pub(super) async fn snapshot(&self) -> Option<Snapshot> {
        self.ask(Question::Snapshot, self.limits.answer).await
    }

    /// Returns the set at one moment, or `None` if the data loop does not answer.
    pub(super) async fn entries(&self) -> Option<Entries> {
        self.ask(Question::Entries, self.limits.answer).await
    }

    /// Returns what clients have used, if that is counted, or `None` if the data loop does not
    /// answer.
    pub(super) async fn accounts(&self) -> Option<Option<AccountNumbers>> {
        self.ask(Question::Accounts, self.limits.answer).await
    }

    /// Returns the last hour, or `None` if the data loop does not answer.
    pub(super) async fn history(&self) -> Option<History> {
        self.ask(Question::History, self.limits.answer).await
    }

    /// Returns a sign of life, or `None` if there is none.
    pub(super) async fn sign(&self) -> Option<Sign> {
        self.ask(Question::Sign, self.limits.silence).await
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(Sender<Timed<T>>) -> Question,
        limit: Duration,
    ) -> Option<T> {
        let (to, answer) = bounded(1);
        self.questions.send(question(to)).await.ok()?;
        let timed = self.park.within(limit, answer.recv()).await?.ok()?;
        let rested = Instant::now() + (timed.took + OVERHEAD) * REST;
        self.next.set(rested.max(self.next.get()));
        Some(timed.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_in_one_copy_affects_only_that_answer() {
        let (to, told) = bounded::<Timed<u8>>(1);
        answer(&to, || panic!("a deliberate bug"));
        drop(to);
        assert!(told.recv_blocking().is_err(), "there is no answer");
        let (to, told) = bounded(1);
        answer(&to, || 7);
        assert_eq!(told.recv_blocking().map(|it| it.answer).ok(), Some(7));
    }
}
