//! Writes to stderr without ever panicking and, at the end of the program, without waiting forever.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};
use rustix::stdio::stderr;

/// Writes all of `text`, however long stderr is blocked. If stderr is gone, there is nowhere to
/// report it.
pub(super) fn write_all(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match write(stderr(), rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            // Another process that shares the terminal or pipe made it non-blocking.
            Err(Errno::AGAIN) => drop(is_writable(None)),
            Err(_) => return,
        }
    }
}

/// Writes as much of `text` as is read within `limit`.
pub(super) fn write_within(text: &str, limit: Duration) {
    /// The size of a write that does not block on a pipe, socket or terminal reported as writable.
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

/// Waits until a write would not block. Returns `false` if that takes longer than `limit`.
fn is_writable(limit: Option<Duration>) -> bool {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let stderr = stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // An error shows in the write that follows.
    !matches!(poll(&mut fds, limit.as_ref()), Ok(0))
}
