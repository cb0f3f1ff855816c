//! The line of connections that wait for room at one server, such as in a full backlog: only the first in it tries again.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::happy_eyeballs::Lack;
use crate::net::reactor::{Reactor, Sleep};
use crate::state::{Backoff, Waiters, Waiting};

/// The first pause. The kernel does not report that a Unix socket's backlog or a port has room again, so somebody has to try.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause: room is noticed within it.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// One server's line. However many wait, there is one attempt per pause and one timer for it. The line is as long as there are
/// connections, and each of them waits until its own deadline.
#[derive(Debug)]
pub struct Line {
    waiting: Waiters,
    pauses: RefCell<Backoff>,
    /// When the first in line may try. It outlives who has set it.
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
    /// True if somebody waits: whoever comes now joins the line instead of trying.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// For a connection that has found this `lack` of room at `now`, or `None` if it has found a line and not asked. It is behind all
    /// others from its first poll on.
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

/// A place in a line. Dropping it gives it up.
#[derive(Debug)]
pub struct Turn<'a> {
    line: &'a Line,
    waiting: Waiting<'a>,
    /// Armed while it is the first: the one timer of the line.
    timer: Option<Sleep>,
}

impl Turn<'_> {
    /// Ready when it is this connection's turn to try.
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

    /// What the first in line lacked when it last tried.
    #[must_use]
    pub fn lack(&self) -> Option<Lack> {
        self.line.lack.get()
    }

    /// Ends the pause: something has been let go.
    pub fn hurry(&self) {
        self.line.next_try.set(None);
        if !self.waiting.is_first() {
            self.line.waiting.wake_first();
        }
    }

    /// Notes that there is still no room: it keeps its place and may try again after a pause.
    pub fn found_none(&mut self, lack: Lack, now: Instant) {
        self.line.pause(lack, now);
        self.timer = None;
    }

    /// Notes that there was room, and leaves: the next in line tries at once.
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
        // Whoever comes next finds out whether there is room.
        if self.line.is_empty() {
            self.line.go_on();
        }
    }
}
