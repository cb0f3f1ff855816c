//! A connected stream, TCP or Unix, that a task reads and writes, and that resets its peer unless it was finished.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, Shutdown};
use rustix::pipe::{SpliceFlags, splice};
use smol::io::{AsyncRead, AsyncWrite};

use super::keepalive::Keepalive;
use crate::net::reactor::{Reactor, Ready, Source};
use crate::sys;

/// A stream socket. Until [`Stream::finish`] says that all was passed on, dropping it resets the connection, so that no cut
/// looks like an end. (A Unix socket has no reset; its peer sees the end.)
#[derive(Debug)]
pub struct Stream {
    source: Source,
    pub(super) kind: Kind,
    finished: Cell<bool>,
    delay: Cell<Delay>,
    /// The keep-alive that it gets when it has aged.
    keepalive: Cell<Option<Keepalive>>,
    /// KiB that have passed, as far as it matters ([`Stream::passed`]).
    pub(super) passed_kib: Cell<u8>,
}

/// What is known of Nagle's algorithm on a socket. It holds back a small segment only behind another that is under way, so that a
/// connection that sends once needs no TCP_NODELAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delay {
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

impl Stream {
    /// Takes over an accepted, non-blocking socket, which inherits TCP_NODELAY and keep-alive from its listener.
    pub(super) fn accepted(reactor: &Rc<Reactor>, fd: OwnedFd, kind: Kind) -> Self {
        // Trying costs no more than being told: most clients send at once.
        Self::new(reactor, fd, kind, Ready::READ | Ready::WRITE, Delay::Off)
    }

    pub(super) fn new(
        reactor: &Rc<Reactor>,
        fd: OwnedFd,
        kind: Kind,
        ready: Ready,
        delay: Delay,
    ) -> Self {
        Self {
            source: Source::stream(reactor, fd, ready),
            kind,
            finished: Cell::new(false),
            delay: Cell::new(delay),
            keepalive: Cell::new(None),
            passed_kib: Cell::new(0),
        }
    }

    pub(in crate::net) fn reactor(&self) -> &Rc<Reactor> {
        self.source.reactor()
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn keep_alive_when_aged(&self, keepalive: Keepalive) {
        self.keepalive.set(Some(keepalive));
        self.source.tell_when_aged();
    }

    /// True if the peer has reset it right after it was connected.
    pub(in crate::net) fn was_reset(&self) -> bool {
        self.source.is(Ready::RESET)
    }

    /// Has its task woken once, some seconds from now, for [`Stream::upkeep`].
    pub(in crate::net) fn tell_when_aged(&self) {
        self.source.tell_when_aged();
    }

    /// Does what waits until a connection has proved to last. True if its task was woken for that.
    pub(in crate::net) fn upkeep(&self) -> bool {
        let has_aged = self.source.is(Ready::AGED);
        if has_aged {
            self.source.clear(Ready::AGED);
            if let Some(keepalive) = self.keepalive.take() {
                // It fails only where the connection has failed, which shows elsewhere.
                let _ = keepalive.apply(self);
            }
        }
        has_aged
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

    /// Reads what is there; `None` if nothing is, or was when last asked and no event has come since.
    pub(in crate::net) fn try_recv(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        let ready = self.source.ready();
        if ready.contains(Ready::END) {
            return Ok(Some(0));
        }
        if !ready.contains(Ready::READ) {
            return Ok(None);
        }
        let most = self.piece(buffer.len());
        let buffer = &mut buffer[..most];
        let received = retrying(|| net::recv(&self.source, &mut *buffer, RecvFlags::empty()));
        let Some((n, _)) = received? else {
            self.source.clear(Ready::READ);
            return Ok(None);
        };
        self.passed(n);
        // A short read of a TCP stream has taken all there was, unless it stopped at urgent data. One of a Unix stream may have stopped
        // behind a message that came with descriptors (unix(7)), so there only EAGAIN tells.
        if n < buffer.len() && self.kind == Kind::Tcp && !ready.contains(Ready::URGENT) {
            if !ready.contains(Ready::READ_CLOSED) {
                self.source.clear(Ready::READ);
            } else if !ready.contains(Ready::ERROR) {
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

    /// Writes what the kernel takes at once; `None` if nothing, or if it was full and has told of no room since.
    pub(in crate::net) fn try_send(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        match self.is_writable() {
            true => self.send_at_once(bytes),
            false => Ok(None),
        }
    }

    /// Like [`Stream::try_send`], but asks the kernel in any case, which has perhaps connected it already.
    pub(super) fn send_at_once(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        let bytes = &bytes[..self.piece(bytes.len())];
        self.before_sending();
        let flags = SendFlags::NOSIGNAL | self.keeping_apart(bytes);
        let sent = retrying(|| net::send(&self.source, bytes, flags))?;
        match sent {
            // A short write has filled the buffer; room in it is the next edge (epoll(7)).
            Some(n) if n == bytes.len() => self.source.set(Ready::WRITE),
            _ => self.source.clear(Ready::WRITE),
        }
        self.passed(sent.unwrap_or(0));
        if sent.is_some() && self.delay.get() == Delay::Unsent {
            self.delay.set(Delay::Sent);
        }
        Ok(sent)
    }

    /// Moves up to `n` bytes into an empty pipe; `None` if there are none. 0 is the end, or urgent data.
    pub(in crate::net) fn try_splice_out(
        &self,
        pipe: BorrowedFd<'_>,
        n: usize,
    ) -> Result<Option<usize>, Errno> {
        if !self.source.is(Ready::READ) {
            return Ok(None);
        }
        // The pipe is empty, so that EAGAIN can only come from the socket. A short count may mean that the pipe's slots are full.
        let spliced = retrying(|| splice(&self.source, None, pipe, None, n, SPLICE))?;
        match spliced {
            Some(n) => self.passed(n),
            None => self.source.clear(Ready::READ),
        }
        Ok(spliced)
    }

    /// Moves `n` bytes, which are all that is in it, out of a pipe, as far as the kernel takes them; `None` if it takes none.
    ///
    /// Splicing into a broken connection raises SIGPIPE, which Rust's runtime ignores.
    pub(in crate::net) fn try_splice_in(
        &self,
        pipe: BorrowedFd<'_>,
        n: usize,
    ) -> Result<Option<usize>, Errno> {
        if !self.is_writable() {
            return Ok(None);
        }
        self.before_sending();
        let spliced = retrying(|| splice(pipe, None, &self.source, None, n, SPLICE))?;
        match spliced {
            Some(n) => self.passed(n),
            None => self.source.clear(Ready::WRITE),
        }
        Ok(spliced)
    }

    /// False once urgent data has come: splice(2) stops at it for ever, or says that the stream has ended.
    pub(in crate::net) fn can_splice(&self) -> bool {
        !self.source.is(Ready::URGENT)
    }

    fn before_sending(&self) {
        if self.delay.get() == Delay::Sent {
            self.delay.set(Delay::Off);
            // It cannot fail for a TCP socket.
            let _ = net::sockopt::set_tcp_nodelay(&self.source, true);
        }
    }

    /// Has reads ask the kernel, whatever is known, until it says that nothing is there.
    pub(in crate::net) fn look_again(&self) {
        // As after the event of a failure: a short read then clears nothing.
        self.source
            .set(Ready::READ | Ready::READ_CLOSED | Ready::ERROR);
    }

    /// True if a peer that receives no more may still send: a Unix socket can be shut down for reading alone. A TCP connection that
    /// cannot be sent to is gone in both directions.
    pub(in crate::net) fn breaks_one_way(&self) -> bool {
        self.kind == Kind::Unix
    }

    /// How many of the bytes sent the peer has not acknowledged, as far as the kernel says. What a Unix socket has taken is its peer's.
    pub(in crate::net) fn unacknowledged(&self) -> usize {
        match self.kind {
            Kind::Tcp => sys::send_queue::unacknowledged(&self.source).unwrap_or(0),
            Kind::Unix => 0,
        }
    }

    /// False once all was read, until there is more, or the end.
    pub(in crate::net) fn is_readable(&self) -> bool {
        self.source.ready().intersects(Ready::READ | Ready::END)
    }

    /// False once the kernel's buffer was full, until it has room again.
    pub(in crate::net) fn is_writable(&self) -> bool {
        self.source.is(Ready::WRITE)
    }

    /// How many bytes the kernel has room for, as far as it says.
    pub(in crate::net) fn room(&self) -> Option<usize> {
        sys::send_buffer::room(&self.source)
    }

    /// Has the task woken by the next event; by room to write only if that is asked for.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub(in crate::net) fn wait(&self, cx: &mut Context<'_>, room: bool) -> io::Result<()> {
        self.source.wait(cx, room)
    }

    /// Why the connection has failed, once; nobody has to read or write for it.
    pub(in crate::net) fn failure(&self) -> Option<Errno> {
        if !self.source.is(Ready::ERROR) {
            return None;
        }
        let error = self.take_error();
        if error.is_none() {
            // A read or a write has already reported it.
            self.source.clear(Ready::ERROR);
        }
        error
    }

    /// Ready when the connection has failed, even while nobody reads or writes.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(error) = self.failure() {
            return Poll::Ready(error.into());
        }
        match self.wait(cx, false) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
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

    pub(super) fn take_error(&self) -> Option<Errno> {
        match net::sockopt::socket_error(&self.source) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        }
    }
}

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Makes a call again while a signal interrupts it; `None` if it would block.
pub(super) fn retrying<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<Option<T>, Errno> {
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

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.kind == Kind::Tcp && !self.finished.get() {
            // With a linger time of 0 closing sends a reset (tcp(7)). Where a sandbox or a fault forbids that, dissolving the connection
            // sends one too (connect(2), AF_UNSPEC).
            if net::sockopt::set_socket_linger(&self.source, Some(Duration::ZERO)).is_err() {
                let _ = net::connect_unspec(&self.source);
            }
        }
    }
}
