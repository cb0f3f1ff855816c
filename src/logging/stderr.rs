//! Writing to stderr without ever panicking, and at the end without waiting for good.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};
use rustix::stdio::stderr;

/// Writes all of it, however long nobody reads. There is nowhere to report that stderr is gone.
pub(super) fn write_all(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(stderr(), rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            // Somebody else who has the same terminal or pipe made it non-blocking.
            Err(Errno::AGAIN) => drop(is_writable(None)),
            Err(_) => return,
        }
    }
}

/// Writes as much of it as is read within `limit`.
pub(super) fn write_within(text: &str, limit: Duration) {
    /// What is written to a pipe, a socket or a terminal that is said to be writable without blocking.
    const CHUNK_BYTES: usize = 256;
    let deadline = Instant::now() + limit;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if !is_writable(Some(left)) {
            return;
        }
        match write(stderr(), &rest[..rest.len().min(CHUNK_BYTES)]) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// Waits until a write would not block; false when that is not so within `limit`.
fn is_writable(limit: Option<Duration>) -> bool {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let stderr = stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // An error shows in the write that follows.
    !matches!(poll(&mut fds, limit.as_ref()), Ok(0))
}
