//! Detects peers that have vanished without closing.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Keep-alive settings: after some idle time the kernel sends [`Keepalive::PROBES`] probes, one
/// every [`Keepalive::INTERVAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    idle_seconds: u16,
}

impl Keepalive {
    /// Unanswered probes after which the connection fails.
    pub const PROBES: u32 = 4;
    /// The time between probes.
    pub const INTERVAL: Duration = Duration::from_secs(15);
    /// From this idle time on, the setting may wait until a connection turns out to last.
    const LATER: Duration = Duration::from_secs(15);

    /// Creates settings that send probes after `idle`, which is cut to whole seconds from 1 to
    /// 32,767 (tcp(7)).
    #[must_use]
    pub fn after(idle: Duration) -> Self {
        let seconds = idle.as_secs().clamp(1, 32_767);
        Self {
            idle_seconds: seconds as u16,
        }
    }

    fn idle(self) -> Duration {
        Duration::from_secs(self.idle_seconds.into())
    }

    pub(super) fn can_wait(self) -> bool {
        self.idle() >= Self::LATER
    }

    pub(super) fn apply(self, fd: impl AsFd) -> io::Result<()> {
        let keepalive = TcpKeepalive::new()
            .with_time(self.idle())
            .with_interval(Self::INTERVAL)
            .with_retries(Self::PROBES);
        SockRef::from(&fd).set_tcp_keepalive(&keepalive)
    }
}
