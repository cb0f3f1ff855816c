//! How a stream to a server comes about.

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
    /// Starts to connect to `address`. [`Stream::poll_connected`] says how it ends. Keep-alive of 15 s or more is set some seconds
    /// later, if the connection still lives: it costs four calls, and most are short.
    ///
    /// # Errors
    /// The kernel's, where it knows at once.
    pub fn start_tcp(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
        keepalive: Option<Keepalive>,
    ) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let fd = net::socket_with(family, SocketType::STREAM, NEW_SOCKET, None)?;
        if let Some(allowance) = reactor.allowance() {
            // Before it connects: a window that was offered is not taken back.
            allowance.limit_received(&fd);
            allowance.limit_unsent(&fd);
        }
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
        // Nothing is ready until the kernel says that it is connected.
        let stream = Self::new(reactor, fd, Kind::Tcp, Ready::NONE, Delay::Unsent);
        if let Some(keepalive) = later {
            stream.keep_alive_when_aged(keepalive);
        }
        Ok(stream)
    }

    /// Connects to the Unix socket at `path`, which the kernel does at once or not at all.
    ///
    /// # Errors
    /// The kernel's: `WouldBlock` when the listener's backlog is full.
    pub fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        let fd = connect_unix(path)?;
        let ready = Ready::READ | Ready::WRITE;
        Ok(Self::new(reactor, fd, Kind::Unix, ready, Delay::Off))
    }

    /// Ready when the connection that [`Stream::start_tcp`] began stands or has failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.source().poll_ready(cx, Ready::WRITE))?;
        let failed = Ready::ERROR | Ready::READ_CLOSED;
        let error = match self.source().ready().intersects(failed) {
            true => self.take_error(),
            // A failed connection is reported with EPOLLERR and EPOLLHUP: there is nothing to ask for.
            false => None,
        };
        match error {
            None => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Ok(self.connected_if_reset(error)?)),
        }
    }

    /// Whether a first send shows that it is connected: because the peer's kernel has taken bytes, or because it has reset it.
    pub(super) fn is_connected_by(
        &self,
        sent: Result<Option<usize>, Errno>,
    ) -> Result<bool, Errno> {
        match sent {
            Ok(sent) => Ok(sent.is_some_and(|n| n > 0)),
            Err(error) => self.connected_if_reset(error).map(|()| true),
        }
    }

    /// A refusal is ECONNREFUSED. Only what has been connected is reset, and may have been sent something before.
    fn connected_if_reset(&self, error: Errno) -> Result<(), Errno> {
        match error {
            Errno::CONNRESET | Errno::PIPE => {
                self.source().set(Ready::RESET);
                Ok(())
            }
            error => Err(error),
        }
    }
}

pub(super) fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW_SOCKET, None)?;
    net::connect(&fd, &net::SocketAddrUnix::new(path)?)?;
    Ok(fd)
}
