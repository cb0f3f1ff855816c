//! Keeps each stream to its share of memory: what it may hold, buffer, and pass on at once.

use std::io;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::stream::{Kind, Stream, retrying};
use crate::net::buffers::{Allowance, Unsent};
use crate::net::reactor::{Reactor, Ready, SCRATCH_BYTES};

/// KiB after which the kernel would start to grow a socket's buffers. Until then they have their
/// initial size.
const SHORT_KIB: u8 = 64;

impl Reactor {
    /// Returns how much the sockets of the next connection may buffer.
    ///
    /// `None` leaves it to the kernel.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.memory().limits().allowance(self.connections())
    }

    /// Returns the same limit for connections that have transferred so much that the kernel would
    /// grow their buffers.
    pub(super) fn lasting_allowance(&self) -> Option<Allowance> {
        let limits = self.memory().limits();
        limits.lasting_allowance(self.connections())
    }

    /// Returns true if a whole read may be held.
    ///
    /// Otherwise a stream reads only what its receiver accepts.
    pub(in crate::net) fn may_hold(&self) -> bool {
        self.memory().left() >= SCRATCH_BYTES
    }

    /// Returns how much may go into a pipe: nothing while bytes pass in small pieces, because the
    /// contents of a pipe stay together.
    pub(in crate::net) fn may_splice(&self) -> usize {
        match self.may_hold() && self.piece().is_none() {
            true => self.memory().left(),
            false => 0,
        }
    }

    /// Keeps a copy of bytes that a receiver does not accept.
    ///
    /// # Errors
    /// If there is no memory for the copy.
    pub(in crate::net) fn keep_unsent(&self, bytes: &[u8]) -> io::Result<Unsent> {
        let unsent = Unsent::new(bytes, self.held())?;
        if self.held().may_be_worth_trimming() {
            self.start_ticking();
        }
        Ok(unsent)
    }

    /// Returns the piece size in which streams pass bytes on.
    ///
    /// `None` means no limit.
    pub(super) fn piece(&self) -> Option<usize> {
        self.memory().piece(self.connections())
    }
}

impl Stream {
    /// Records passed bytes.
    ///
    /// A socket that has passed many buffers no more than its share from then on.
    pub(super) fn passed(&self, bytes: usize) {
        let before = self.passed_kib.get();
        if before == SHORT_KIB {
            return;
        }
        let kib = u8::try_from(bytes.div_ceil(1024)).unwrap_or(u8::MAX);
        let passed = before.saturating_add(kib).min(SHORT_KIB);
        self.passed_kib.set(passed);
        if passed == SHORT_KIB
            && self.kind == Kind::Tcp
            && let Some(allowance) = self.reactor().lasting_allowance()
        {
            allowance.limit_received(self);
            allowance.limit_unsent(self);
        }
    }

    /// Like [`Stream::try_recv`], but leaves the bytes in the kernel until [`Stream::consume`]
    /// takes them.
    pub(in crate::net) fn try_peek(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        if self.source().is(Ready::END) {
            return Ok(Some(0));
        }
        if !self.source().is(Ready::READ) {
            return Ok(None);
        }
        let most = self.piece(buffer.len());
        let buffer = &mut buffer[..most];
        let peeked = retrying(|| net::recv(self.source(), &mut *buffer, RecvFlags::PEEK))?;
        if peeked.is_none() {
            self.source().clear(Ready::READ);
        }
        Ok(peeked.map(|(n, _)| n))
    }

    /// Reads peeked bytes again to consume them.
    ///
    /// `buffer` is exactly as long as they are.
    pub(in crate::net) fn consume(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.try_recv(buffer)? {
                None | Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(n) => buffer = &mut buffer[n..],
            }
        }
        Ok(())
    }

    /// Returns how many of `bytes` may be read or sent in one call.
    pub(super) fn piece(&self, bytes: usize) -> usize {
        let piece = self.reactor().piece();
        piece.map_or(bytes, |piece| piece.min(bytes))
    }

    /// Returns the flags that keep small pieces apart in the kernel's buffer (MSG_EOR, since Linux
    /// 4.7).
    ///
    /// The kernel checks for room only before it starts a new segment, and would fill one with up
    /// to 64 KiB. Tiny pieces share a segment, because each costs about a kilobyte.
    pub(super) fn keeping_apart(&self, bytes: &[u8]) -> SendFlags {
        const TINY_BYTES: usize = 512;
        let apart = self.kind == Kind::Tcp && bytes.len() >= TINY_BYTES;
        match apart && self.reactor().piece().is_some() {
            true => SendFlags::EOR,
            false => SendFlags::empty(),
        }
    }
}
