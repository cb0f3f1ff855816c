//! Listening sockets opened by an earlier process or the service manager, matched to addresses.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::net::{SocketAddrUnix, SocketType, getsockname, ipproto, sockopt};
use socket2::SockRef;

use super::listener::TcpOptions;
use crate::sys::inherited::{self, Descriptor};

/// The sockets that this process was started with and has not used yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Descriptor>,
}

impl Inherited {
    /// Takes the sockets of this process.
    ///
    /// They can be taken once. Call this before opening anything else.
    #[must_use]
    pub fn take() -> Self {
        let sockets = inherited::take();
        Self { sockets }
    }

    /// Returns true if no sockets are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Takes the socket that listens on this TCP address with these options.
    pub fn tcp(&mut self, address: SocketAddr, options: &TcpOptions) -> Option<Descriptor> {
        self.first(|fd| is_tcp(fd, address, options).unwrap_or(false))
    }

    /// Takes the Unix stream socket bound to `path`.
    pub fn unix(&mut self, path: &Path) -> Option<Descriptor> {
        self.first(|fd| is_unix(fd, path).unwrap_or(false))
    }

    /// Closes the remaining sockets and returns each one's address and the manager's name for it.
    pub fn close(&mut self) -> Vec<(String, String)> {
        let left = self.sockets.drain(..);
        left.map(|it| (address(&it.fd), it.name)).collect()
    }

    fn first(&mut self, fits: impl Fn(&OwnedFd) -> bool) -> Option<Descriptor> {
        let position = self.sockets.iter().position(|it| fits(&it.fd))?;
        Some(self.sockets.remove(position))
    }
}

/// Returns `None` if the kernel does not answer, because it is another kind of socket.
fn is_tcp(fd: &OwnedFd, wanted: SocketAddr, options: &TcpOptions) -> Option<bool> {
    let bound = SocketAddr::try_from(getsockname(fd).ok()?).ok()?;
    let is_wildcard = bound.is_ipv6() && bound.ip().is_unspecified();
    Some(
        bound == wanted
            && sockopt::socket_type(fd).ok()? == SocketType::STREAM
            && sockopt::socket_protocol(fd).ok()? == Some(ipproto::TCP)
            && sockopt::socket_reuseport(fd).ok()? == options.reuse_port
            && interface(fd) == options.interface
            && (!is_wildcard || sockopt::ipv6_v6only(fd).ok()? == options.v6only),
    )
}

/// Returns the interface that a socket is bound to.
fn interface(fd: &OwnedFd) -> Option<String> {
    let name = SockRef::from(fd).device().ok().flatten()?;
    String::from_utf8(name).ok()
}

fn is_unix(fd: &OwnedFd, wanted: &Path) -> Option<bool> {
    let is_stream = sockopt::socket_type(fd).ok()? == SocketType::STREAM;
    Some(is_stream && path(fd)? == wanted)
}

/// Returns the path that a Unix socket is bound to.
fn path(fd: &OwnedFd) -> Option<PathBuf> {
    let bound = SocketAddrUnix::try_from(getsockname(fd).ok()?).ok()?;
    Some(OsStr::from_bytes(bound.path_bytes()?).into())
}

/// Returns a socket's address for display.
fn address(fd: &OwnedFd) -> String {
    if let Some(path) = path(fd) {
        return format!("unix:{}", path.display());
    }
    let address = getsockname(fd).and_then(SocketAddr::try_from);
    address.map_or("no address".to_owned(), |address| address.to_string())
}
