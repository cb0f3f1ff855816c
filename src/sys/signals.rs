//! Dispositions of the signals that no other part of the program handles.

use std::ffi::c_int;
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Signals that end a process by default but mean nothing to this program.
const MEANINGLESS: [c_int; 9] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    // A log file that has reached its size limit is no reason to exit.
    libc::SIGXFSZ,
];

/// Signals that indicate a bug, an outside belief that the program hangs, or a limit.
///
/// SIGSEGV and SIGBUS are not included: the standard library has its own handlers, which recognise
/// a stack overflow.
const FATAL: [(c_int, &str); 6] = [
    (libc::SIGABRT, "coracle: killed by SIGABRT\n"),
    (libc::SIGFPE, "coracle: killed by SIGFPE\n"),
    (libc::SIGILL, "coracle: killed by SIGILL\n"),
    (
        libc::SIGSYS,
        "coracle: killed by SIGSYS: a sandbox forbids a system call\n",
    ),
    (libc::SIGTRAP, "coracle: killed by SIGTRAP\n"),
    (
        libc::SIGXCPU,
        "coracle: killed by SIGXCPU: CPU time limit reached (ulimit -t)\n",
    ),
];

/// Ignores meaningless signals, including the real-time ones, and makes fatal signals print a
/// message on stderr before they kill the process.
#[allow(unsafe_code)]
pub fn settle() {
    for signal in MEANINGLESS
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    {
        // SAFETY: SIG_IGN runs no code of ours, and no other part of the program handles these
        // signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for (signal, _) in FATAL {
        // SAFETY: all bits 0 are a valid sigaction with an empty mask. The handler calls only
        // functions that are safe in a handler (signal-safety(7)): it reads a constant and calls
        // poll(2), write(2) and raise(3). The kernel resets the disposition before the handler
        // runs, so the raised signal kills.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = last_words as extern "C" fn(c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

extern "C" fn last_words(signal: c_int) {
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // A blocked stderr must not keep the process from dying.
    let at_once = Timespec::default();
    if let Some((_, words)) = FATAL.iter().find(|(fatal, _)| *fatal == signal)
        && poll(&mut fds, Some(&at_once)) == Ok(1)
    {
        let _ = rustix::io::write(stderr, words.as_bytes());
    }
    // SAFETY: raise(3) takes any signal and may be called in a handler.
    #[allow(unsafe_code)]
    unsafe {
        libc::raise(signal)
    };
}
