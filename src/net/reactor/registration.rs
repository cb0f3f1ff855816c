//! The loop's knowledge of one descriptor: what it is ready for and which task to wake.
//!
//! Shared by the loop and the source.

use std::cell::Cell;
use std::fmt;
use std::task::Waker;

use super::ready::Ready;

/// A source's registration with the loop.
///
/// One waker is enough because a stream belongs to one task.
pub(super) struct Registration {
    key: SourceKey,
    ready: Cell<Ready>,
    age: Cell<Age>,
    /// Kept after an event, because the same task almost always waits again.
    waker: Cell<Option<Waker>>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registration = &mut f.debug_struct("Registration");
        registration
            .field("key", &self.key)
            .field("ready", &self.ready);
        registration.finish_non_exhaustive()
    }
}

/// How long a source that asked to be notified has existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// It has not asked to be notified, or was notified.
    Untold,
    /// It asked after the last tick.
    Young,
    /// It has lived through one tick.
    Seen,
}

impl Registration {
    pub(super) fn new(key: SourceKey, ready: Ready) -> Self {
        Self {
            key,
            ready: Cell::new(ready),
            age: Cell::new(Age::Untold),
            waker: Cell::new(None),
        }
    }

    pub(super) fn key(&self) -> SourceKey {
        self.key
    }

    pub(super) fn ready(&self) -> Ready {
        self.ready.get()
    }

    pub(super) fn set(&self, ready: Ready) {
        self.ready.set(self.ready.get() | ready);
    }

    pub(super) fn clear(&self, ready: Ready) {
        self.ready.set(self.ready.get() - ready);
    }

    pub(super) fn age(&self) -> Age {
        self.age.get()
    }

    pub(super) fn set_age(&self, age: Age) {
        self.age.set(age);
    }

    /// Registers `waker` for the next event.
    pub(super) fn wait(&self, waker: &Waker) {
        let waker = match self.waker.take() {
            Some(same) if same.will_wake(waker) => same,
            _ => waker.clone(),
        };
        self.waker.set(Some(waker));
    }

    /// Records an event and wakes the waiting task.
    pub(super) fn report(&self, ready: Ready) {
        self.set(ready);
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.set(Some(waker));
        }
    }
}

/// A source's slot in the loop's slab.
///
/// The generation distinguishes it from earlier users of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SourceKey {
    pub(super) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn unpack(data: u64) -> Self {
        Self {
            index: data as u32,
            generation: (data >> 32) as u32,
        }
    }
}
