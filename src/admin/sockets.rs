//! The sockets that clients connect to: a TCP socket for questions, and a Unix socket that also
//! takes orders.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::sys::peer::Peer;

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Tcp,
    Control,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Ask questions, if its request is for a host that the endpoint answers to.
    Read,
    /// Ask questions and give orders.
    Command,
    /// Nothing.
    Nothing,
}

/// An accepted client.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The listening sockets.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub tcp: Option<TcpListener>,
    pub control: Option<Control>,
}

impl Listeners {
    /// Returns the address of the TCP socket.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Returns the socket of this door, to wait for.
    pub(super) fn fd(&self, door: Door) -> Option<BorrowedFd<'_>> {
        match door {
            Door::Tcp => self.tcp.as_ref().map(AsFd::as_fd),
            Door::Control => self.control.as_ref().map(|it| it.listener.as_fd()),
        }
    }

    /// Accepts a client and returns what it may do. Fails with `WouldBlock` if there is none.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) fn accept(&self, door: Door) -> io::Result<(Accepted, Access)> {
        match (door, &self.tcp, &self.control) {
            (Door::Tcp, Some(tcp), _) => {
                let (stream, _) = tcp.accept()?;
                Ok((Accepted::Tcp(stream), Access::Read))
            }
            (Door::Control, _, Some(control)) => {
                let (stream, _) = control.listener.accept()?;
                let access = control.access_of(&stream);
                Ok((Accepted::Unix(stream), access))
            }
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// The listening control socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Takes a listening Unix socket that is bound to a path.
    ///
    /// # Errors
    /// `InvalidInput` if it has no path, and those of fcntl(2).
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
        let path = path.to_owned();
        Ok(Self { listener, path })
    }

    /// Creates another handle to the same socket and its backlog.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let listener = self.listener.try_clone()?;
        let path = self.path.clone();
        Ok(Self { listener, path })
    }

    /// Returns the socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what a client of the control socket may do. Root, the user of this process, and
    /// members of the group of the socket's file may give orders. Other users can connect only if
    /// the file's mode has been changed to let them in.
    fn access_of(&self, client: &UnixStream) -> Access {
        let Ok(peer) = Peer::of(client) else {
            return Access::Nothing;
        };
        let own = rustix::process::geteuid().as_raw();
        // Looked up each time, since the file's group can change while the socket is open.
        let group = fs::symlink_metadata(&self.path).map(|file| file.gid());
        match peer.uid == 0 || peer.uid == own || group.is_ok_and(|group| peer.is_in(group)) {
            true => Access::Command,
            false => Access::Nothing,
        }
    }
}
