//! Socket options that no library here has.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets how many clients that connect by TCP Fast Open may wait for the end of the handshake
/// (TCP_FASTOPEN, tcp(7)); 0 for none. The socket may listen already.
///
/// # Errors
/// The kernel's. `ENOPROTOOPT` before Linux 3.7.
pub fn set_tcp_fast_open(socket: BorrowedFd<'_>, waiting: c_int) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, waiting)
}

/// Has the kernel choose a port only when the socket connects, so that one port serves for many
/// peers (IP_BIND_ADDRESS_NO_PORT, ip(7)). For both families.
///
/// # Errors
/// The kernel's. `ENOPROTOOPT` before Linux 4.2.
pub fn set_bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or_default();
    // SAFETY: The kernel reads `bytes` bytes from the given address, which is that of an `int` of
    // that size that outlives the call. The descriptor is borrowed for the call.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            bytes,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
