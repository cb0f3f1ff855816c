//! The sockets for which this process has descriptors.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, fstat, seek};

use super::closed;
use super::socket_table::{Accepted, Name, Query, TcpState, plain};

/// The process's descriptor table, held open.
#[derive(Debug)]
pub(super) struct OwnInodes(File);

impl OwnInodes {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc/self/fd")?))
    }

    /// Returns the current inodes.
    ///
    /// Skips descriptors that are closed meanwhile.
    pub(super) fn sockets(&self) -> io::Result<HashSet<u64>> {
        let mut inodes = HashSet::new();
        self.for_each(|_, inode| {
            inodes.insert(inode);
        })?;
        Ok(inodes)
    }

    /// Returns the TCP sockets on the queried ports that both sides have closed but this process
    /// still has open.
    ///
    /// `listed` are the inodes in the kernel's table, which need no check.
    pub(super) fn closed(&self, query: &Query, listed: &HashSet<u64>) -> io::Result<Vec<Accepted>> {
        let mut closed = Vec::new();
        self.for_each(|descriptor, inode| {
            if !listed.contains(&inode)
                && let Some((local, peer)) = closed::ends(descriptor, query)
            {
                closed.push(Accepted {
                    local: Name::Tcp(local),
                    peer: peer.map(plain),
                    state: TcpState::CLOSED,
                    inode,
                });
            }
        })?;
        Ok(closed)
    }

    /// Calls `visit` with each socket descriptor and its inode, which identifies it in the kernel's
    /// tables.
    #[allow(unsafe_code)]
    fn for_each(&self, mut visit: impl FnMut(BorrowedFd<'_>, u64)) -> io::Result<()> {
        seek(&self.0, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let Some(number) = number(entry?.file_name()) else {
                continue;
            };
            // SAFETY: the number is that of a descriptor in this process's table and not -1, which
            // is the only forbidden value. The thread that owns it may close it at any moment. The
            // calls made with it change nothing; they then fail with EBADF or describe whatever has
            // reused the number. The value does not outlive this iteration of the loop, and a wrong
            // inode is in no row that is asked for.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            // Reading the link in /proc returns the same inode at ten times the cost.
            let Ok(stat) = fstat(descriptor) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                visit(descriptor, stat.st_ino);
            }
        }
        Ok(())
    }
}

/// Parses a descriptor's number.
///
/// Returns `None` for `.` and `..`.
fn number(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}
