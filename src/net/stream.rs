//! A connected stream, TCP or Unix, that a task reads and writes, and that resets its peer unless it was finished.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use rustix::pipe::{SpliceFlags, splice};
use smol::io::{AsyncRead, AsyncWrite};
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
    finished: Cell<bool>,
    delay: Cell<Delay>,
    /// The keep-alive that it gets when it has aged.
    keepalive: Cell<Option<Keepalive>>,
    /// How it broke between being connected and anybody's knowing it. The kernel tells an error once.
    broke: Cell<Option<Errno>>,
}

/// What is known of Nagle's algorithm on a socket. It holds back a small segment only behind another that is under way, so that a
/// connection that sends once needs no TCP_NODELAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delay {
    /// Nothing has been sent.
    Unsent,
    /// The next bytes to send might be held back.
    Sent,
    /// It is switched off.
    Off,
}

/// The socket's family, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Unix,
}

/// How the kernel finds out that a silent peer has vanished: after a time of silence, [`Keepalive::PROBES`] probes, one every
/// [`Keepalive::INTERVAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    idle_seconds: u16,
}

impl Keepalive {
    /// Unanswered probes after which the peer is given up.
    pub const PROBES: u32 = 4;
    /// The time from one probe to the next.
    pub const INTERVAL: Duration = Duration::from_secs(15);
    /// From this time of silence on it may wait until a connection has proved to last.
    const LATER: Duration = Duration::from_secs(15);

    /// Probes begin after `idle`, which counts in whole seconds, from 1 to 32,767 of them (tcp(7)).
    #[must_use]
    pub fn after(idle: Duration) -> Self {
        let seconds = idle.as_secs().clamp(1, 32_767);
        Self {
            idle_seconds: seconds as u16,
        }
    }

    fn idle(self) -> Duration {
        Duration::from_secs(self.idle_seconds.into())
    }

    pub(super) fn apply(self, fd: impl AsFd) -> io::Result<()> {
        let keepalive = TcpKeepalive::new()
            .with_time(self.idle())
            .with_interval(Self::INTERVAL)
            .with_retries(Self::PROBES);
        SockRef::from(&fd).set_tcp_keepalive(&keepalive)
    }
}

const NEW_SOCKET: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

impl Stream {
    /// Takes over an accepted, non-blocking socket, which inherits TCP_NODELAY and keep-alive from its listener.
    pub(super) fn accepted(reactor: &Rc<Reactor>, fd: OwnedFd, kind: Kind) -> Self {
        // Trying costs no more than being told: most clients send at once.
        Self::new(reactor, fd, kind, Ready::READ | Ready::WRITE, Delay::Off)
    }

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
        let later = keepalive.filter(|keepalive| keepalive.idle() >= Keepalive::LATER);
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
        if later.is_some() {
            stream.keepalive.set(later);
            stream.source.tell_when_aged();
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

    fn new(reactor: &Rc<Reactor>, fd: OwnedFd, kind: Kind, ready: Ready, delay: Delay) -> Self {
        Self {
            source: Source::stream(reactor, fd, ready),
            kind,
            finished: Cell::new(false),
            delay: Cell::new(delay),
            keepalive: Cell::new(None),
            broke: Cell::new(None),
        }
    }

    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        self.source.reactor()
    }

    /// Ready when the connection that [`Stream::start_tcp`] began stands or has failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.source.poll_ready(cx, Ready::WRITE))?;
        let failed = Ready::ERROR | Ready::READ_CLOSED;
        let error = match self.source.ready().intersects(failed) {
            true => self.take_error(),
            // A failed connection is reported with EPOLLERR and EPOLLHUP: there is nothing to ask for.
            false => None,
        };
        match error {
            None => Poll::Ready(Ok(())),
            // A refusal is ECONNREFUSED. Only what has been connected is reset.
            Some(error @ (Errno::CONNRESET | Errno::PIPE)) => {
                self.broke.set(Some(error));
                Poll::Ready(Ok(()))
            }
            Some(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// How it broke right after it was connected.
    pub(super) fn take_broke(&self) -> Option<io::Error> {
        self.broke.take().map(Into::into)
    }

    /// Does what waits until a connection has proved to last. Its task is woken for it once.
    pub(super) fn upkeep(&self) {
        if self.source.is(Ready::AGED) {
            self.source.clear(Ready::AGED);
            if let Some(keepalive) = self.keepalive.take() {
                // It fails only where the connection has failed, which shows elsewhere.
                let _ = keepalive.apply(self);
            }
        }
    }

    /// Reads into `buffer`. 0 is the end of the stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::READ))?;
            if let Some(n) = self.try_recv(buffer)? {
                return Poll::Ready(Ok(n));
            }
        }
    }

    /// Reads what is there; `None` if nothing is.
    pub(super) fn try_recv(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        let ready = self.source.ready();
        if ready.contains(Ready::END) {
            return Ok(Some(0));
        }
        let received = retrying(|| net::recv(&self.source, &mut *buffer, RecvFlags::empty()));
        let Some((n, _)) = received? else {
            self.source.clear(Ready::READ);
            return Ok(None);
        };
        // A short read has taken all there was, unless it stopped at urgent data.
        if n < buffer.len() && !ready.contains(Ready::URGENT) {
            if !ready.contains(Ready::READ_CLOSED) {
                self.source.clear(Ready::READ);
            } else if !ready.contains(Ready::ERROR) && self.kind == Kind::Tcp {
                // The FIN had been there before, so that it comes next. (A reset closes, too, but is no end.)
                self.source.set(Ready::END);
            }
        }
        Ok(Some(n))
    }

    /// Writes as much of `bytes` as the kernel takes.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::WRITE))?;
            if let Some(n) = self.try_send(bytes)? {
                return Poll::Ready(Ok(n));
            }
        }
    }

    /// Writes what the kernel takes at once; `None` if nothing.
    pub(super) fn try_send(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        self.before_sending();
        let sent = retrying(|| net::send(&self.source, bytes, SendFlags::NOSIGNAL))?;
        match sent {
            // A short write has filled the buffer; room in it is the next edge (epoll(7)).
            Some(n) if n == bytes.len() => self.source.set(Ready::WRITE),
            _ => self.source.clear(Ready::WRITE),
        }
        if sent.is_some() && self.delay.get() == Delay::Unsent {
            self.delay.set(Delay::Sent);
        }
        Ok(sent)
    }

    /// Moves up to `n` bytes into an empty pipe. 0 is the end, or urgent data.
    pub(super) fn poll_splice_out(
        &self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        n: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::READ))?;
            // The pipe is empty, so that EAGAIN can only come from the socket. A short count may mean that the pipe's slots are full.
            match retrying(|| splice(&self.source, None, pipe, None, n, SPLICE))? {
                Some(n) => return Poll::Ready(Ok(n)),
                None => self.source.clear(Ready::READ),
            }
        }
    }

    /// Moves `n` bytes, which are all that is in it, out of a pipe, as far as the kernel takes them.
    ///
    /// Splicing into a broken connection raises SIGPIPE, which Rust's runtime ignores.
    pub(super) fn poll_splice_in(
        &self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        n: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::WRITE))?;
            self.before_sending();
            match retrying(|| splice(pipe, None, &self.source, None, n, SPLICE))? {
                Some(n) => return Poll::Ready(Ok(n)),
                None => self.source.clear(Ready::WRITE),
            }
        }
    }

    /// False once urgent data has come: splice(2) stops at it for ever, or says that the stream has ended.
    pub(super) fn can_splice(&self) -> bool {
        !self.source.is(Ready::URGENT)
    }

    fn before_sending(&self) {
        if self.delay.get() == Delay::Sent {
            self.delay.set(Delay::Off);
            // It cannot fail for a TCP socket.
            let _ = net::sockopt::set_tcp_nodelay(&self.source, true);
        }
    }

    /// Ready when there is room to write.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.poll_ready(cx, Ready::WRITE)
    }

    /// Ready when the connection has failed, even while nobody reads or writes.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Err(error) = ready!(self.source.poll_ready(cx, Ready::ERROR)) {
            return Poll::Ready(error);
        }
        match self.take_error() {
            Some(error) => Poll::Ready(error.into()),
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

    fn take_error(&self) -> Option<Errno> {
        match net::sockopt::socket_error(&self.source) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        }
    }
}

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Makes a call again while a signal interrupts it; `None` if it would block.
fn retrying<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<Option<T>, Errno> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// For codecs that stand on a stream. The relay does without.
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_recv(cx, buffer)
    }
}

/// Nothing is buffered here; closing is [`Stream::shutdown_write`].
impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
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
