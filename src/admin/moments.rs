//! The one way from the admin thread to the loop that moves data: asks it for a copy of what it knows, and answers there.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded, unbounded};

use super::limits::ClientLimits;
use super::park::Park;
use crate::state::{Entries, Shared, Snapshot};

/// The loop rests this many times as long as a copy has taken it: the endpoint has a fiftieth of its time at most.
const REST: u32 = 50;
/// What else a question costs the loop: being woken, and one more iteration.
const OVERHEAD: Duration = Duration::from_micros(40);

#[derive(Debug)]
enum Question {
    Snapshot(Sender<Timed<Snapshot>>),
    Entries(Sender<Timed<Entries>>),
    Sign(Sender<Timed<Sign>>),
}

/// An answer, and how long it has kept the loop.
#[derive(Debug)]
struct Timed<T> {
    answer: T,
    took: Duration,
}

/// The loop lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    /// Whether it accepts no more connections.
    pub is_draining: bool,
}

/// A channel between the two.
#[must_use]
pub(super) fn channel() -> (Questions, Answers) {
    let (questions, asked) = unbounded();
    (Questions(questions), Answers(asked))
}

/// The admin thread's end of it, on its way there.
#[derive(Debug)]
pub(super) struct Questions(Sender<Question>);

impl Questions {
    /// The same for a thread that waits in `park`, and for so long.
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

/// The loop's end of it.
#[derive(Debug)]
pub struct Answers(Receiver<Question>);

impl Answers {
    /// Answers on the loop's thread until the endpoint ends. It copies, and does nothing else.
    pub async fn answer(self, shared: Rc<Shared>) {
        while let Ok(question) = self.0.recv().await {
            match question {
                Question::Snapshot(to) => answer(&to, || shared.snapshot()),
                Question::Entries(to) => answer(&to, || shared.entries(Instant::now())),
                Question::Sign(to) => answer(&to, || Sign {
                    is_draining: shared.is_draining(),
                }),
            }
        }
    }
}

fn answer<T>(to: &Sender<Timed<T>>, copy: impl FnOnce() -> T) {
    // Whoever asked has given up.
    if to.is_closed() {
        return;
    }
    let begun = Instant::now();
    match catch_unwind(AssertUnwindSafe(copy)) {
        // A bug costs this answer, not the proxy.
        Err(_) => log::error!("admin: copying the state panicked; please report this"),
        Ok(answer) => {
            let took = begun.elapsed();
            // Never full: there is one answer.
            let _ = to.try_send(Timed { answer, took });
        }
    }
}

/// The admin thread's end of it, there.
#[derive(Debug)]
pub(super) struct Moments {
    questions: Sender<Question>,
    park: Rc<Park>,
    limits: ClientLimits,
    /// When the loop has rested from the last question.
    next: Cell<Instant>,
}

impl Moments {
    /// Waits until the loop may be asked again. To be awaited before each question.
    pub(super) async fn turn(&self) {
        while Instant::now() < self.next.get() {
            self.park.sleep_until(self.next.get()).await;
        }
        // So that of several that wait one goes on.
        self.next.set(Instant::now() + OVERHEAD * REST);
    }

    /// All numbers of one moment; `None` when the loop does not answer.
    pub(super) async fn snapshot(&self) -> Option<Snapshot> {
        self.ask(Question::Snapshot, self.limits.answer).await
    }

    /// The set at one moment; `None` when the loop does not answer.
    pub(super) async fn entries(&self) -> Option<Entries> {
        self.ask(Question::Entries, self.limits.answer).await
    }

    /// A sign of life; `None` when there is none.
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
    fn a_bug_in_one_copy_costs_that_answer_and_nothing_else() {
        let (to, told) = bounded::<Timed<u8>>(1);
        answer(&to, || panic!("a bug, on purpose"));
        drop(to);
        assert!(told.recv_blocking().is_err(), "there is no answer");
        let (to, told) = bounded(1);
        answer(&to, || 7);
        assert_eq!(told.recv_blocking().map(|it| it.answer).ok(), Some(7));
    }
}
