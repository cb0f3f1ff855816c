//! Identifies the process at the other end of a Unix socket.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The user and groups of a process when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The effective user.
    pub uid: u32,
    gid: u32,
    supplementary: Vec<u32>,
}

impl Peer {
    /// Returns the process that connected to `socket` (SO_PEERCRED, SO_PEERGROUPS: unix(7)).
    ///
    /// Before Linux 4.13 the supplementary groups are unknown and treated as empty.
    ///
    /// # Errors
    /// If `socket` is not a connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd();
        // A `struct ucred`: process, user, group. Not read as a type with a nonzero process number,
        // because the number is 0 for a process of another PID namespace.
        let [_, uid, gid] = words(socket, libc::SO_PEERCRED, 3)?[..] else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Self {
            uid,
            gid,
            supplementary: groups(socket),
        })
    }

    /// Returns true if the process is a member of this group.
    #[must_use]
    pub fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.supplementary.contains(&group)
    }
}

fn groups(socket: BorrowedFd<'_>) -> Vec<u32> {
    /// More groups than most users have.
    const MOST: usize = 64;
    /// NGROUPS_MAX: getgroups(2).
    const LIMIT: usize = 65_536;
    let groups = match words(socket, libc::SO_PEERGROUPS, MOST) {
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
            words(socket, libc::SO_PEERGROUPS, LIMIT)
        }
        groups => groups,
    };
    groups.unwrap_or_default()
}

/// Reads a socket option whose value is at most `most` 32-bit words.
fn words(socket: BorrowedFd<'_>, option: c_int, most: usize) -> io::Result<Vec<u32>> {
    let mut words = vec![0_u32; most];
    let mut length = size_of_val(&words[..]) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, which is that long and valid for
    // any bits, and the number of bytes written to `length`. Both outlive the call, and the
    // descriptor is borrowed for it.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            words.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    words.truncate(length as usize / size_of::<u32>());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::process::{getegid, geteuid, getgroups};

    use super::*;

    #[test]
    fn peer_of_socket_pair_is_this_process() {
        let (socket, _other) = UnixStream::pair().expect("a pair");
        let peer = Peer::of(&socket).expect("its peer");
        assert_eq!(peer.uid, geteuid().as_raw());
        assert!(peer.is_in(getegid().as_raw()));
        let groups = getgroups().expect("the groups of this process");
        assert!(groups.iter().all(|group| peer.is_in(group.as_raw())));
        assert!(!peer.is_in(4_242_424));
    }

    #[test]
    fn non_socket_has_no_peer() {
        let file = std::fs::File::open("/dev/null").expect("a file");
        assert!(Peer::of(&file).is_err());
    }
}
