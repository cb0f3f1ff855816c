//! Wakes the loop from any thread.
//!
//! Only waking a sleeping loop costs a system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

/// The loop is polling its future and checks again before it sleeps.
const RUNNING: u8 = 0;
/// The loop is asleep in the kernel.
const SLEEPING: u8 = 1;
/// The future must be polled.
const NOTIFIED: u8 = 2;

/// The waker of the loop's future.
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

    /// Forces the next poll of the future.
    pub(super) fn notify(&self) {
        self.state.store(NOTIFIED, Ordering::Release);
    }

    /// Returns true if the future must be polled, and marks the loop as running.
    pub(super) fn take(&self) -> bool {
        self.state.swap(RUNNING, Ordering::AcqRel) == NOTIFIED
    }

    /// Marks the loop as about to sleep.
    ///
    /// Returns false if it was woken since [`WakeUp::take`].
    pub(super) fn sleep(&self) -> bool {
        let (order, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let slept = self
            .state
            .compare_exchange(RUNNING, SLEEPING, order, failure);
        slept.is_ok()
    }

    /// Marks the loop as awake.
    ///
    /// Keeps notifications that arrived in the meantime.
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
            // This fails only if the counter is full, and then there already is an edge.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}
