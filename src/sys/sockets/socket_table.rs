//! The rows of the kernel's socket table.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Selects what to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Read TCP sockets with these local ports, in ascending order.
    pub ports: Vec<u16>,
    /// Read Unix sockets.
    pub unix: bool,
    /// Read TCP sockets that both sides have closed while this process still has them open. The
    /// kernel's table does not list these, so finding them costs a few system calls per descriptor.
    pub closed: bool,
}

/// The address that a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

/// The rows of one reading.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Connected sockets.
    pub accepted: Vec<Accepted>,
    /// Listening sockets.
    pub listening: Vec<Listening>,
}

/// A connected socket.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The local address, in the socket's own family: for an IPv4 client of an IPv6 socket it is a
    /// mapped address. For an accepted Unix socket, the listener's path.
    pub local: Name,
    /// The peer's address, with mapped addresses converted to IPv4. `None` for Unix clients, or if
    /// unknown.
    pub peer: Option<SocketAddr>,
    /// The connection's state.
    pub state: TcpState,
    /// The inode, which links the row to a descriptor.
    pub inode: u64,
}

/// A listening socket.
#[derive(Clone, Debug)]
pub struct Listening {
    /// The address that it listens on.
    pub local: Name,
    /// Connections that the kernel has completed but that are not accepted yet. `None` if unknown.
    pub backlog: Option<u64>,
    /// The inode, which links the row to a descriptor.
    pub inode: u64,
}

impl Table {
    /// Removes the rows whose inodes are not in `inodes`, and duplicates.
    ///
    /// A socket that is not accepted yet, or already closed, has inode 0. The kernel returns a row
    /// twice if other sockets come and go while the table is read.
    pub(super) fn retain_owned(&mut self, inodes: &HashSet<u64>) {
        let mut seen = HashSet::new();
        let mut is_owned = |inode| inodes.contains(&inode) && seen.insert(inode);
        self.accepted.retain(|row| is_owned(row.inode));
        self.listening.retain(|row| is_owned(row.inode));
    }
}

/// A TCP socket's state, numbered as in the kernel (include/net/tcp_states.h).
///
/// A connected Unix socket counts as established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpState(pub(super) u8);

impl TcpState {
    pub(super) const LISTEN: Self = Self(10);
    pub(super) const ESTABLISHED: Self = Self(1);
    pub(super) const CLOSED: Self = Self(7);
    /// The states of a connection that a process may hold: not listening, and not merely the memory
    /// of a closed connection.
    ///
    /// An incomplete handshake (3) has no inode, except that of a client whose first packet had
    /// data: it may be accepted before that (TCP Fast Open).
    const CONNECTED: [Self; 8] = [
        Self::ESTABLISHED,
        Self(3),
        Self(4),
        Self(5),
        Self::CLOSED,
        Self(8),
        Self(9),
        Self(11),
    ];

    pub(super) fn is_connected(self) -> bool {
        Self::CONNECTED.contains(&self)
    }

    /// Returns the wanted states as a bit mask for sock_diag.
    pub(super) fn wanted_mask() -> u32 {
        let connected = Self::CONNECTED.iter().chain([&Self::LISTEN]);
        connected.fold(0, |mask, state| mask | 1 << state.0)
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "established",
            3 => "syn-recv",
            4 => "fin-wait-1",
            5 => "fin-wait-2",
            7 => "closed",
            8 => "close-wait",
            9 => "last-ack",
            10 => "listen",
            11 => "closing",
            _ => "unknown",
        })
    }
}

/// Converts an IPv4 address that is mapped to IPv6 back to IPv4.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::{Accepted, Listening, Name, Table, TcpState};
    use std::collections::HashSet;

    #[test]
    fn duplicates_and_foreign_rows_are_removed() {
        let local = Name::Tcp(([127, 0, 0, 1], 80).into());
        let accepted = [7, 8, 7, 0].map(|inode| Accepted {
            local: local.clone(),
            peer: None,
            state: TcpState::ESTABLISHED,
            inode,
        });
        let listening = [9, 9].map(|inode| Listening {
            local: local.clone(),
            backlog: None,
            inode,
        });
        let mut table = Table {
            accepted: accepted.into(),
            listening: listening.into(),
        };
        table.retain_owned(&HashSet::from([7, 9]));
        let inodes: Vec<_> = table.accepted.iter().map(|row| row.inode).collect();
        assert_eq!(inodes, [7]);
        assert_eq!(table.listening.len(), 1);
    }
}
