//! Signals as something to read, for a loop that waits for several things at once.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// Signals that no longer interrupt the process, and wait here to be read.
#[derive(Debug)]
pub struct Caught(OwnedFd);

impl Caught {
    /// Catches these signals from now on, in this thread and in those that it starts.
    ///
    /// # Errors
    /// If the kernel has no descriptor or no memory.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the first call initialises the set, which outlives the others. The descriptor is
        // new and nobody else's, if it is one.
        #[allow(unsafe_code)]
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) {
                0 => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            match libc::signalfd(-1, set.as_ptr(), flags) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Returns a signal that has come, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Signal> {
        /// Of `struct signalfd_siginfo`, which begins with the number.
        const BYTES: usize = 128;
        let mut info = [0; BYTES];
        match rustix::io::read(&self.0, &mut info) {
            Ok(BYTES) => {
                let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                Signal::from_named_raw(number)
            }
            _ => None,
        }
    }
}

/// Stops this process as SIGTSTP does, which [`Caught`] has caught, and returns once it goes on. The
/// kernel stops no process that no shell could continue.
///
/// # Errors
/// If the kernel refuses.
pub fn stop() -> io::Result<()> {
    rustix::process::kill_process(rustix::process::getpid(), Signal::TSTP)?;
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call initialises the set, which outlives the others.
    #[allow(unsafe_code)]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), Signal::TSTP.as_raw());
        // The signal that waits arrives here.
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
    Ok(())
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
