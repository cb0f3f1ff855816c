//! Copying both ways between two streams until both have finished, or one breaks.
//!
//! What one side does not take is not read from the other: at most one scratch buffer's worth is held per direction, and
//! only while the receiver is blocked. An idle relay holds no buffer.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::stream::Stream;

/// Bytes that one direction may move before the other tasks get their turn.
const BUDGET_BYTES: usize = 256 * 1024;

/// One of the two ends of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Server,
}

/// A relay that ended before both sides had finished.
#[derive(Debug)]
pub struct Broken {
    /// The side that failed.
    pub side: Side,
    /// How.
    pub error: io::Error,
}

/// Is told what passes.
pub trait Meter {
    /// `bytes` from side `from` were taken by the other side.
    fn moved(&self, from: Side, bytes: usize);

    /// Side `from` has finished sending, and the other has been told.
    fn finished(&self, from: Side);
}

/// Copies both ways until both sides have finished sending. A side that has finished still receives for as long as the other
/// sends. The streams are then marked finished; otherwise dropping them resets both.
///
/// # Errors
/// The side that broke, and how.
pub async fn relay(client: &Stream, server: &Stream, meter: &impl Meter) -> Result<(), Broken> {
    let mut upload = Flow::new(Side::Client);
    let mut download = Flow::new(Side::Server);
    poll_fn(|cx| {
        let up = upload.pump(cx, client, server, download.done, meter)?;
        let down = download.pump(cx, server, client, upload.done, meter)?;
        if upload.done && download.done {
            return Poll::Ready(Ok(()));
        }
        // A failure shows even where nobody reads or writes at this moment.
        for (side, stream) in [(Side::Client, client), (Side::Server, server)] {
            if let Poll::Ready(error) = stream.poll_broken(cx) {
                return Poll::Ready(Err(Broken { side, error }));
            }
        }
        if up == Pumped::Budget || down == Pumped::Budget {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await?;
    client.finish();
    server.finish();
    Ok(())
}

/// One direction.
struct Flow {
    from: Side,
    /// Read, but not yet taken by the receiver. Empty, and without memory, unless the receiver is blocked.
    spill: Spill,
    /// The sender has finished.
    ended: bool,
    /// The receiver has been told so.
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// Nothing more can be done before an event.
    Blocked,
    /// There may be more to do; others come first.
    Budget,
}

impl Flow {
    fn new(from: Side) -> Self {
        Self {
            from,
            spill: Spill::default(),
            ended: false,
            done: false,
        }
    }

    fn pump(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        sink: &Stream,
        other_done: bool,
        meter: &impl Meter,
    ) -> Result<Pumped, Broken> {
        let mut budget = BUDGET_BYTES;
        while !self.done {
            if !self.spill.is_empty() {
                match sink.poll_send(cx, self.spill.bytes()) {
                    Poll::Pending => return Ok(Pumped::Blocked),
                    Poll::Ready(sent) => {
                        let n = sent.map_err(|error| self.sink_broken(error))?;
                        self.spill.consume(n);
                        meter.moved(self.from, n);
                    }
                }
            } else if self.ended {
                // Where this was the last direction, closing says the same.
                if !other_done {
                    let told = sink.shutdown_write();
                    told.map_err(|error| self.sink_broken(error))?;
                }
                self.done = true;
                meter.finished(self.from);
            } else if budget == 0 {
                return Ok(Pumped::Budget);
            } else {
                let passed = source.reactor().with_scratch(|scratch| {
                    let Poll::Ready(received) = source.poll_recv(cx, scratch) else {
                        return Poll::Pending;
                    };
                    let n = received.map_err(|error| self.source_broken(error))?;
                    self.pass(cx, sink, &scratch[..n], meter)?;
                    Poll::Ready(Ok(n))
                });
                match passed {
                    Poll::Pending => return Ok(Pumped::Blocked),
                    Poll::Ready(passed) => budget = budget.saturating_sub(passed?),
                }
            }
        }
        Ok(Pumped::Blocked)
    }

    /// Offers what was just read to the receiver and keeps what it does not take. No bytes are the end.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Stream,
        bytes: &[u8],
        meter: &impl Meter,
    ) -> Result<(), Broken> {
        if bytes.is_empty() {
            self.ended = true;
            return Ok(());
        }
        let sent = match sink.poll_send(cx, bytes) {
            Poll::Pending => 0,
            Poll::Ready(sent) => sent.map_err(|error| self.sink_broken(error))?,
        };
        if sent > 0 {
            meter.moved(self.from, sent);
        }
        if sent < bytes.len() {
            self.spill = Spill::new(&bytes[sent..]);
        }
        Ok(())
    }

    fn source_broken(&self, error: io::Error) -> Broken {
        let side = self.from;
        Broken { side, error }
    }

    fn sink_broken(&self, error: io::Error) -> Broken {
        let side = match self.from {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Broken { side, error }
    }
}

/// Bytes that wait for a blocked receiver.
#[derive(Default)]
struct Spill {
    bytes: Box<[u8]>,
    start: usize,
}

impl Spill {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            start: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
