//! The rows of the kernel's table of sockets.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The ports whose TCP sockets are wanted.
    pub ports: Vec<u16>,
    /// Whether Unix sockets are wanted.
    pub unix: bool,
    /// Whether TCP sockets are wanted that both sides have closed while this process holds a descriptor of them. The
    /// kernel's table does not list these, so looking for them costs a few calls for each descriptor.
    pub closed: bool,
}

/// The name that a socket is bound to.
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
    /// This end, in the family of the socket: the address of an IPv4 client that came in over an IPv6 socket is a mapped
    /// one here. For a Unix socket that was accepted, the listener's path.
    pub local: Name,
    /// The other end, an IPv4 address where it is one; Unix clients have none.
    pub peer: Option<SocketAddr>,
    /// Its state.
    pub state: TcpState,
    /// Its inode: what ties it to a descriptor.
    pub inode: u64,
}

/// A listening socket.
#[derive(Clone, Debug)]
pub struct Listening {
    /// What it listens on.
    pub local: Name,
    /// Connections that the kernel has completed and nobody has accepted yet; `None` where it does not tell.
    pub backlog: Option<u64>,
    /// Its inode.
    pub inode: u64,
}

impl Table {
    /// Leaves out what is not among these inodes. What is not accepted yet, or closed already, has inode 0. A row that came twice,
    /// as the kernel does where others come and go while the table is read, stays once.
    pub(super) fn retain_owned(&mut self, inodes: &HashSet<u64>) {
        let mut seen = HashSet::new();
        let mut is_owned = |inode| inodes.contains(&inode) && seen.insert(inode);
        self.accepted.retain(|row| is_owned(row.inode));
        self.listening.retain(|row| is_owned(row.inode));
    }
}

/// A TCP socket's state, numbered as in the kernel (include/net/tcp_states.h). A connected Unix socket is established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpState(pub(super) u8);

impl TcpState {
    pub(super) const LISTEN: Self = Self(10);
    pub(super) const ESTABLISHED: Self = Self(1);
    pub(super) const CLOSED: Self = Self(7);
    /// Those of a connection that a process may hold: neither listening, nor a handshake that is not complete, nor a mere
    /// memory of a closed connection.
    const CONNECTED: [Self; 7] = [
        Self::ESTABLISHED,
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

    /// A set of states, as sock_diag wants it.
    pub(super) fn wanted_mask() -> u32 {
        let connected = Self::CONNECTED.iter().chain([&Self::LISTEN]);
        connected.fold(0, |mask, state| mask | 1 << state.0)
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "established",
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

/// An IPv4 address that came in over an IPv6 socket, as the IPv4 address that it is.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::{Accepted, Listening, Name, Table, TcpState};
    use std::collections::HashSet;

    #[test]
    fn a_row_that_came_twice_counts_once_and_a_strangers_not_at_all() {
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
