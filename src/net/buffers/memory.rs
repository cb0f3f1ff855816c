//! Memory used for blocked receivers: the total held for them, and how much a new socket may
//! buffer.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;

use socket2::SockRef;

use crate::state::Held;

/// Limits on the memory that all connections together use beyond what idle ones need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes that may be held, in the process or in pipes, for blocked receivers.
    pub held_bytes: usize,
    /// Bytes that the kernel may buffer in sockets beyond [`MemoryLimits::STALLED_BYTES`] per
    /// connection. `None` means no limit.
    pub spare_bytes: Option<usize>,
}

impl MemoryLimits {
    /// No limits.
    pub const NONE: Self = Self {
        held_bytes: usize::MAX,
        spare_bytes: None,
    };

    /// Kernel memory used by a connection with a blocked receiver when its sockets have the
    /// smallest buffers: half for the receiver, half from the sender. Measured on Linux 6.18: four
    /// pages.
    pub const STALLED_BYTES: usize = 16 * 1024;

    /// A connection that may use this much or more keeps the kernel's default buffers. With these,
    /// one that is blocked from the start takes 131 KiB from the sender and up to 128 KiB for the
    /// receiver.
    pub const DEFAULT_BYTES: usize = 256 * 1024;

    /// The n-th connection gets one `SHARES * n`th of the spare bytes.
    ///
    /// Over the first `n` connections these shares add up to `spare * (1 + ln(n / m)) / SHARES`,
    /// where `m` connections get [`MemoryLimits::DEFAULT_BYTES`]. That is less than `spare` for
    /// every capacity that memory allows. Connections that come and go do not change this: when the
    /// k-th oldest open connection arrived, at least k - 1 others were open.
    const SHARES: usize = 8;

    /// Returns how much the sockets of a new connection may buffer while `open` others exist.
    ///
    /// `None` means that they start with the kernel's defaults.
    #[must_use]
    pub fn allowance(self, open: usize) -> Option<Allowance> {
        let allowance = self.lasting_allowance(open);
        allowance.filter(|allowance| allowance.bytes() < Self::DEFAULT_BYTES)
    }

    /// Returns the same limit for a connection that has transferred so much that the kernel would
    /// grow its buffers.
    ///
    /// `None` means that the kernel may.
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
    /// The most that a connection gets: more than the kernel's defaults allow.
    pub(in crate::net) const MOST: Self = Self(16 << 20);

    /// Returns the allowance in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Limits the receive buffer to half of the allowance.
    ///
    /// Accepted sockets inherit this from their listener. If the call fails, the kernel's own limit
    /// applies.
    pub(in crate::net) fn limit_received(self, socket: impl AsFd) {
        // The kernel doubles this value.
        let _ = SockRef::from(&socket).set_recv_buffer_size(self.quarter());
    }

    /// Limits unsent bytes to half of the allowance: the mark, one piece that may exceed it, and
    /// the kernel's overhead.
    ///
    /// Bytes in flight do not count, so distant receivers are as fast as before (TCP_NOTSENT_LOWAT,
    /// since Linux 3.12). Accepted sockets inherit this, too.
    pub(in crate::net) fn limit_unsent(self, socket: impl AsFd) {
        let mark = u32::try_from(self.quarter() / 2).unwrap_or(u32::MAX);
        let _ = SockRef::from(&socket).set_tcp_notsent_lowat(mark);
    }

    /// Returns a quarter, in steps of half a page.
    ///
    /// The kernel counts whole pages, so one byte more would cost a page.
    fn quarter(self) -> usize {
        const STEP_BYTES: usize = 2048;
        self.0 / 4 / STEP_BYTES * STEP_BYTES
    }
}

/// How much is held, and how much may be.
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

    /// Returns how many more bytes may be held.
    pub(in crate::net) fn left(&self) -> usize {
        let most = self.limits.get().held_bytes;
        most.saturating_sub(self.held.sum())
    }

    /// Returns the piece size for passing bytes on while `open` connections exist.
    ///
    /// `None` means no limit, which applies while few receivers are blocked.
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
    fn holding_more_than_the_limit_leaves_zero() {
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
    fn pieces_are_limited_only_with_many_connections_and_much_held() {
        let memory = Memory::new();
        memory.limit(MemoryLimits {
            held_bytes: 800_000,
            spare_bytes: Some(80_000_000),
        });
        let held = memory.held().reserve(HeldIn::Spill, 100_000);
        assert_eq!(memory.piece(1000), None, "no more than an eighth is held");
        let more = memory.held().reserve(HeldIn::Spill, 1);
        assert_eq!(memory.piece(999), Some(3072), "about an eighth of 26,384");
        assert_eq!(memory.piece(10), None);
        drop((held, more));
        assert_eq!(memory.piece(1000), None);
        assert_eq!(MemoryLimits::NONE.allowance(1 << 20), None);
    }
}
