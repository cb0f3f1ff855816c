//! The number of descriptors that the process has and may have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit, if allowed, and returns how many descriptors the
/// process may have.
#[must_use]
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If this fails, the old limit still applies and is read below.
    let _ = setrlimit(Resource::Nofile, wanted);
    // `None` means unlimited. The kernel's own limit (fs.nr_open) is about a million.
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}

/// Returns how many descriptors the process has open.
///
/// # Errors
/// If /proc is not mounted.
pub fn open_now() -> io::Result<usize> {
    // Do not count the directory itself, which is open while it is read.
    Ok(std::fs::read_dir("/proc/self/fd")?
        .count()
        .saturating_sub(1))
}
