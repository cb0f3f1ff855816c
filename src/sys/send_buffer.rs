//! The free space in a TCP socket's send buffer.

use std::os::fd::{AsFd, AsRawFd};

/// Indexes of the words of `SO_MEMINFO` (`include/uapi/linux/sock_diag.h` in the kernel), and their
/// count up to the last one read here.
const SNDBUF: usize = 3;
const WMEM_QUEUED: usize = 5;
const WORDS: usize = 6;

/// Returns the room in the send buffer, in bytes of payload: its size (SO_SNDBUF, which the kernel
/// adapts) minus what is queued.
///
/// The kernel also charges its own structures to the buffer, a few hundred bytes for each piece of
/// up to 64 KiB, so a sixteenth is left for them.
///
/// Returns `None` if the kernel does not report it (before Linux 4.12, or if this is not a socket).
#[must_use]
pub fn room(socket: impl AsFd) -> Option<usize> {
    let mut words = [0_u32; WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, which is that long and valid for
    // any bits, and the number of bytes written to `length`. Both outlive the call, and the
    // descriptor is borrowed for it.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if answer != 0 || (length as usize) < size_of_val(&words) {
        return None;
    }
    let free = words[SNDBUF].saturating_sub(words[WMEM_QUEUED]) as usize;
    Some(free - free / 16)
}

#[cfg(test)]
mod tests {
    use super::room;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn room_matches_what_the_kernel_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut sender = TcpStream::connect(address).expect("a connection");
        sender.set_nonblocking(true).expect("non-blocking");
        let all = room(&sender).expect("the room of a new socket");
        assert!(all > 0);
        // Nothing reads, so the buffer fills up.
        while sender.write(&[0; 65_536]).is_ok() {}
        let left = room(&sender).expect("the room of a full socket");
        assert!(left < 65_536, "{left} bytes reported free");
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert_eq!(room(file), None);
    }
}
