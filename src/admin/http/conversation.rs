//! One client's conversation over HTTP/1: reads requests and writes responses, each within a time
//! limit, until either side ends it.

use std::io::{self, IoSlice};
use std::time::Duration;

use http_types::{Method, Response, StatusCode};
use smol::future::{or, yield_now};

use super::answer::{Answer, refusal};
use super::clients::{Clients, Phase, Seat};
use super::gate::Access;
use super::request::{self, HEAD_BYTES, Head};
use super::stream::Stream;
use crate::admin::api::Reader;
use crate::admin::limits::ClientLimits;
use crate::admin::park::Park;
use crate::admin::requests::Requests;
use crate::admin::sockets::Caller;

/// How much to read at once.
const READ_BYTES: usize = 1024;
/// The most to read and discard after the last response.
const LINGER_BYTES: usize = 256 * 1024;

/// Sent to a client that waits before it sends its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// One client's connection.
pub(super) struct Conversation<'a> {
    /// The connection.
    pub stream: Stream,
    /// Who the client is.
    pub caller: Caller,
    /// The client's limits.
    pub limits: &'a ClientLimits,
    /// The set of clients that it belongs to.
    pub clients: &'a Clients,
    /// Its seat in the set.
    pub seat: &'a Seat,
    /// Where it waits.
    pub park: &'a Park,
    /// Where answers are counted.
    pub requests: &'a Requests,
    /// Says what a request may do.
    pub judge: &'a dyn Fn(&Head) -> Access,
    /// Whether the connection ends after the first response.
    pub once: bool,
}

impl Conversation<'_> {
    /// Answers the client's requests with `answer` until the connection ends.
    pub(super) async fn hold(self, answer: impl AsyncFn(&Head) -> Answer) {
        let (limits, park, seat) = (self.limits, self.park, self.seat);
        let mut wire = Wire {
            stream: self.stream,
            caller: self.caller,
            judge: self.judge,
            received: Vec::new(),
            park,
        };
        // A new client has the time of one request before it counts as idle. A client served `once`
        // has no more than that.
        match park.within(limits.request, wire.read()).await {
            Some(Ok(())) => {}
            None if !self.once => {
                if !wire.next_byte(limits, seat).await {
                    return;
                }
            }
            _ => return,
        }
        loop {
            let received = park.within(limits.request, wire.receive()).await;
            seat.enters(Phase::Answering);
            let (mut path, count) = (None, self.requests);
            let (mut answer, sending) = match received {
                Some(Ok(head)) => {
                    let mut answer = answer(&head).await;
                    if self.once {
                        // Events would keep the descriptor that others need.
                        answer.events = None;
                    }
                    if answer.events.is_some() {
                        // These go on until the connection ends.
                        seat.enters(Phase::Following);
                    }
                    let may_stay = !self.once && !self.clients.is_wanted();
                    let keep_alive = head.keep_alive && may_stay && answer.events.is_none();
                    let sending = Sending::to(&head, keep_alive);
                    path = Some(head.path);
                    (answer, sending)
                }
                Some(Err(End::Gone)) => return,
                Some(Err(End::Refused(status))) => (refusal(status), Sending::LAST),
                None => (refusal(StatusCode::RequestTimeout), Sending::LAST),
            };
            count.count(path.as_deref(), answer.response.status().into());
            let sent = park
                .within(limits.answer, wire.send(&answer, sending))
                .await;
            // Others may wait for the room that it takes.
            let events = answer.events.take();
            drop(answer);
            if !matches!(sent, Some(Ok(()))) {
                return;
            }
            if let Some(events) = events {
                return wire.follow(&events, limits.answer).await;
            }
            if !sending.keep_alive {
                park.within(limits.linger, wire.finish()).await;
                return;
            }
            // A client that pipelines many requests must not keep the thread to itself.
            yield_now().await;
            if wire.received.is_empty() && !wire.next_byte(limits, seat).await {
                return;
            }
            seat.enters(Phase::Requesting);
        }
    }
}

/// How to send a response.
#[derive(Clone, Copy)]
struct Sending {
    with_body: bool,
    keep_alive: bool,
    says_keep_alive: bool,
}

impl Sending {
    const LAST: Self = Self {
        with_body: true,
        keep_alive: false,
        says_keep_alive: false,
    };

    fn to(head: &Head, keep_alive: bool) -> Self {
        Self {
            with_body: head.method != Method::Head,
            keep_alive,
            says_keep_alive: keep_alive && head.is_http_1_0,
        }
    }
}

/// Why there is no request.
enum End {
    Gone,
    Refused(StatusCode),
}

/// The connection's bytes.
struct Wire<'a> {
    stream: Stream,
    caller: Caller,
    judge: &'a dyn Fn(&Head) -> Access,
    /// Bytes received but not yet consumed, at most [`HEAD_BYTES`].
    received: Vec<u8>,
    park: &'a Park,
}

impl Wire<'_> {
    /// Waits for another request to begin. Returns false if there will be none.
    async fn next_byte(&mut self, limits: &ClientLimits, seat: &Seat) -> bool {
        seat.enters(Phase::Idle);
        // An idle client holds no buffer.
        self.received = Vec::new();
        let read = self.park.within(limits.idle, self.read()).await;
        seat.enters(Phase::Requesting);
        matches!(read, Some(Ok(())))
    }

    /// Receives one request. Discards its body, unless it is an order.
    async fn receive(&mut self) -> Result<Head, End> {
        let mut head = loop {
            match request::parse(&self.received, self.caller) {
                Ok(Some(head)) => break head,
                Ok(None) => self.read().await?,
                Err(status) => return Err(End::Refused(status)),
            }
        };
        self.received.drain(..head.head_bytes);
        head.settle((self.judge)(&head));
        if head.waits_for_continue {
            // The kernel takes this in one write: it is short, and nothing else waits to be sent.
            let sent = self.write(&[IoSlice::new(CONTINUE)]).await;
            if sent.ok() != Some(CONTINUE.len()) {
                return Err(End::Gone);
            }
        }
        let mut left = head.body_bytes;
        loop {
            let n = left.min(self.received.len());
            if head.is_order {
                head.body.extend_from_slice(&self.received[..n]);
            }
            self.received.drain(..n);
            left -= n;
            if left == 0 {
                return Ok(head);
            }
            self.read().await?;
        }
    }

    /// Reads at least one byte. Dropping this loses none.
    async fn read(&mut self) -> Result<(), End> {
        let mut piece = [0; READ_BYTES];
        // `parse` rejects a full buffer that contains no request, so there is always room.
        let room = (HEAD_BYTES - self.received.len()).min(READ_BYTES);
        match self.read_into(&mut piece[..room]).await {
            Ok(n @ 1..) => {
                self.received.extend_from_slice(&piece[..n]);
                Ok(())
            }
            _ => Err(End::Gone),
        }
    }

    /// Waits again at each tick, and so registers the socket with async-io again: async-io may have
    /// lost the event of the first registration.
    async fn read_into(&self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = async { Some(self.stream.read(piece).await) };
            if let Some(read) = or(read, next_tick(self.park)).await {
                return read;
            }
        }
    }

    /// Sends one response, head and body in one write if the kernel takes it.
    async fn send(&mut self, answer: &Answer, sending: Sending) -> io::Result<()> {
        let head = head(answer, sending);
        let bytes = match sending.with_body {
            true => answer.body.len(),
            false => 0,
        };
        let (mut of_head, mut of_body) = (0, 0);
        while of_head < head.len() || of_body < bytes {
            let mut slices = answer.body.slices(&head[of_head..], of_body);
            if !sending.with_body {
                slices.truncate(1);
            }
            let n = self.write(&slices).await?;
            let n_of_head = n.min(head.len() - of_head);
            of_head += n_of_head;
            of_body += n - n_of_head;
        }
        Ok(())
    }

    /// Sends events until the client leaves, sends anything, or takes longer than `limit` to take
    /// those of one moment.
    async fn follow(&mut self, events: &Reader, limit: Duration) {
        let mut piece = [0];
        loop {
            let left = async {
                let _ = self.read_into(&mut piece).await;
                None
            };
            let Some(text) = or(left, events.next()).await else {
                return;
            };
            match self
                .park
                .within(limit, self.write_all(text.as_bytes()))
                .await
            {
                Some(Ok(())) => {}
                Some(Err(_)) => return,
                None => return events.cut(),
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.write(&[IoSlice::new(bytes)]).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Writes at least one byte.
    async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let write = async { Some(self.stream.write(slices).await) };
            match or(write, next_tick(self.park)).await {
                Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Some(written) => return written,
                None => {}
            }
        }
    }

    /// Ends the connection in a way that lets the client read the last response. Closing a socket
    /// with unread bytes sends a reset, and a reset discards what the client has not read yet.
    async fn finish(&mut self) {
        let mut piece = [0; READ_BYTES];
        let mut left = LINGER_BYTES;
        if self.stream.finish().is_err() {
            return;
        }
        while left > 0 {
            match self.read_into(&mut piece).await {
                Ok(n @ 1..) => left = left.saturating_sub(n),
                _ => return,
            }
        }
    }
}

async fn next_tick<T>(park: &Park) -> Option<T> {
    park.tick().await;
    None
}

/// Formats a response's status line and headers.
fn head(answer: &Answer, sending: Sending) -> Vec<u8> {
    use std::io::Write;

    let response: &Response = &answer.response;
    let mut head = Vec::with_capacity(256);
    let status = response.status();
    // Writing to a Vec cannot fail.
    let _ = write!(head, "HTTP/1.1 {status} {}\r\n", status.canonical_reason());
    for (name, values) in response.iter() {
        for value in values {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    // Without a length, the end of the connection ends the body.
    if answer.events.is_none() {
        let _ = write!(head, "content-length: {}\r\n", answer.body.len());
    }
    if !sending.keep_alive {
        head.extend_from_slice(b"connection: close\r\n");
    } else if sending.says_keep_alive {
        head.extend_from_slice(b"connection: keep-alive\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
