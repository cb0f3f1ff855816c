//! The sockets that this process has descriptors of.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, fstat, seek};

use super::closed;
use super::socket_table::{Accepted, Name, Query, TcpState, plain};

/// The process's table of descriptors, held open.
#[derive(Debug)]
pub(super) struct OwnInodes(File);

impl OwnInodes {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc/self/fd")?))
    }

    /// The inodes at this moment. A descriptor that is closed meanwhile is passed over.
    pub(super) fn sockets(&self) -> io::Result<HashSet<u64>> {
        let mut inodes = HashSet::new();
        self.for_each(|_, inode| {
            inodes.insert(inode);
        })?;
        Ok(inodes)
    }

    /// The TCP sockets that both sides have closed and this process still has a descriptor of, on the ports that are asked
    /// for. `listed` are the inodes of those that need no look, since the kernel's table has them.
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

    /// Calls `visit` with each descriptor of a socket, and its inode, which is what the kernel's tables call it by.
    #[allow(unsafe_code)]
    fn for_each(&self, mut visit: impl FnMut(BorrowedFd<'_>, u64)) -> io::Result<()> {
        seek(&self.0, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let Some(number) = number(entry?.file_name()) else {
                continue;
            };
            // SAFETY: the number is that of a descriptor in this process's table and not -1, which alone is forbidden. The
            // thread that owns it may close it at any moment: the calls made with it, which change nothing, then fail with
            // EBADF, or tell of whatever has taken the number since. The value does not outlive this iteration of the loop, and a
            // wrong inode is in no row that is asked for.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            // Following the link in /proc would say the same, at ten times the cost.
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

/// A descriptor's number; `None` for the directory's own two entries.
fn number(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}
