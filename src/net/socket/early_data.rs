//! What a client sends before a server is found: read once and kept until a server accepts it.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

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
        let mut read = self.read.borrow_mut();
        if !read.held.is_empty() {
            let server = start()?;
            let sent = server.send_at_once(read.held.bytes());
            let n = sent.unwrap_or(None).unwrap_or(0);
            read.held.consume(n);
            read.taken += n;
            let is_connected = server.is_connected_by(sent)?;
            return Ok(Some((server, is_connected)));
        }
        if read.ended || read.error.is_some() || !client.reactor().may_hold() {
            return start().map(unsent);
        }
        client.reactor().with_scratch(|scratch| {
            let bytes = match client.try_recv(scratch) {
                Ok(None) => return start().map(unsent),
                Ok(Some(n)) => &scratch[..n],
                Err(error) => {
                    read.error = Some(error.into());
                    return Ok(None);
                }
            };
            if bytes.is_empty() {
                read.ended = true;
                return start().map(unsent);
            }
            let server = start();
            let sent = match &server {
                Ok(server) => server.send_at_once(bytes),
                Err(_) => Ok(None),
            };
            let n = sent.unwrap_or(None).unwrap_or(0);
            read.taken = n;
            if n < bytes.len() {
                match client.reactor().keep_unsent(&bytes[n..]) {
                    Ok(unsent) => read.held = unsent,
                    Err(error) => read.error = Some(error),
                }
            }
            let server = server?;
            let is_connected = server.is_connected_by(sent)?;
            Ok(Some((server, is_connected)))
        })
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
