//! A connected stream, TCP or Unix, that a task reads and writes, and that resets its peer unless it was finished.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use socket2::{SockRef, TcpKeepalive};

use super::reactor::Reactor;
use super::ready::Ready;
use super::source::Source;

/// A stream socket. Until [`Stream::finish`] says that all was passed on, dropping it resets the connection, so that no cut
/// looks like an end. (A Unix socket has no reset; its peer sees the end.)
#[derive(Debug)]
pub struct Stream {
    source: Source,
    kind: Kind,
    finished: std::cell::Cell<bool>,
}

/// The socket's family, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Unix,
}

/// How the kernel finds out that a silent peer has vanished: after `idle`, [`Keepalive::PROBES`] probes, one every
/// [`Keepalive::INTERVAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long the connection is silent before the first probe.
    pub idle: Duration,
}

impl Keepalive {
    /// Unanswered probes after which the peer is given up.
    pub const PROBES: u32 = 4;
    /// The time from one probe to the next.
    pub const INTERVAL: Duration = Duration::from_secs(15);

    pub(super) fn apply(self, fd: impl AsFd) -> io::Result<()> {
        let keepalive = TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(Self::INTERVAL)
            .with_retries(Self::PROBES);
        SockRef::from(&fd).set_tcp_keepalive(&keepalive)
    }
}

const NEW_SOCKET: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

impl Stream {
    /// Takes over an accepted, non-blocking socket.
    pub(super) fn accepted(reactor: &Rc<Reactor>, fd: OwnedFd, kind: Kind) -> io::Result<Self> {
        // Trying costs no more than being told: most clients send at once.
        Self::new(reactor, fd, kind, Ready::READ | Ready::WRITE)
    }

    /// Starts to connect to `address`. [`Stream::poll_connected`] says how it ends.
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
        net::sockopt::set_tcp_nodelay(&fd, true)?;
        if let Some(keepalive) = keepalive {
            keepalive.apply(&fd)?;
        }
        match net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Nothing is ready until the kernel says that it is connected.
        Self::new(reactor, fd, Kind::Tcp, Ready::NONE)
    }

    /// Connects to the Unix socket at `path`, which the kernel does at once or not at all.
    ///
    /// # Errors
    /// The kernel's: `WouldBlock` when the listener's backlog is full.
    pub fn connect_unix(reactor: &Rc<Reactor>, path: &Path) -> io::Result<Self> {
        let fd = connect_unix(path)?;
        Self::new(reactor, fd, Kind::Unix, Ready::READ | Ready::WRITE)
    }

    fn new(reactor: &Rc<Reactor>, fd: OwnedFd, kind: Kind, ready: Ready) -> io::Result<Self> {
        Ok(Self {
            source: Source::stream(reactor, fd, ready)?,
            kind,
            finished: std::cell::Cell::new(false),
        })
    }

    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        self.source.reactor()
    }

    /// Ready when the connection that [`Stream::start_tcp`] began stands or has failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.source.poll_ready(cx, Ready::WRITE));
        Poll::Ready(match self.take_error() {
            None => Ok(()),
            Some(error) => Err(error),
        })
    }

    /// Reads into `buffer`. 0 is the end of the stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::READ));
            match net::recv(&self.source, &mut *buffer, RecvFlags::empty()) {
                Ok((n, _)) => {
                    // A short read has taken all there was, unless the end of the stream waits behind it.
                    if n < buffer.len() && !self.source.is(Ready::READ_CLOSED) {
                        self.source.clear(Ready::READ);
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(Errno::AGAIN) => self.source.clear(Ready::READ),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes as much of `bytes` as the kernel takes.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::WRITE));
            match net::send(&self.source, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    // A short write has filled the buffer; room in it is the next edge (epoll(7)).
                    if n < bytes.len() {
                        self.source.clear(Ready::WRITE);
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(Errno::AGAIN) => self.source.clear(Ready::WRITE),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Ready when the connection has failed, even while nobody reads or writes.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.source.poll_ready(cx, Ready::ERROR));
        match self.take_error() {
            Some(error) => Poll::Ready(error),
            None => {
                // A read or a write has already reported it.
                self.source.clear(Ready::ERROR);
                let _ = self.source.poll_ready(cx, Ready::ERROR);
                Poll::Pending
            }
        }
    }

    /// Tells the peer that no more will be sent.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(net::shutdown(&self.source, Shutdown::Write)?)
    }

    /// Notes that all was passed on: dropping the stream now closes it in the ordinary way.
    pub fn finish(&self) {
        self.finished.set(true);
    }

    fn take_error(&self) -> Option<io::Error> {
        match net::sockopt::socket_error(&self.source) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error.into()),
        }
    }
}

pub(super) fn connect_unix(path: &Path) -> Result<OwnedFd, Errno> {
    let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW_SOCKET, None)?;
    net::connect(&fd, &net::SocketAddrUnix::new(path)?)?;
    Ok(fd)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.kind == Kind::Tcp && !self.finished.get() {
            // With a linger time of 0 closing sends a reset (tcp(7)). It fails only for what is no socket.
            let _ = net::sockopt::set_socket_linger(&self.source, Some(Duration::ZERO));
        }
    }
}
