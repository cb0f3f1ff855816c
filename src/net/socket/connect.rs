//! Opens connections to servers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use super::keepalive::Keepalive;
use super::stream::{Delay, Kind, Stream};
use crate::net::reactor::{Reactor, Ready};

const NEW_SOCKET: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

impl Stream {
    /// Starts to connect to `address`.
    ///
    /// [`Stream::poll_connected`] reports the outcome. Keep-alive of 15 s or more is set some
    /// seconds later, if the connection still lives: setting it costs four system calls, and most
    /// connections are short.
    ///
    /// # Errors
    /// The kernel's, if it fails immediately.
    pub fn start_tcp(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
        keepalive: Option<Keepalive>,
    ) -> io::Result<Self> {
        let fd = new_tcp(reactor, address)?;
        Self::connect_tcp(reactor, fd, address, keepalive)
    }

    /// Starts to connect a socket of [`new_tcp`].
    pub(super) fn connect_tcp(
        reactor: &Rc<Reactor>,
        fd: OwnedFd,
        address: SocketAddr,
        keepalive: Option<Keepalive>,
    ) -> io::Result<Self> {
        let later = keepalive.filter(|keepalive| keepalive.can_wait());
        if let Some(keepalive) = keepalive
            && later.is_none()
        {
            keepalive.apply(&fd)?;
        }
        match net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Nothing is ready until the kernel reports that it is connected.
        let stream = Self::new(reactor, fd, Kind::Tcp, Ready::NONE, Delay::Unsent);
        if let Some(keepalive) = later {
            stream.keep_alive_when_aged(keepalive);
        }
        Ok(stream)
    }

    /// Connects to the Unix socket at `path`.
    ///
    /// The kernel connects immediately or fails.
    ///
    /// # Errors
    /// The kernel's. `WouldBlock` if the listener's backlog is full.
    pub fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        let fd = connect_unix(path)?;
        let ready = Ready::READ | Ready::WRITE;
        Ok(Self::new(reactor, fd, Kind::Unix, ready, Delay::Off))
    }

    /// Waits until the connection started by [`Stream::start_tcp`] is established or has failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.source().poll_ready(cx, Ready::WRITE))?;
        let failed = Ready::ERROR | Ready::READ_CLOSED;
        let error = match self.source().ready().intersects(failed) {
            true => self.take_error(),
            // A failed connection reports EPOLLERR and EPOLLHUP. Without them there is no error to
            // fetch.
            false => None,
        };
        match error {
            None => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Ok(self.connected_if_reset(error)?)),
        }
    }

    /// Returns the address of our own end of a TCP connection.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        net::getsockname(self.source()).ok()?.try_into().ok()
    }

    /// Returns true if the connection is one with itself.
    ///
    /// Towards a port of this machine that nobody listens on, the kernel may choose that very port
    /// as our own; then the two ends meet (RFC 9293, section 3.5).
    pub(in crate::net) fn leads_to_itself(&self) -> bool {
        let own = net::getsockname(self.source()).ok();
        self.kind == Kind::Tcp && own == net::getpeername(self.source()).unwrap_or(None)
    }

    /// Returns true if the first send proves a connection: the peer's kernel accepted bytes or
    /// reset the connection.
    pub(super) fn is_connected_by(
        &self,
        sent: Result<Option<usize>, Errno>,
    ) -> Result<bool, Errno> {
        match sent {
            Ok(sent) => Ok(sent.is_some_and(|n| n > 0)),
            Err(error) => self.connected_if_reset(error).map(|()| true),
        }
    }

    /// Accepts an error that proves that the connection existed.
    ///
    /// A refusal is ECONNREFUSED. Only an established connection is reset, and bytes may have been
    /// sent before that.
    pub(super) fn connected_if_reset(&self, error: Errno) -> Result<(), Errno> {
        match error {
            Errno::CONNRESET | Errno::PIPE => {
                self.source().set(Ready::RESET);
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// Creates a socket for a connection to `address`.
pub(super) fn new_tcp(reactor: &Reactor, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let fd = net::socket_with(family, SocketType::STREAM, NEW_SOCKET, None)?;
    if let Some(allowance) = reactor.allowance() {
        // Before connecting, because an advertised window is never taken back.
        allowance.limit_received(&fd);
        allowance.limit_unsent(&fd);
    }
    Ok(fd)
}

pub(super) fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW_SOCKET, None)?;
    net::connect(&fd, &net::SocketAddrUnix::new(path)?)?;
    Ok(fd)
}
