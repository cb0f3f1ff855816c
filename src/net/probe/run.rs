//! Connects to a server, sends the request and reads until the answer is judged.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::future::FutureExt;

use super::answer::{Answer, End};
use super::check::Check;
use super::failure::Failure;
use crate::net::dial::{Dial, dial_tcp};
use crate::net::reactor::Reactor;
use crate::net::socket::{EarlyData, Stream};
use crate::state::Outgoing;

/// How long to wait until a Unix listener has room in its backlog, which the kernel does not
/// report.
const PAUSE: Duration = Duration::from_millis(50);

/// Where to connect.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    /// The first of these addresses that answers, on this port.
    Tcp(&'a [IpAddr], u16),
    /// A Unix socket.
    Unix(&'a Path),
}

/// How long a check may take.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// When to give up.
    pub deadline: Instant,
    /// The whole time, for the words of the failure.
    pub timeout: Duration,
}

/// A check that is over.
#[derive(Debug)]
pub struct Probed {
    /// Whether the server is good.
    pub outcome: Result<(), Failure>,
    /// The connection, if there was one. Dropping it closes it without waiting for the server.
    pub leaving: Option<Leaving>,
}

/// Checks a server once.
///
/// `outgoing` says how the connection leaves, if that is not left to the kernel. No byte beyond [`Check::MAX_BYTES`] is read for the verdict, and none after the deadline.
pub async fn probe(
    reactor: &Rc<Reactor>,
    to: To<'_>,
    outgoing: Option<&Outgoing>,
    check: &Check,
    limit: Limit,
) -> Probed {
    let stream = match connect(reactor, to, outgoing, limit).await {
        Ok(stream) => stream,
        Err(failure) => {
            return Probed {
                outcome: Err(failure),
                leaving: None,
            };
        }
    };
    // The server sees an ordinary end, whatever comes of the check.
    stream.finish();
    let mut answer = Answer::new(check);
    let late = async {
        reactor.sleep_until(limit.deadline).await;
        None
    };
    let talk = async { Some(talk(reactor, &stream, check, &mut answer).await) };
    let outcome = match talk.or(late).await {
        Some(outcome) => outcome,
        None => answer
            .ended(&End::Late(in_words(limit)))
            .map_err(Failure::Server),
    };
    let reactor = reactor.clone();
    let leaving = Some(Leaving { reactor, stream });
    Probed { outcome, leaving }
}

async fn connect(
    reactor: &Rc<Reactor>,
    to: To<'_>,
    outgoing: Option<&Outgoing>,
    limit: Limit,
) -> Result<Stream, Failure> {
    let connected = match to {
        To::Unix(path) => connect_unix(reactor, path, limit).await,
        To::Tcp(ips, port) => {
            let dial = Dial {
                deadline: limit.deadline,
                keepalive: None,
                outgoing,
                client: None,
            };
            dial_tcp(reactor, ips, port, dial, &EarlyData::none()).await
        }
    };
    match connected {
        Ok(stream) if stream.leads_to_itself() => Err(Failure::of(
            "connect",
            &io::ErrorKind::ConnectionRefused.into(),
        )),
        Ok(stream) => Ok(stream),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::TimedOut => {
                Failure::Server(format!("connect: no answer within {}", in_words(limit)))
            }
            io::ErrorKind::WouldBlock => {
                Failure::Server("connect: the server's backlog is full".to_owned())
            }
            _ => Failure::of("connect", &error),
        }),
    }
}

/// Connects to a Unix socket. While its backlog is full, as long as the limit allows.
async fn connect_unix(reactor: &Rc<Reactor>, path: &Path, limit: Limit) -> io::Result<Stream> {
    loop {
        let connected = Stream::connect_unix(reactor, path);
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if !connected.as_ref().is_err_and(is_full) || reactor.now() >= limit.deadline {
            return connected;
        }
        let next = reactor.now() + PAUSE;
        reactor.sleep_until(next.min(limit.deadline)).await;
    }
}

/// Sends the request and reads until there is a verdict.
async fn talk(
    reactor: &Reactor,
    stream: &Stream,
    check: &Check,
    answer: &mut Answer<'_>,
) -> Result<(), Failure> {
    let mut unsent = check.request();
    while !unsent.is_empty() {
        let sent = poll_fn(|cx| stream.poll_send(cx, unsent)).await;
        match sent {
            Ok(n) => unsent = &unsent[n..],
            // A server may answer and close before it has read everything: its answer counts.
            Err(_) if check.wants_answer() => break,
            Err(error) => return Err(Failure::of("send", &error)),
        }
    }
    if !check.wants_answer() {
        return Ok(());
    }
    let end = loop {
        let room = answer.room();
        if room == 0 {
            break End::Full;
        }
        let mut verdict = None;
        let n = poll_fn(|cx| {
            reactor.with_scratch(|scratch| {
                let most = room.min(scratch.len());
                let read = stream.poll_recv(cx, &mut scratch[..most]);
                read.map_ok(|n| {
                    if n > 0 {
                        verdict = answer.add(&scratch[..n]);
                    }
                    n
                })
            })
        });
        match n.await {
            Ok(0) => break End::Closed,
            Ok(_) => {}
            Err(error) => return Err(Failure::of("read", &error)),
        }
        if let Some(verdict) = verdict {
            return verdict.map_err(Failure::Server);
        }
    };
    answer.ended(&end).map_err(Failure::Server)
}

fn in_words(limit: Limit) -> String {
    humantime::format_duration(limit.timeout).to_string()
}

/// The connection of a check that is over.
#[derive(Debug)]
pub struct Leaving {
    reactor: Rc<Reactor>,
    stream: Stream,
}

impl Leaving {
    /// How long to wait for the server's end.
    const PATIENCE: Duration = Duration::from_millis(500);
    /// How much of what the server still sends is read.
    const MAX_BYTES: usize = 64 * 1024;

    /// Tells the server that this was all, and waits for its end, but not for long.
    ///
    /// Closing at once would reset a server that is still sending, such as the rest of a page or a
    /// greeting: the kernel does that if anything is unread or arrives later.
    pub async fn leave(self) {
        if self.stream.shutdown_write().is_err() {
            return;
        }
        let mut left = Self::MAX_BYTES;
        let read = async {
            while left > 0 {
                let n = poll_fn(|cx| {
                    let read = |scratch: &mut [u8]| self.stream.poll_recv(cx, scratch);
                    self.reactor.with_scratch(read)
                });
                match n.await {
                    Ok(n) if n > 0 => left = left.saturating_sub(n),
                    _ => break,
                }
            }
        };
        read.or(self.reactor.sleep(Self::PATIENCE)).await;
    }
}
