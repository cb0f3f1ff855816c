//! The inodes of the sockets that this process has descriptors of.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, seek, statat};

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
            // Followed, the link is the descriptor's own file: a socket's inode is what the kernel's tables call it by.
            let Ok(stat) = statat(&self.0, entry?.file_name(), AtFlags::empty()) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                inodes.insert(stat.st_ino);
            }
        }
        Ok(inodes)
    }
}
