//! How many descriptors the process has and may have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as far as allowed, and returns how many descriptors the process may have.
#[must_use]
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused, the old limit holds, and that is what is read below.
    let _ = setrlimit(Resource::Nofile, wanted);
    // No limit at all is written as none; the kernel's own (fs.nr_open) is about a million.
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// How many descriptors the process has open.
///
/// # Errors
/// When /proc is not mounted.
pub fn open_now() -> io::Result<usize> {
    // One less: the directory itself is open while it is read.
    Ok(std::fs::read_dir("/proc/self/fd")?
        .count()
        .saturating_sub(1))
}
