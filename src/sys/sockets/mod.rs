//! The kernel's socket table, limited to this process: accepted connections, and those waiting to
//! be accepted.

mod closed;
mod own_inodes;
mod proc_net;
mod sock_diag;
mod socket_table;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

use std::fmt;

use own_inodes::OwnInodes;
use sock_diag::SockDiag;

pub use socket_table::{Accepted, Listening, Name, Query, Table, TcpState};

/// The source of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableSource {
    /// The kernel's NETLINK_SOCK_DIAG (sock_diag(7)).
    SockDiag,
    /// `/proc/net/tcp`, `tcp6` and `unix`.
    Proc,
}

impl fmt::Display for TableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SockDiag => "sock_diag",
            Self::Proc => "proc",
        })
    }
}

/// The sources, opened once.
///
/// Reading needs no new descriptor, because it must work when descriptors have run out.
#[derive(Debug)]
pub struct SocketTables {
    diag: Option<SockDiag>,
    own_inodes: Option<OwnInodes>,
}

impl SocketTables {
    /// Opens the sources.
    ///
    /// Skips those that are unavailable (a sandbox without netlink, no `/proc`).
    #[must_use]
    pub fn open() -> Self {
        Self {
            diag: SockDiag::open().ok(),
            own_inodes: OwnInodes::open().ok(),
        }
    }

    /// Opens the sources except sock_diag, as on a kernel that lacks it.
    #[must_use]
    pub fn without_sock_diag() -> Self {
        Self {
            diag: None,
            ..Self::open()
        }
    }

    /// Reads the table, without other processes' sockets.
    ///
    /// Returns `None` if the kernel does not provide it. This blocks while the kernel walks its
    /// tables, so never call it on the loop's thread.
    pub fn read(&mut self, query: &Query) -> Option<(TableSource, Table)> {
        if self.own_inodes.is_none() {
            // The cause of the failure at startup, such as a lack of descriptors, may be gone.
            self.own_inodes = OwnInodes::open().ok();
        }
        let own_inodes = self.own_inodes.as_ref()?;
        // Read the inodes before and after the table, because a socket accepted in between is ours,
        // too.
        let mut inodes = own_inodes.sockets().ok()?;
        let from_diag = self.diag.as_mut().and_then(|diag| diag.read(query).ok());
        let (source, mut table) = match from_diag {
            Some(table) => (TableSource::SockDiag, table),
            None => (TableSource::Proc, proc_net::read(query).ok()?),
        };
        // A socket that is not accepted yet, or already closed, has inode 0.
        let is_known = |inode: u64| inode == 0 || inodes.contains(&inode);
        if !table.accepted.iter().all(|row| is_known(row.inode)) {
            inodes.extend(own_inodes.sockets().ok()?);
        }
        table.retain_owned(&inodes);
        if query.closed {
            let accepted = table.accepted.iter().map(|row| row.inode);
            let listening = table.listening.iter().map(|row| row.inode);
            let listed = accepted.chain(listening).collect();
            table
                .accepted
                .extend(own_inodes.closed(query, &listed).ok()?);
        }
        Some((source, table))
    }
}
