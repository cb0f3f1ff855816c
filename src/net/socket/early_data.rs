//! What a client sends before a server has been found: read once, and kept until one takes it.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use super::stream::Stream;
use crate::net::buffers::Unsent;

/// The client's first bytes. Over loopback a server stands before connect(2) returns, so that they can be sent at once and need no
/// wait for the news; a server that refuses them leaves them for the next.
#[derive(Debug)]
pub struct EarlyData<'a> {
    client: Option<&'a Stream>,
    read: RefCell<Read>,
}

/// What has become of the client's first bytes.
#[derive(Debug, Default)]
pub struct Read {
    /// Read, and not yet taken by a server.
    pub(in crate::net) held: Unsent,
    /// How many bytes the server has taken.
    pub(in crate::net) taken: usize,
    /// The client has finished sending.
    pub(in crate::net) ended: bool,
    /// Reading has failed, and the kernel tells that only once.
    pub(in crate::net) error: Option<io::Error>,
}

impl<'a> EarlyData<'a> {
    /// Of this client, from whom nothing has been read yet.
    #[must_use]
    pub fn of(client: &'a Stream) -> Self {
        Self {
            client: Some(client),
            read: RefCell::default(),
        }
    }

    /// Of nobody: a server is dialled for its own sake.
    #[must_use]
    pub fn none() -> Self {
        Self {
            client: None,
            read: RefCell::default(),
        }
    }

    /// Starts a connection by `start` and sends at once what the client has sent so far. With the server comes true if it has taken
    /// some: then it is connected. Nothing is started for a client that has reset, which [`EarlyData::is_broken`] then says.
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

    /// True if the client's connection is known to have failed.
    pub(in crate::net) fn is_broken(&self) -> bool {
        self.read.borrow().error.is_some()
    }

    /// Ready when the client's connection has failed. That it has finished sending is no failure.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(error) = self.read.borrow_mut().error.take() {
            return Poll::Ready(error);
        }
        match self.client {
            Some(client) => client.poll_broken(cx),
            None => Poll::Pending,
        }
    }

    /// What has become of it, for [`relay`](crate::net::relay()) to go on from.
    #[must_use]
    pub fn into_read(self) -> Read {
        self.read.into_inner()
    }
}
