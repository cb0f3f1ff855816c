//! A connected TCP or Unix stream that resets its peer on drop unless it was finished.

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

/// A stream socket.
///
/// Dropping it resets the connection unless [`Stream::finish`] was called, so that an interrupted
/// transfer never looks complete. A Unix socket has no reset; its peer sees the end of the stream.
#[derive(Debug)]
pub struct Stream {
    source: Source,
    pub(super) kind: Kind,
    finished: Cell<bool>,
    delay: Cell<Delay>,
    /// The keep-alive setting to apply once the stream has aged.
    keepalive: Cell<Option<Keepalive>>,
    /// KiB passed so far, capped ([`Stream::passed`]).
    pub(super) passed_kib: Cell<u8>,
}

/// The state of Nagle's algorithm on a socket.
///
/// It delays a small segment only if another is in flight, so a connection that sends once needs no
/// TCP_NODELAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delay {
    /// Nothing was sent yet.
    Unsent,
    /// The next bytes could be delayed.
    Sent,
    /// Nagle's algorithm is disabled.
    Off,
}

/// The kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Unix,
}

impl Stream {
    /// Takes over an accepted, non-blocking socket, which inherits TCP_NODELAY and keep-alive from
    /// its listener.
    pub(super) fn accepted(reactor: &Rc<Reactor>, fd: OwnedFd, kind: Kind) -> Self {
        // Trying a read costs no more than an event: most clients send immediately.
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

    /// Returns true if the peer reset the connection right after it was established.
    pub(in crate::net) fn was_reset(&self) -> bool {
        self.source.is(Ready::RESET)
    }

    /// Wakes the stream's task once, some seconds from now, for [`Stream::upkeep`].
    pub(in crate::net) fn tell_when_aged(&self) {
        self.source.tell_when_aged();
    }

    /// Does the work deferred until a connection turns out to last.
    ///
    /// Returns true if the task was woken for that.
    pub(in crate::net) fn upkeep(&self) -> bool {
        let has_aged = self.source.is(Ready::AGED);
        if has_aged {
            self.source.clear(Ready::AGED);
            if let Some(keepalive) = self.keepalive.take() {
                // This fails only if the connection has failed, which is reported elsewhere.
                let _ = keepalive.apply(self);
            }
        }
        has_aged
    }

    /// Reads into `buffer`.
    ///
    /// Returns 0 at the end of the stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::READ))?;
            if let Some(n) = self.try_recv(buffer)? {
                return Poll::Ready(Ok(n));
            }
        }
    }

    /// Reads what is available.
    ///
    /// Returns `None` if nothing is, or if nothing was at the last attempt and no event has arrived
    /// since.
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
        // A short TCP read means that the buffer is empty, unless it stopped at urgent data. A
        // short Unix read may have stopped behind a message with descriptors (unix(7)), so only
        // EAGAIN is reliable.
        if n < buffer.len() && self.kind == Kind::Tcp && !ready.contains(Ready::URGENT) {
            if !ready.contains(Ready::READ_CLOSED) {
                self.source.clear(Ready::READ);
            } else if !ready.contains(Ready::ERROR) {
                // The FIN arrived before this read, so it comes next. A reset also closes the
                // stream but is not an end.
                self.source.set(Ready::END);
            }
        }
        Ok(Some(n))
    }

    /// Returns true if the peer has finished and nothing is left to read. Reads nothing.
    pub(super) fn is_at_end(&self) -> bool {
        let ready = self.source.ready();
        if !ready.contains(Ready::READ_CLOSED) {
            return ready.contains(Ready::END);
        }
        // A reset also closes the stream. Reading would take the error, which the kernel reports
        // once, from whoever waits for it.
        if ready.contains(Ready::ERROR) {
            return false;
        }
        let peeked = retrying(|| net::recv(&self.source, &mut [0; 1], RecvFlags::PEEK));
        matches!(peeked, Ok(Some((0, _))))
    }

    /// Writes as much of `bytes` as the kernel accepts.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_ready(cx, Ready::WRITE))?;
            if let Some(n) = self.try_send(bytes)? {
                return Poll::Ready(Ok(n));
            }
        }
    }

    /// Waits until the kernel has room for more bytes.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.source.poll_ready(cx, Ready::WRITE)
    }

    /// Writes what the kernel accepts immediately.
    ///
    /// Returns `None` if it accepts nothing, or if the buffer was full and no event has reported
    /// room since.
    pub(in crate::net) fn try_send(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        match self.is_writable() {
            true => self.send_at_once(bytes),
            false => Ok(None),
        }
    }

    /// Like [`Stream::try_send`], but always asks the kernel, because the stream may already be
    /// connected.
    pub(super) fn send_at_once(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        let bytes = &bytes[..self.piece(bytes.len())];
        self.before_sending();
        let flags = SendFlags::NOSIGNAL | self.keeping_apart(bytes);
        let sent = retrying(|| net::send(&self.source, bytes, flags))?;
        match sent {
            // A short write has filled the buffer; the next edge reports room (epoll(7)).
            Some(n) if n == bytes.len() => self.source.set(Ready::WRITE),
            _ => self.source.clear(Ready::WRITE),
        }
        self.passed(sent.unwrap_or(0));
        if sent.is_some() && self.delay.get() == Delay::Unsent {
            self.delay.set(Delay::Sent);
        }
        Ok(sent)
    }

    /// Moves up to `n` bytes into an empty pipe.
    ///
    /// Returns `None` if nothing is available, and 0 for the end or urgent data.
    pub(in crate::net) fn try_splice_out(
        &self,
        pipe: BorrowedFd<'_>,
        n: usize,
    ) -> Result<Option<usize>, Errno> {
        if !self.source.is(Ready::READ) {
            return Ok(None);
        }
        // The pipe is empty, so EAGAIN can only come from the socket. A short count may mean that
        // the pipe's slots are full.
        let spliced = retrying(|| splice(&self.source, None, pipe, None, n, SPLICE))?;
        match spliced {
            Some(n) => self.passed(n),
            None => self.source.clear(Ready::READ),
        }
        Ok(spliced)
    }

    /// Moves the `n` bytes in a pipe, which are all that it holds, to the socket, as far as the
    /// kernel accepts them.
    ///
    /// Returns `None` if it accepts none. Splicing into a broken connection raises SIGPIPE, which
    /// Rust's runtime ignores.
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

    /// Returns false once urgent data has arrived: splice(2) stops at it forever, or reports the
    /// end of the stream.
    pub(in crate::net) fn can_splice(&self) -> bool {
        !self.source.is(Ready::URGENT)
    }

    fn before_sending(&self) {
        if self.delay.get() == Delay::Sent {
            self.delay.set(Delay::Off);
            // This cannot fail for a TCP socket.
            let _ = net::sockopt::set_tcp_nodelay(&self.source, true);
        }
    }

    /// Makes reads ask the kernel again until it returns EAGAIN.
    pub(in crate::net) fn look_again(&self) {
        // The same state as after an error event, so that a short read clears nothing.
        self.source
            .set(Ready::READ | Ready::READ_CLOSED | Ready::ERROR);
    }

    /// Returns true if a peer that receives no more may still send.
    ///
    /// A Unix socket can be shut down for reading alone. A TCP connection that cannot be sent to is
    /// gone in both directions.
    pub(in crate::net) fn breaks_one_way(&self) -> bool {
        self.kind == Kind::Unix
    }

    /// Returns the number of sent bytes that the peer has not acknowledged.
    ///
    /// 0 if the kernel does not report it, and for a Unix socket, which passes bytes straight to
    /// its peer.
    pub(in crate::net) fn unacknowledged(&self) -> usize {
        match self.kind {
            Kind::Tcp => sys::send_queue::unacknowledged(&self.source).unwrap_or(0),
            Kind::Unix => 0,
        }
    }

    /// Returns false after everything was read, until there is more or the end.
    pub(in crate::net) fn is_readable(&self) -> bool {
        self.source.ready().intersects(Ready::READ | Ready::END)
    }

    /// Returns false after the kernel's buffer was full, until it has room again.
    pub(in crate::net) fn is_writable(&self) -> bool {
        self.source.is(Ready::WRITE)
    }

    /// Returns how many bytes the kernel has room for, if it reports that.
    pub(in crate::net) fn room(&self) -> Option<usize> {
        sys::send_buffer::room(&self.source)
    }

    /// Registers the task to be woken by the next event, including room to write only if `room` is
    /// true.
    ///
    /// # Errors
    /// If the kernel has no memory to watch the socket.
    pub(in crate::net) fn wait(&self, cx: &mut Context<'_>, room: bool) -> io::Result<()> {
        self.source.wait(cx, room)
    }

    /// Takes the error of a failed connection, even if nothing is being read or written.
    ///
    /// Later calls return `None`.
    pub(in crate::net) fn failure(&self) -> Option<Errno> {
        if !self.source.is(Ready::ERROR) {
            return None;
        }
        let error = self.take_error();
        if error.is_none() {
            // A read or write has already reported it.
            self.source.clear(Ready::ERROR);
        }
        error
    }

    /// Waits until the connection fails, even if nothing is being read or written.
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
    /// If the connection is already gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(net::shutdown(&self.source, Shutdown::Write)?)
    }

    /// Marks the stream as complete, so that dropping it closes it normally.
    pub fn finish(&self) {
        self.finished.set(true);
    }

    /// Marks the stream so that dropping it tells the peer nothing, not even a reset.
    ///
    /// A Unix socket's peer sees the end of the stream.
    ///
    /// # Errors
    /// Needs CAP_NET_ADMIN. Dropping the stream then resets the connection.
    pub fn vanish(&self) -> io::Result<()> {
        if self.kind == Kind::Tcp {
            sys::vanish::close_in_silence(&self.source)?;
        }
        self.finish();
        Ok(())
    }

    pub(super) fn take_error(&self) -> Option<Errno> {
        match net::sockopt::socket_error(&self.source) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        }
    }
}

const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Repeats a call while a signal interrupts it.
///
/// Returns `None` if it would block.
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

/// For codecs that use a stream.
///
/// The relay does not need this.
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

/// Nothing is buffered here.
///
/// Closing is [`Stream::shutdown_write`].
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
            // With a linger time of 0, closing sends a reset (tcp(7)). If a sandbox or a fault
            // prevents that, dissolving the connection also sends one (connect(2), AF_UNSPEC).
            if net::sockopt::set_socket_linger(&self.source, Some(Duration::ZERO)).is_err() {
                let _ = net::connect_unspec(&self.source);
            }
        }
    }
}
