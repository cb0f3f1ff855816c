//! The descriptors that a service manager passes to this process at startup (sd_listen_fds(3)).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor: SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;
/// More than any manager passes.
const AT_MOST: RawFd = 4096;

/// A passed descriptor and the manager's name for it, which may be empty.
#[derive(Debug)]
pub struct Descriptor {
    /// The descriptor. Closed on exec.
    pub fd: OwnedFd,
    /// The manager's name for it.
    pub name: String,
}

/// Takes the passed descriptors.
///
/// Returns nothing if there are none, or on a second call. Call this before opening anything else:
/// it trusts `LISTEN_FDS` that the descriptors from 3 on are the passed ones.
#[must_use]
pub fn take() -> Vec<Descriptor> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<RawFd>().ok();
    let is_ours = number("LISTEN_PID") == Some(rustix::process::getpid().as_raw_nonzero().get());
    if !is_ours || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, AT_MOST);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let numbers = FIRST..FIRST + count;
    numbers
        .filter_map(|number| {
            let name = names.next().unwrap_or_default();
            Some(Descriptor {
                fd: own(number)?,
                name,
            })
        })
        .collect()
}

/// Takes ownership of one descriptor, or returns `None` if it is not open.
fn own(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_SETFD touches no memory. It fails with EBADF for a number that is not
    // open.
    #[allow(unsafe_code)]
    let is_open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    // SAFETY: the descriptor is open, and the manager made it for exactly this process
    // (LISTEN_PID). Nothing else in the process uses it, because `take` does this once, before
    // anything else is opened.
    #[allow(unsafe_code)]
    is_open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}
