//! One client's conversation over HTTP/1: reads requests and writes answers, each within a limit, until either side ends it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use async_io::Timer;
use async_net::TcpStream;
use http_types::{Method, Request, Response, StatusCode};
use smol::future::{or, yield_now};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::answer::refusal;
use super::clients::Clients;
use super::request::{self, HEAD_BYTES, Head};

/// What one client may take of the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many clients are served at once.
    pub clients: usize,
    /// How long a request may take from its first byte to its last.
    pub request: Duration,
    /// How long a client may be silent between requests. An idle one makes room at once when others wait; a new one only
    /// after it has been silent for as long as a request may take.
    pub idle: Duration,
    /// How long a client may take to read one answer.
    pub answer: Duration,
    /// How long a client may take to close the connection after the last answer.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 32,
            request: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            answer: Duration::from_secs(5),
            linger: Duration::from_secs(1),
        }
    }
}

/// How much is read at once.
const READ_BYTES: usize = 1024;
/// The most that is read and thrown away after the last answer.
const LINGER_BYTES: usize = 256 * 1024;

/// One client's connection.
#[derive(Debug)]
pub struct Conversation<'a> {
    /// The connection.
    pub stream: TcpStream,
    /// What the client may take.
    pub limits: &'a Limits,
    /// Those it shares the endpoint with.
    pub clients: &'a Clients,
    /// Whether the connection ends with the first answer.
    pub once: bool,
}

impl Conversation<'_> {
    /// Answers the client's requests with `answer` until the connection ends.
    pub async fn hold(self, answer: impl AsyncFn(&Request) -> Response) {
        let (limits, clients, once) = (*self.limits, self.clients, self.once);
        // An answer is written in one piece where that is possible: nothing is gained by waiting for more.
        let _ = self.stream.set_nodelay(true);
        let mut wire = Wire {
            stream: self.stream,
            received: Vec::new(),
        };
        if !wire.first_byte(&limits, clients, once).await {
            return;
        }
        loop {
            let received = within(limits.request, wire.receive()).await;
            let (response, sending) = match received {
                Some(Ok(head)) => {
                    let keep_alive = head.keep_alive && !once && !clients.is_wanted();
                    let response = answer(&head.request).await;
                    (response, Sending::to(&head, keep_alive))
                }
                Some(Err(End::Gone)) => return,
                Some(Err(End::Refused(status))) => (refusal(status), Sending::LAST),
                None => (refusal(StatusCode::RequestTimeout), Sending::LAST),
            };
            let sent = within(limits.answer, wire.send(response, sending)).await;
            if !matches!(sent, Some(Ok(()))) {
                return;
            }
            if !sending.keep_alive {
                within(limits.linger, wire.finish()).await;
                return;
            }
            // A client that sends many requests at once shall not have the thread to itself.
            yield_now().await;
            if wire.received.is_empty() && !wire.next_byte(&limits, clients).await {
                return;
            }
        }
    }
}

/// How an answer is sent.
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
            with_body: head.request.method() != Method::Head,
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
struct Wire {
    stream: TcpStream,
    /// What has come and is not dealt with yet, at most [`HEAD_BYTES`].
    received: Vec<u8>,
}

impl Wire {
    /// Waits for the first request to begin; false when none will. A new client has the time of one request for it before it
    /// counts as idle; one that is served `once` has no more than that.
    async fn first_byte(&mut self, limits: &Limits, clients: &Clients, once: bool) -> bool {
        match within(limits.request, self.read()).await {
            Some(read) => read.is_ok(),
            None if once => false,
            None => self.next_byte(limits, clients).await,
        }
    }

    /// Waits for a further request to begin; false when none will, or when others want the idle client's place.
    async fn next_byte(&mut self, limits: &Limits, clients: &Clients) -> bool {
        // An idle client holds no buffer.
        self.received = Vec::new();
        let silence = async {
            or(clients.asked_to_go(), sleep(limits.idle)).await;
            Err(End::Gone)
        };
        or(self.read(), silence).await.is_ok()
    }

    /// Receives one request, and throws its body away.
    async fn receive(&mut self) -> Result<Head, End> {
        let head = loop {
            match request::parse(&self.received) {
                Ok(Some(head)) => break head,
                Ok(None) => self.read().await?,
                Err(status) => return Err(End::Refused(status)),
            }
        };
        self.received.drain(..head.head_bytes);
        let mut left = head.body_bytes;
        loop {
            let n = left.min(self.received.len());
            self.received.drain(..n);
            left -= n;
            if left == 0 {
                return Ok(head);
            }
            self.read().await?;
        }
    }

    /// Reads at least one byte. Loses none when it is dropped.
    async fn read(&mut self) -> Result<(), End> {
        let mut piece = [0; READ_BYTES];
        // `parse` refuses a full buffer without a request in it, so there is always room.
        let room = (HEAD_BYTES - self.received.len()).min(READ_BYTES);
        match self.stream.read(&mut piece[..room]).await {
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(n) => {
                self.received.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }

    /// Sends one answer, head and body in one piece where the kernel takes it.
    async fn send(&mut self, mut response: Response, sending: Sending) -> io::Result<()> {
        let head = head(&response, sending);
        let mut head = head.as_slice();
        let mut body = response.take_body();
        loop {
            let piece = match sending.with_body {
                true => body.fill_buf().await?,
                false => &[],
            };
            if head.is_empty() && piece.is_empty() {
                return Ok(());
            }
            let pieces = [IoSlice::new(head), IoSlice::new(piece)];
            let n = self.stream.write_vectored(&pieces).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_head = n.min(head.len());
            head = &head[of_head..];
            body.consume(n - of_head);
        }
    }

    /// Ends the connection so that the client can read the last answer: bytes that were never read would turn the close
    /// into a reset, and a reset throws away what the client has not read yet.
    async fn finish(&mut self) {
        let mut piece = [0; READ_BYTES];
        let mut left = LINGER_BYTES;
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while let Ok(n @ 1..) = self.stream.read(&mut piece).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    }
}

/// An answer's status line and headers.
fn head(response: &Response, sending: Sending) -> Vec<u8> {
    use std::io::Write;

    let mut head = Vec::with_capacity(256);
    let status = response.status();
    // Writing to a Vec cannot fail.
    let _ = write!(head, "HTTP/1.1 {status} {}\r\n", status.canonical_reason());
    for (name, values) in response.iter() {
        for value in values {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    let length = response.len().unwrap_or(0);
    let _ = write!(head, "content-length: {length}\r\n");
    if !sending.keep_alive {
        head.extend_from_slice(b"connection: close\r\n");
    } else if sending.says_keep_alive {
        head.extend_from_slice(b"connection: keep-alive\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The output of `future`, or `None` if it takes longer than `limit`.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        sleep(limit).await;
        None
    })
    .await
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    Timer::after(duration).await;
}
