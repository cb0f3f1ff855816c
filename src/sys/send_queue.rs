//! The bytes that a TCP peer has yet to acknowledge.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

/// Returns the bytes written to a TCP socket that its peer has not acknowledged (SIOCOUTQ, tcp(7)).
///
/// A FIN in flight counts as one byte. Returns `None` if the kernel does not report it, for example
/// because this is not a socket.
#[must_use]
pub fn unacknowledged(socket: impl AsFd) -> Option<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: TIOCOUTQ, another name for SIOCOUTQ, makes the kernel write one `int` to the given
    // address. The address is that of an `int` that outlives the call. The descriptor is borrowed
    // for the call.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    match answer {
        0 => usize::try_from(bytes).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::unacknowledged;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn bytes_beyond_the_peers_buffer_are_unacknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let mut sender = TcpStream::connect(address).expect("a connection");
        let (mut receiver, _) = listener.accept().expect("its other end");
        assert_eq!(unacknowledged(&sender), Some(0));
        sender.set_nonblocking(true).expect("non-blocking");
        let mut sent = 0;
        while let Ok(n) = sender.write(&[0; 65_536]) {
            sent += n;
        }
        assert!(unacknowledged(&sender).is_some_and(|bytes| bytes > 0 && bytes < sent));
        let mut all = vec![0; sent];
        receiver.read_exact(&mut all).expect("all of it");
        while unacknowledged(&sender) != Some(0) {
            std::thread::yield_now();
        }
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert_eq!(unacknowledged(file), None);
    }
}
