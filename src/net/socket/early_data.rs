//! What a client sends before a server is found: read once and kept until a server accepts it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::stream::Stream;
use crate::net::buffers::Unsent;

/// The client's first bytes.
///
/// Over loopback a connection is established before connect(2) returns, so these bytes can be sent
/// without waiting for the event. If the server refuses the connection, they are kept for the next
/// one.
#[derive(Debug)]
pub struct EarlyData<'a> {
    client: Option<&'a Stream>,
    read: RefCell<Read>,
}

/// What happened to the client's first bytes.
#[derive(Debug, Default)]
pub struct Read {
    /// Bytes that were read and not yet accepted by a server.
    pub(in crate::net) held: Unsent,
    /// How many bytes the server has accepted.
    pub(in crate::net) taken: usize,
    /// The client has finished sending.
    pub(in crate::net) ended: bool,
    /// Reading failed. Kept because the kernel reports an error only once.
    pub(in crate::net) error: Option<io::Error>,
    /// What a server gets before the client's bytes, as far as none has accepted it.
    preface: Vec<u8>,
}

impl<'a> EarlyData<'a> {
    /// Creates the early data of a client that has not been read from yet.
    #[must_use]
    pub fn of(client: &'a Stream) -> Self {
        Self {
            client: Some(client),
            read: RefCell::default(),
        }
    }

    /// Creates early data without a client, for dialling a server on its own.
    #[must_use]
    pub fn none() -> Self {
        Self {
            client: None,
            read: RefCell::default(),
        }
    }

    /// Returns the port that the client connected to.
    #[must_use]
    pub fn local_port(&self) -> Option<u16> {
        Some(self.client?.local_address()?.port())
    }

    /// Starts a connection with `start` and immediately sends what the client has sent so far.
    ///
    /// Returns the server and true if it has accepted some bytes, which proves that it is
    /// connected. Returns `None` without starting anything if the client has reset;
    /// [`EarlyData::is_broken`] is then true.
    pub(in crate::net) fn offer(
        &self,
        start: impl FnOnce() -> io::Result<Stream>,
    ) -> io::Result<Option<(Stream, bool)>> {
        let unsent = |server| Some((server, false));
        let Some(client) = self.client else {
            return start().map(unsent);
        };
        let read = &mut *self.read.borrow_mut();
        if read.preface.is_empty() && !read.held.is_empty() {
            let server = start()?;
            let sent = server.send_at_once(read.held.bytes());
            let n = sent.unwrap_or(None).unwrap_or(0);
            read.held.consume(n);
            read.taken += n;
            let is_connected = server.is_connected_by(sent)?;
            return Ok(Some((server, is_connected)));
        }
        client.reactor().with_scratch(|scratch| {
            let Some(n) = read.gather(client, scratch) else {
                return Ok(None);
            };
            let bytes = &scratch[..n];
            if bytes.is_empty() {
                return start().map(unsent);
            }
            let server = start();
            let sent = match &server {
                Ok(server) => server.send_at_once(bytes),
                Err(_) => Ok(None),
            };
            read.accepted(client, bytes, sent.unwrap_or(None).unwrap_or(0));
            let server = server?;
            let is_connected = server.is_connected_by(sent)?;
            Ok(Some((server, is_connected)))
        })
    }

    /// Reads more of the client's first bytes, up to `most` in all, and keeps them. Returns how many,
    /// or 0 once the client has finished sending.
    pub fn poll_more(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let Some(client) = self.client else {
            return Poll::Ready(Ok(0));
        };
        let read = &mut *self.read.borrow_mut();
        client.reactor().with_scratch(|scratch| {
            let held = read.held.bytes().len();
            let most = most.min(scratch.len());
            scratch[..held].copy_from_slice(read.held.bytes());
            let n = ready!(client.poll_recv(cx, &mut scratch[held..most]))?;
            match n {
                0 => read.ended = true,
                _ => read.held = client.reactor().keep_unsent(&scratch[..held + n])?,
            }
            Poll::Ready(Ok(n))
        })
    }

    /// Calls `look` with the client's bytes that are kept.
    pub fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(self.read.borrow().held.bytes())
    }

    /// Forgets the first `n` of the bytes that are kept: they are not for the server.
    pub fn skip(&self, n: usize) {
        self.read.borrow_mut().held.consume(n);
    }

    /// Gives each server `preface` before the client's bytes.
    pub fn precede(&self, preface: Vec<u8>) {
        self.read.borrow_mut().preface = preface;
    }

    /// Sends a connected server the preface, unless it has it already, together with what the
    /// client has sent so far.
    ///
    /// Does not wait for the client: the server may be the one that speaks first.
    ///
    /// # Errors
    /// The kernel's, except that a reset is left to [`relay`](crate::net::relay()).
    pub async fn introduce(&self, server: &Stream) -> io::Result<()> {
        let Some(client) = self.client else {
            return Ok(());
        };
        poll_fn(|cx| {
            loop {
                let read = &mut *self.read.borrow_mut();
                if read.preface.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let sent = client.reactor().with_scratch(|scratch| {
                    let n = read.gather(client, scratch)?;
                    let sent = server.send_at_once(&scratch[..n]);
                    read.accepted(client, &scratch[..n], sent.unwrap_or(None).unwrap_or(0));
                    Some(sent)
                });
                match sent {
                    // The client is gone, which the relay finds in what was read.
                    None => return Poll::Ready(Ok(())),
                    Some(Ok(Some(_))) => {}
                    Some(Ok(None)) => ready!(server.poll_room(cx))?,
                    Some(Err(error)) => {
                        return Poll::Ready(server.connected_if_reset(error).map_err(Into::into));
                    }
                }
            }
        })
        .await
    }

    /// Returns true if the client's connection is known to have failed.
    pub(in crate::net) fn is_broken(&self) -> bool {
        self.read.borrow().error.is_some()
    }

    /// Returns true if the client has finished sending without a single byte, which it does when it
    /// closes the connection.
    ///
    /// A client that has sent something may wait for the answer. Knows only what the last event
    /// reported, for which the caller must wait by [`EarlyData::poll_broken`].
    #[must_use]
    pub fn has_left(&self) -> bool {
        let read = self.read.borrow();
        let has_sent = read.taken > 0 || !read.held.is_empty();
        !has_sent && (read.ended || self.client.is_some_and(Stream::is_at_end))
    }

    /// Waits until the client's connection fails.
    ///
    /// A client that has finished sending has not failed.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(error) = self.read.borrow_mut().error.take() {
            return Poll::Ready(error);
        }
        match self.client {
            Some(client) => client.poll_broken(cx),
            None => Poll::Pending,
        }
    }

    /// Returns what happened to the bytes, for [`relay`](crate::net::relay()) to continue.
    #[must_use]
    pub fn into_read(self) -> Read {
        self.read.into_inner()
    }
}

impl Read {
    /// Puts the preface into `scratch`, and behind it the client's bytes: those held, or if there
    /// are none, those that can be read now. Returns how many bytes that are, or `None` if the
    /// client has reset.
    fn gather(&mut self, client: &Stream, scratch: &mut [u8]) -> Option<usize> {
        let (head, rest) = scratch.split_at_mut(self.preface.len());
        head.copy_from_slice(&self.preface);
        if !self.held.is_empty() {
            let bytes = self.held.bytes();
            let n = bytes.len().min(rest.len());
            rest[..n].copy_from_slice(&bytes[..n]);
            return Some(head.len() + n);
        }
        if self.ended || self.error.is_some() || !client.reactor().may_hold() {
            return Some(head.len());
        }
        match client.try_recv(rest) {
            Ok(None) => Some(head.len()),
            Ok(Some(n)) => {
                self.ended = n == 0;
                Some(head.len() + n)
            }
            Err(error) => {
                self.error = Some(error.into());
                None
            }
        }
    }

    /// Notes that a server has accepted `n` of the bytes gathered. Keeps the rest.
    fn accepted(&mut self, client: &Stream, gathered: &[u8], n: usize) {
        let bytes = &gathered[self.preface.len()..];
        let of_preface = n.min(self.preface.len());
        self.preface.drain(..of_preface);
        let n = n - of_preface;
        self.taken += n;
        if !self.held.is_empty() {
            self.held.consume(n);
        } else if n < bytes.len() {
            match client.reactor().keep_unsent(&bytes[n..]) {
                Ok(unsent) => self.held = unsent,
                Err(error) => self.error = Some(error),
            }
        }
    }
}
