//! The inodes of the sockets that this process has descriptors of.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, Stat, fstat, seek};

/// The process's table of descriptors, held open.
#[derive(Debug)]
pub(super) struct Owned(File);

impl Owned {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc/self/fd")?))
    }

    /// The inodes at this moment. A descriptor that is closed meanwhile is passed over.
    pub(super) fn sockets(&self) -> io::Result<HashSet<u64>> {
        seek(&self.0, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        let mut inodes = HashSet::new();
        while let Some(entry) = entries.next() {
            let Some(stat) = stat(entry?.file_name()) else {
                continue;
            };
            // A socket's inode is what the kernel's tables call it by.
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                inodes.insert(stat.st_ino);
            }
        }
        Ok(inodes)
    }
}

/// What the descriptor of this number is. Following the link in /proc would say the same, at ten times the cost.
#[allow(unsafe_code)]
fn stat(number: &CStr) -> Option<Stat> {
    let number = number.to_str().ok()?.parse().ok()?;
    // SAFETY: the number is that of a descriptor in this process's table and not -1, which alone is forbidden. The thread
    // that owns it may close it at any moment: fstat(2) then fails with EBADF, or tells of whatever has taken the number
    // since. It changes nothing, the value does not outlive this call, and a wrong inode is in no row that is asked for.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fstat(descriptor).ok()
}
