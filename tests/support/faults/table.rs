//! Which errors each system call is made to fail with, which are left out, and which cannot be
//! survived.

use super::case::Phase;

/// One system call with the errors that its manual page lists and Linux can return to this program.
pub struct Call {
    pub name: &'static str,
    pub errors: &'static [&'static str],
    /// Only calls on standard error are made to fail.
    pub only_stderr: bool,
}

const fn call(name: &'static str, errors: &'static [&'static str]) -> Call {
    Call {
        name,
        errors,
        only_stderr: false,
    }
}

/// Left out: EBADF, EFAULT and others that only a bug causes. Also EAGAIN from an edge-triggered
/// stream with bytes or room: the kernel returns it only if an edge is still to come.
pub const CALLS: &[Call] = &[
    call(
        "accept4",
        &[
            "EAGAIN",
            "EINTR",
            "ECONNABORTED",
            "EMFILE",
            "ENFILE",
            "ENOBUFS",
            "ENOMEM",
            "EPROTO",
            "EPERM",
            "ENETDOWN",
            "EHOSTUNREACH",
        ],
    ),
    call("bind", &["EADDRINUSE", "EACCES", "EADDRNOTAVAIL", "ENOMEM"]),
    // A failed brk returns the old break, which no injected number can imitate; 0 is taken as a
    // failure too.
    call("brk", &["retval=0"]),
    call("chmod", &["ENOENT", "ENOMEM", "EPERM"]),
    call("chown", &["ENOENT", "ENOMEM", "EPERM"]),
    call("clone", &["EAGAIN", "ENOMEM", "EPERM"]),
    call("clone3", &["EAGAIN", "ENOMEM", "EPERM", "ENOSYS"]),
    call(
        "connect",
        &[
            "EACCES",
            "EADDRNOTAVAIL",
            "EAGAIN",
            "ECONNREFUSED",
            "ECONNRESET",
            "EHOSTUNREACH",
            "EINTR",
            "ENETUNREACH",
            "ENOBUFS",
            "EPERM",
            "ETIMEDOUT",
        ],
    ),
    call("epoll_create1", &["EMFILE", "ENFILE", "ENOMEM"]),
    call("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    call("epoll_pwait", &["EINTR"]),
    call("epoll_pwait2", &["EINTR", "ENOSYS", "EPERM"]),
    call("epoll_wait", &["EINTR"]),
    call("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    call("fchmod", &["EPERM"]),
    call("fchmodat", &["ENOENT", "ENOMEM", "EPERM"]),
    call("fchown", &["EPERM"]),
    call("fchownat", &["ENOENT", "ENOMEM", "EPERM"]),
    call("fcntl", &["EBUSY", "EMFILE", "ENOMEM", "EPERM"]),
    // EWOULDBLOCK, by the name that strace uses.
    call("flock", &["EINTR", "ENOLCK", "EAGAIN"]),
    call("fstat", &["EACCES", "ENOMEM"]),
    call("getdents64", &["EIO", "ENOENT", "ENOMEM"]),
    call("getpeername", &["ENOBUFS", "ENOTCONN"]),
    call("getpriority", &["ESRCH"]),
    call("getrandom", &["ENOSYS", "EPERM"]),
    call("getsockname", &["ENOBUFS"]),
    call("getsockopt", &["ENOBUFS", "ENOMEM", "ENOPROTOOPT"]),
    call("ioctl", &["ENOTTY", "EPERM"]),
    call("listen", &["EADDRINUSE", "ENOBUFS"]),
    call("lseek", &["EINVAL", "ESPIPE"]),
    call("madvise", &["EAGAIN", "EINVAL", "ENOMEM"]),
    call("mmap", &["ENOMEM"]),
    call("mprotect", &["ENOMEM"]),
    call("mremap", &["ENOMEM"]),
    call("munmap", &["ENOMEM"]),
    call("newfstatat", &["EACCES", "ENOENT", "ENOMEM"]),
    call("open", &["EACCES", "EMFILE", "ENFILE", "ENOENT", "ENOMEM"]),
    call(
        "openat",
        &["EACCES", "EMFILE", "ENFILE", "ENOENT", "ENOMEM"],
    ),
    call("pipe2", &["EMFILE", "ENFILE"]),
    call("poll", &["EINTR", "ENOMEM"]),
    call("ppoll", &["EINTR", "ENOMEM"]),
    call("prctl", &["EINVAL", "EPERM"]),
    call("pread64", &["EINTR", "EIO"]),
    call("read", &["EINTR", "EIO", "ENOMEM"]),
    call("readlink", &["EACCES", "ENOENT", "ENOMEM"]),
    call("readlinkat", &["EACCES", "ENOENT", "ENOMEM"]),
    call(
        "recvfrom",
        &["ECONNRESET", "EHOSTUNREACH", "EINTR", "ENOMEM", "ETIMEDOUT"],
    ),
    call("recvmsg", &["ECONNRESET", "EINTR", "ENOBUFS", "ENOMEM"]),
    call("rt_sigaction", &["EINVAL"]),
    call("sched_getaffinity", &["ENOSYS", "EPERM"]),
    call(
        "sendto",
        &[
            "ECONNRESET",
            "EHOSTUNREACH",
            "EINTR",
            "ENOBUFS",
            "ENOMEM",
            "EPERM",
            "EPIPE",
        ],
    ),
    call(
        "sendmsg",
        &["ECONNREFUSED", "EINTR", "ENOBUFS", "ENOMEM", "EPERM"],
    ),
    call("sendmmsg", &["ECONNREFUSED", "EINTR", "ENOBUFS"]),
    call("set_robust_list", &["ENOSYS"]),
    call("setpriority", &["EACCES", "EPERM", "ESRCH"]),
    call("setsockopt", &["ENOBUFS", "ENOMEM", "ENOPROTOOPT", "EPERM"]),
    call("shutdown", &["ENOBUFS", "ENOTCONN"]),
    call("sigaltstack", &["ENOMEM"]),
    call(
        "socket",
        &[
            "EACCES",
            "EAFNOSUPPORT",
            "EMFILE",
            "ENFILE",
            "ENOBUFS",
            "ENOMEM",
        ],
    ),
    call("socketpair", &["EMFILE", "ENFILE", "ENOMEM"]),
    call(
        "splice",
        &["ECONNRESET", "EINTR", "EINVAL", "ENOMEM", "EPIPE"],
    ),
    call("lstat", &["EACCES", "ENOENT", "ENOMEM"]),
    call("stat", &["EACCES", "ENOENT", "ENOMEM"]),
    call("statx", &["EACCES", "ENOENT", "ENOMEM", "ENOSYS"]),
    call("sysinfo", &["EFAULT"]),
    call("timerfd_create", &["EMFILE", "ENFILE", "ENOMEM"]),
    call("unlink", &["EACCES", "EBUSY", "ENOENT"]),
    call("unlinkat", &["EACCES", "EBUSY", "ENOENT"]),
    // Writing to an eventfd cannot fail, and no real system swallows a wake-up as an injected error
    // does.
    Call {
        name: "write",
        errors: &["EAGAIN", "EINTR", "EIO", "ENOSPC", "EPIPE"],
        only_stderr: true,
    },
    Call {
        name: "writev",
        errors: &["EINTR", "EIO", "EPIPE"],
        only_stderr: false,
    },
];

/// Calls that are made but not made to fail, each with the reason.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "close",
        "Linux frees the descriptor whatever close returns; an injected error would keep it open",
    ),
    (
        "futex",
        "an injected error would swallow a wake-up, which cannot fail; a wait that is interrupted is looked at again by libc and std",
    ),
    ("clock_gettime", "it cannot fail"),
    ("clock_nanosleep", "only EINTR, after which std sleeps on"),
    ("execve", "before the program"),
    ("exit", "it cannot fail"),
    ("exit_group", "it cannot fail"),
    ("getegid", "it cannot fail"),
    ("geteuid", "it cannot fail"),
    ("getgid", "it cannot fail"),
    ("getpid", "it cannot fail"),
    ("gettid", "it cannot fail"),
    ("getuid", "it cannot fail"),
    ("nanosleep", "only EINTR, after which std sleeps on"),
    (
        "prlimit64",
        "a process may always read its limits, and raise the soft ones to the hard ones",
    ),
    (
        "rseq",
        "libc asks for it in each thread once the kernel has granted it to the first",
    ),
    ("restart_syscall", "the kernel's own"),
    ("rt_sigprocmask", "it fails only for wrong arguments"),
    ("rt_sigreturn", "it cannot fail"),
    ("sched_yield", "it cannot fail"),
    (
        "timerfd_settime",
        "it fails only for wrong arguments, or on a clock that is not used here",
    ),
    ("uname", "it cannot fail"),
];

/// What cannot be survived: the process may end, immediately and without a wrong byte.
/// ARCHITECTURE.md has the same list.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        call: "mmap",
        error: "ENOMEM",
        phase: Phase::Start,
        says: &[NO_MEMORY, NO_STACK],
        why: OF_NO_STACK,
    },
    Exception {
        call: "mmap",
        error: "ENOMEM",
        phase: Phase::Running,
        says: &[NO_MEMORY],
        why: OF_NO_MEMORY,
    },
    Exception {
        call: "mprotect",
        error: "ENOMEM",
        phase: Phase::Start,
        says: &[NO_MEMORY, NO_STACK],
        why: "as `mmap` at the start",
    },
    Exception {
        call: "mprotect",
        error: "ENOMEM",
        phase: Phase::Running,
        says: &[NO_MEMORY],
        why: "musl's allocator makes its pages writable so: as `mmap`",
    },
];

const NO_MEMORY: &str = "memory allocation of";
const OF_NO_MEMORY: &str = "an allocation of the C library fails, and Rust's collections cannot report that: the process says how many bytes it \
    lacked and aborts. Where the failed call was to start a thread, it is survived";
/// std's thread, such as that of the log or of async-io, panics where nothing can catch it.
const NO_STACK: &str = "failed to initiate panic";
const OF_NO_STACK: &str = "as while it runs; or std, inside a thread that it has just started, has no stack for signal handlers, and \
    panics where nothing can catch it. Where the call was to start the thread, the start is refused";

pub struct Exception {
    pub call: &'static str,
    pub error: &'static str,
    pub phase: Phase,
    /// Its last words contain one of these. An end without them is not excepted.
    pub says: &'static [&'static str],
    pub why: &'static str,
}

pub fn call_named(name: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.name == name)
}

pub fn is_left_out(name: &str) -> bool {
    LEFT_OUT.iter().any(|(left_out, _)| *left_out == name)
}
