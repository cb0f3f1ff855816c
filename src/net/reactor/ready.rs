//! What a descriptor is known to be ready for.

use rustix::event::epoll::EventFlags;

/// What a descriptor is known to be ready for, until EAGAIN shows otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) struct Ready(u8);

impl Ready {
    pub(in crate::net) const NONE: Self = Self(0);
    /// Reading does not block.
    pub(in crate::net) const READ: Self = Self(1);
    /// Writing does not block.
    pub(in crate::net) const WRITE: Self = Self(2);
    /// The peer has finished sending. Never cleared: after a short read, the end of the stream is
    /// next.
    pub(in crate::net) const READ_CLOSED: Self = Self(4);
    /// The descriptor has a pending error.
    pub(in crate::net) const ERROR: Self = Self(8);
    /// TCP urgent data has arrived. Never cleared: a read stops before it even if more data
    /// follows.
    pub(in crate::net) const URGENT: Self = Self(16);
    /// The peer has finished and everything was read, so only the end of the stream is left.
    pub(in crate::net) const END: Self = Self(32);
    /// The source has existed for a while.
    pub(in crate::net) const AGED: Self = Self(64);
    /// The peer reset the connection right after it was established. Never cleared, because the
    /// kernel reports it once.
    pub(in crate::net) const RESET: Self = Self(128);

    pub(super) fn from_epoll(flags: EventFlags) -> Self {
        let mut ready = Self::NONE;
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if flags.contains(EventFlags::IN) || failed {
            ready |= Self::READ;
        }
        if flags.contains(EventFlags::OUT) || failed {
            ready |= Self::WRITE;
        }
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP) {
            ready |= Self::READ | Self::READ_CLOSED;
        }
        if flags.contains(EventFlags::ERR) {
            ready |= Self::ERROR;
        }
        if flags.contains(EventFlags::PRI) {
            ready |= Self::URGENT;
        }
        ready
    }

    pub(in crate::net) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(in crate::net) fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Ready {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl std::ops::Sub for Ready {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}
