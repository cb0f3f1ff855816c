//! The line of connections that wait for room at one server, for example in a full backlog.
//!
//! Only the first in line retries.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::happy_eyeballs::Lack;
use crate::net::reactor::{Reactor, Sleep};
use crate::state::{Backoff, Waiters, Waiting};

/// The first pause. The kernel does not report when a Unix socket's backlog or the local ports have
/// room again, so this is polled.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause: room is noticed within this time.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// One server's line.
///
/// However many connections wait, there is one attempt per pause and one timer. The line has no
/// length limit; each connection waits until its own deadline.
#[derive(Debug)]
pub struct Line {
    waiting: Waiters,
    pauses: RefCell<Backoff>,
    /// When the first in line may try. Kept when the connection that set it leaves.
    next_try: Cell<Option<Instant>>,
    /// What the last attempt lacked.
    lack: Cell<Option<Lack>>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            waiting: Waiters::default(),
            pauses: RefCell::new(Backoff::new(PAUSE_MIN, PAUSE_MAX)),
            next_try: Cell::new(None),
            lack: Cell::new(None),
        }
    }
}

impl Line {
    /// Returns true if no connection waits.
    ///
    /// If any does, new connections join the line instead of trying.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns a place in the line for a new connection.
    ///
    /// From its first poll on, it is behind all others.
    ///
    /// `lack` is what the connection lacked when it tried at `now`. It is `None` if the connection
    /// found a line and did not try.
    pub fn join(&self, lack: Option<Lack>, now: Instant) -> Turn<'_> {
        if let Some(lack) = lack
            && self.is_empty()
        {
            self.pause(lack, now);
        }
        Turn {
            line: self,
            waiting: self.waiting.waiting(),
            timer: None,
        }
    }

    fn pause(&self, lack: Lack, now: Instant) {
        self.lack.set(Some(lack));
        let pause = self.pauses.borrow_mut().pause();
        self.next_try.set(Some(now + pause));
    }

    fn go_on(&self) {
        self.pauses.borrow_mut().reset();
        self.next_try.set(None);
        self.lack.set(None);
    }
}

/// A place in a line.
///
/// Dropping it leaves the line.
#[derive(Debug)]
pub struct Turn<'a> {
    line: &'a Line,
    waiting: Waiting<'a>,
    /// The line's only timer. Armed while this is the first in line.
    timer: Option<Sleep>,
}

impl Turn<'_> {
    /// Waits until it is this connection's turn to try.
    pub fn poll(&mut self, reactor: &Rc<Reactor>, cx: &mut Context<'_>) -> Poll<()> {
        self.waiting.wait(cx.waker());
        if !self.waiting.is_first() {
            return Poll::Pending;
        }
        let Some(next_try) = self.line.next_try.get() else {
            return Poll::Ready(());
        };
        let timer = self
            .timer
            .get_or_insert_with(|| reactor.sleep_until(next_try));
        Pin::new(timer).poll(cx)
    }

    /// Returns what the first in line lacked when it last tried.
    #[must_use]
    pub fn lack(&self) -> Option<Lack> {
        self.line.lack.get()
    }

    /// Ends the pause, because a resource was freed.
    pub fn hurry(&self) {
        self.line.next_try.set(None);
        if !self.waiting.is_first() {
            self.line.waiting.wake_first();
        }
    }

    /// Records that there is still no room.
    ///
    /// The connection keeps its place and may retry after a pause.
    pub fn found_none(&mut self, lack: Lack, now: Instant) {
        self.line.pause(lack, now);
        self.timer = None;
    }

    /// Records that there was room and leaves the line.
    ///
    /// The next in line tries immediately.
    pub fn found_room(self) {
        self.line.go_on();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let was_first = self.waiting.is_first();
        self.waiting.leave();
        if was_first {
            self.line.waiting.wake_first();
        }
        // The next connection to arrive finds out whether there is room.
        if self.line.is_empty() {
            self.line.go_on();
        }
    }
}
