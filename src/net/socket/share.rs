//! How a stream keeps to its share of the memory: what it may hold, buffer, and pass on at once.

use std::io;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::stream::{Kind, Stream, retrying};
use crate::net::buffers::{Allowance, Unsent};
use crate::net::reactor::{Reactor, Ready, SCRATCH_BYTES};

/// After so many KiB the kernel would let a socket's buffers grow. It has not done so before: they are as it made them.
const SHORT_KIB: u8 = 64;

impl Reactor {
    /// How much the sockets of the next connection may buffer; `None`: as much as the kernel likes.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.memory().limits().allowance(self.connections())
    }

    /// The same for those that have passed so much that the kernel would let their buffers grow.
    pub(super) fn lasting_allowance(&self) -> Option<Allowance> {
        let limits = self.memory().limits();
        limits.lasting_allowance(self.connections())
    }

    /// True if all of one read may be held. Otherwise a stream takes only what its receiver takes.
    pub(in crate::net) fn may_hold(&self) -> bool {
        self.memory().left() >= SCRATCH_BYTES
    }

    /// How much may go into a pipe; nothing while bytes pass in small pieces, since a pipe's stay together.
    pub(in crate::net) fn may_splice(&self) -> usize {
        match self.may_hold() && self.piece().is_none() {
            true => self.memory().left(),
            false => 0,
        }
    }

    /// Keeps a copy of bytes that a receiver does not take.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(in crate::net) fn keep_unsent(&self, bytes: &[u8]) -> io::Result<Unsent> {
        let unsent = Unsent::new(bytes, self.held())?;
        if self.held().may_be_worth_trimming() {
            self.start_ticking();
        }
        Ok(unsent)
    }

    /// In which pieces a stream passes bytes on; `None`: as large as they come.
    pub(super) fn piece(&self) -> Option<usize> {
        self.memory().piece(self.connections())
    }
}

impl Stream {
    /// Notes that bytes have passed. A socket through which many have does not buffer more than its share from then on.
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

    /// Like [`Stream::try_recv`], but the bytes stay in the kernel until [`Stream::consume`] takes them.
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

    /// Takes bytes that were peeked at. `buffer` is as long as they are; they are read into it again.
    pub(in crate::net) fn consume(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.try_recv(buffer)? {
                None | Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(n) => buffer = &mut buffer[n..],
            }
        }
        Ok(())
    }

    /// How many of `bytes` may be read or sent at once.
    pub(super) fn piece(&self, bytes: usize) -> usize {
        let piece = self.reactor().piece();
        piece.map_or(bytes, |piece| piece.min(bytes))
    }

    /// While bytes pass in small pieces, each keeps its own place in the kernel's buffer (MSG_EOR, since Linux 4.7): the kernel looks
    /// whether there is room only before it begins a new place, and would fill one with up to 64 KiB. Tiny pieces share one, as a
    /// place costs about a kilobyte.
    pub(super) fn keeping_apart(&self, bytes: &[u8]) -> SendFlags {
        const TINY_BYTES: usize = 512;
        let apart = self.kind == Kind::Tcp && bytes.len() >= TINY_BYTES;
        match apart && self.reactor().piece().is_some() {
            true => SendFlags::EOR,
            false => SendFlags::empty(),
        }
    }
}
