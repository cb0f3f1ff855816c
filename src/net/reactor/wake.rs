//! Ends the loop's sleep from any thread; only a sleeping loop costs a system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

/// The loop is polling its future, and will look again before it sleeps.
const RUNNING: u8 = 0;
/// The loop sleeps in the kernel.
const SLEEPING: u8 = 1;
/// The future is to be polled.
const NOTIFIED: u8 = 2;

/// The waker behind the loop's future.
#[derive(Debug)]
pub(super) struct WakeUp {
    state: AtomicU8,
    eventfd: OwnedFd,
}

impl WakeUp {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            state: AtomicU8::new(RUNNING),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        }))
    }

    /// Has the future polled although nobody has woken it.
    pub(super) fn notify(&self) {
        self.state.store(NOTIFIED, Ordering::Release);
    }

    /// Whether the future is to be polled. From here on the loop counts as running.
    pub(super) fn take(&self) -> bool {
        self.state.swap(RUNNING, Ordering::AcqRel) == NOTIFIED
    }

    /// Notes that the loop is about to sleep; false if somebody has woken it since [`WakeUp::take`].
    pub(super) fn sleep(&self) -> bool {
        let (order, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let slept = self
            .state
            .compare_exchange(RUNNING, SLEEPING, order, failure);
        slept.is_ok()
    }

    /// Notes that the sleep is over. Whoever has notified us meanwhile stays noted.
    pub(super) fn awake(&self) {
        let (order, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self
            .state
            .compare_exchange(SLEEPING, RUNNING, order, failure);
    }
}

impl AsFd for WakeUp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Wake for WakeUp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING {
            // It cannot fail but when the number is full, and then the edge is already there.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}
