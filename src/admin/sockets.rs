//! The sockets that clients connect to: a TCP socket for questions, and a Unix socket that also
//! takes orders.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
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

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// One at this address. It may ask questions, if its request is for a host that the endpoint
    /// answers to, and give orders if it has the token.
    Tcp(IpAddr),
    /// A user of the control socket who may ask questions and give orders.
    Control,
    /// Another user of the control socket, who may do nothing.
    Stranger,
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

    /// Accepts a client and returns who it is. Fails with `WouldBlock` if there is none.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) fn accept(&self, door: Door) -> io::Result<(Accepted, Caller)> {
        match (door, &self.tcp, &self.control) {
            (Door::Tcp, Some(tcp), _) => {
                let (stream, peer) = tcp.accept()?;
                Ok((Accepted::Tcp(stream), Caller::Tcp(peer.ip())))
            }
            (Door::Control, _, Some(control)) => {
                let (stream, _) = control.listener.accept()?;
                let caller = control.caller(&stream);
                Ok((Accepted::Unix(stream), caller))
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

    /// Returns who a client of the control socket is. Root, the user of this process, and
    /// members of the group of the socket's file may give orders. Other users can connect only if
    /// the file's mode has been changed to let them in.
    fn caller(&self, client: &UnixStream) -> Caller {
        let Ok(peer) = Peer::of(client) else {
            return Caller::Stranger;
        };
        let own = rustix::process::geteuid().as_raw();
        // Looked up each time, since the file's group can change while the socket is open.
        let group = fs::symlink_metadata(&self.path).map(|file| file.gid());
        match peer.uid == 0 || peer.uid == own || group.is_ok_and(|group| peer.is_in(group)) {
            true => Caller::Control,
            false => Caller::Stranger,
        }
    }
}
