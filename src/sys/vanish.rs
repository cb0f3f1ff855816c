//! Ends a TCP connection without telling its peer.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Makes the kernel send nothing when the socket is closed (TCP_REPAIR, `tcp_disconnect` in
/// net/ipv4/tcp.c). If the peer sends something later, it gets a reset.
///
/// # Errors
/// Needs CAP_NET_ADMIN, and Linux 3.5. Nothing has changed then.
pub fn close_in_silence(socket: impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: TCP_REPAIR makes the kernel read one `int` at the given address, which is that of an
    // `int` that outlives the call. The descriptor is borrowed for the call.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
