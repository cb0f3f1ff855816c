//! The kernel's table of sockets, as far as this process owns them: what it has accepted, and what waits to be accepted.

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

/// Where a table came from.
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

/// The sources, opened once, so that a reading needs no new descriptor: it must work when descriptors have run out.
#[derive(Debug)]
pub struct SocketTables {
    diag: Option<SockDiag>,
    own_inodes: Option<OwnInodes>,
}

impl SocketTables {
    /// Opens the sources. What cannot be had (a sandbox without netlink, no `/proc`) is left out.
    #[must_use]
    pub fn open() -> Self {
        Self {
            diag: SockDiag::open().ok(),
            own_inodes: OwnInodes::open().ok(),
        }
    }

    /// The same without sock_diag, as on a kernel that lacks it.
    #[must_use]
    pub fn without_sock_diag() -> Self {
        Self {
            diag: None,
            ..Self::open()
        }
    }

    /// Reads the table, without what belongs to other processes. `None` where the kernel does not tell. It blocks for as long
    /// as the kernel takes to walk its tables, so it has no place on the loop's thread.
    pub fn read(&mut self, query: &Query) -> Option<(TableSource, Table)> {
        if self.own_inodes.is_none() {
            // What was lacking at the start, such as a descriptor, may have passed.
            self.own_inodes = OwnInodes::open().ok();
        }
        let own_inodes = self.own_inodes.as_ref()?;
        // Before and after: a socket that is accepted meanwhile is ours too.
        let mut inodes = own_inodes.sockets().ok()?;
        let from_diag = self.diag.as_mut().and_then(|diag| diag.read(query).ok());
        let (source, mut table) = match from_diag {
            Some(table) => (TableSource::SockDiag, table),
            None => (TableSource::Proc, proc_net::read(query).ok()?),
        };
        // What is not accepted yet, or closed already, has inode 0.
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
