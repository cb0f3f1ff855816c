//! The memory that blocked receivers take: the sum of what is held for them, and how much a new socket may buffer.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;

use socket2::SockRef;

use crate::state::Held;

/// What all connections together may take beyond what idle ones do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes that are held in the process or in pipes for receivers that are blocked.
    pub held_bytes: usize,
    /// Bytes that the kernel may buffer in sockets beyond [`MemoryLimits::STALLED_BYTES`] for each connection. `None`: as many as it
    /// likes.
    pub spare_bytes: Option<usize>,
}

impl MemoryLimits {
    /// No limits.
    pub const NONE: Self = Self {
        held_bytes: usize::MAX,
        spare_bytes: None,
    };

    /// What a connection with a blocked receiver takes of the kernel's memory when its sockets have the smallest buffers: half of it for
    /// the receiver, half from the sender. Measured on Linux 6.18: four pages.
    pub const STALLED_BYTES: usize = 16 * 1024;

    /// A connection that may take this much is left to the kernel: at the kernel's defaults, one that is blocked from its start takes
    /// 131 KiB from the sender and up to 128 KiB for the receiver.
    pub const DEFAULT_BYTES: usize = 256 * 1024;

    /// The n-th connection gets one `SHARES * n`th of the spare bytes. The sum of that over the first
    /// `n` connections is `spare * (1 + ln(n / m)) / SHARES`, where `m` connections get [`MemoryLimits::DEFAULT_BYTES`], and less than
    /// `spare` for all capacities that memory allows. Connections that come and go change nothing: of those that are there, the
    /// k-th oldest came when k - 1 others at least were there.
    const SHARES: usize = 8;

    /// How much the sockets of a connection may buffer that comes when `open` others are there. `None`: at first they are left to the
    /// kernel.
    #[must_use]
    pub fn allowance(self, open: usize) -> Option<Allowance> {
        let allowance = self.lasting_allowance(open);
        allowance.filter(|allowance| allowance.bytes() < Self::DEFAULT_BYTES)
    }

    /// The same for a connection that has passed so much that the kernel would let its buffers grow. `None`: it may.
    pub(in crate::net) fn lasting_allowance(self, open: usize) -> Option<Allowance> {
        let share = self.spare_bytes? / (Self::SHARES * (open + 1));
        let allowance = Allowance(share.saturating_add(Self::STALLED_BYTES));
        (allowance < Allowance::MOST).then_some(allowance)
    }
}

/// How much the sockets of one connection may buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allowance(usize);

impl Allowance {
    /// The most that a connection gets: more than the kernel's defaults let it take.
    pub(in crate::net) const MOST: Self = Self(16 << 20);

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Limits what waits to be read to half of it. Those who are accepted inherit this from their listener. Where it fails, the kernel's
    /// own limit holds.
    pub(in crate::net) fn limit_received(self, socket: impl AsFd) {
        // The kernel doubles it.
        let _ = SockRef::from(&socket).set_recv_buffer_size(self.quarter());
    }

    /// Limits what waits to be sent to half of it: the mark, one piece that may exceed it, and what the kernel adds. What is under way
    /// does not count, so that distant receivers get it as fast as ever (TCP_NOTSENT_LOWAT, since Linux 3.12). This is inherited, too.
    pub(in crate::net) fn limit_unsent(self, socket: impl AsFd) {
        let mark = u32::try_from(self.quarter() / 2).unwrap_or(u32::MAX);
        let _ = SockRef::from(&socket).set_tcp_notsent_lowat(mark);
    }

    /// A quarter, in steps of half a page: the kernel counts whole ones, so that a byte more would be a page more.
    fn quarter(self) -> usize {
        const STEP_BYTES: usize = 2048;
        self.0 / 4 / STEP_BYTES * STEP_BYTES
    }
}

/// What is held, and what may be.
#[derive(Debug)]
pub(in crate::net) struct Memory {
    held: Rc<Held>,
    limits: Cell<MemoryLimits>,
}

impl Memory {
    pub(in crate::net) fn new() -> Self {
        Self {
            held: Rc::default(),
            limits: Cell::new(MemoryLimits::NONE),
        }
    }

    pub(in crate::net) fn limit(&self, limits: MemoryLimits) {
        self.limits.set(limits);
    }

    pub(in crate::net) fn limits(&self) -> MemoryLimits {
        self.limits.get()
    }

    pub(in crate::net) fn held(&self) -> &Rc<Held> {
        &self.held
    }

    /// How many more bytes may be held.
    pub(in crate::net) fn left(&self) -> usize {
        let most = self.limits.get().held_bytes;
        most.saturating_sub(self.held.sum())
    }

    /// In which pieces to pass bytes on with `open` connections. `None`: as large as they come, which is so while few receivers are
    /// blocked.
    pub(in crate::net) fn piece(&self, open: usize) -> Option<usize> {
        let limits = self.limits.get();
        let allowance = limits.allowance(open)?;
        (self.held.sum() > limits.held_bytes / 8).then_some(allowance.quarter() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, MemoryLimits};
    use crate::state::HeldIn;

    #[test]
    fn more_than_may_be_held_is_counted_and_leaves_nothing() {
        let memory = Memory::new();
        memory.limit(MemoryLimits {
            held_bytes: 100_000,
            spare_bytes: None,
        });
        let first = memory.held().reserve(HeldIn::Spill, 60_000);
        assert_eq!(memory.left(), 40_000);
        let second = memory.held().reserve(HeldIn::Pipe, 60_000);
        assert_eq!(memory.left(), 0);
        drop((first, second));
        assert_eq!(memory.left(), 100_000);
    }

    #[test]
    fn pieces_are_small_only_while_many_sockets_are_open_and_much_is_held() {
        let memory = Memory::new();
        memory.limit(MemoryLimits {
            held_bytes: 800_000,
            spare_bytes: Some(80_000_000),
        });
        let held = memory.held().reserve(HeldIn::Spill, 100_000);
        assert_eq!(memory.piece(1000), None, "an eighth of it is little");
        let more = memory.held().reserve(HeldIn::Spill, 1);
        assert_eq!(memory.piece(999), Some(3072), "about an eighth of 26,384");
        assert_eq!(memory.piece(10), None);
        drop((held, more));
        assert_eq!(memory.piece(1000), None);
        assert_eq!(MemoryLimits::NONE.allowance(1 << 20), None);
    }
}
