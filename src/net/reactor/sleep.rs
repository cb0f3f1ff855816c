//! Waits for a point in time.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::core::Reactor;
use super::timers::TimerKey;

/// The future of [`Reactor::sleep_until`].
///
/// Dropping it disarms the timer.
#[derive(Debug)]
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline: Instant,
    key: Option<TimerKey>,
}

impl Reactor {
    /// Returns a future that completes at `deadline`.
    pub fn sleep_until(self: &Rc<Self>, deadline: Instant) -> Sleep {
        Sleep {
            reactor: self.clone(),
            deadline,
            key: None,
        }
    }

    /// Returns a future that completes after `duration`.
    pub fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }
}

impl Reactor {
    /// Waits for the next iteration of the loop, which looks at new events first. Everything that is
    /// ready to run now has its turn meanwhile.
    pub async fn next_iteration(&self) {
        let is_asked = Cell::new(false);
        poll_fn(|cx| {
            if is_asked.replace(true) {
                return Poll::Ready(());
            }
            self.wake_next_iteration(cx.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Sleep {
    /// Changes the deadline.
    pub fn reset(&mut self, deadline: Instant) {
        self.disarm();
        self.deadline = deadline;
    }

    fn disarm(&mut self) {
        if let Some(key) = self.key.take() {
            self.reactor.timers().disarm(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= self.reactor.now() {
            self.disarm();
            return Poll::Ready(());
        }
        let timers = self.reactor.timers();
        let key = self.key.unwrap_or_else(|| timers.key(self.deadline));
        timers.arm(key, cx.waker());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}
