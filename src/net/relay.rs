//! Passing bytes both ways between two streams until both have finished, or one breaks.
//!
//! Short messages are copied through the loop's one buffer; a stream that keeps moving much is spliced through a lent pipe. What
//! one side does not take is not read from the other: at most one buffer's or one pipe's worth is held per direction, and
//! only while the receiver is blocked. An idle relay holds nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;

use super::opening::Opening;
use super::pipes::Lent;
use super::spill::Spill;
use super::stream::Stream;

/// Bytes that one direction may move before the other tasks get their turn.
const BUDGET_BYTES: usize = 1 << 20;

/// Bytes after which a direction is spliced: less is moved before a pipe has paid for itself.
const SPLICE_AFTER_BYTES: usize = 256 * 1024;

/// Less than this at once is a message, for which copying is cheaper. It ends a long stream, too.
const SMALL_BYTES: usize = 4 * 1024;

/// What goes into a pipe at once, and so the most that is held in it for a receiver that stops.
const FILL_BYTES: usize = 64 * 1024;

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

/// Passes bytes both ways until both sides have finished sending. A side that has finished still receives for as long as the other
/// sends. The streams are then marked finished; otherwise dropping them resets both. `opening` is what has happened to the
/// client's first bytes.
pub fn relay<'a, M: Meter>(
    client: &'a Stream,
    server: &'a Stream,
    opening: Opening<'_>,
    meter: &'a M,
) -> Relay<'a, M> {
    let opening = opening.into_read();
    let mut upload = Flow::new(Side::Client);
    upload.ended = opening.ended;
    if !opening.held.is_empty() {
        upload.held = Held::Spill(opening.held);
    }
    if opening.taken > 0 {
        meter.moved(Side::Client, opening.taken);
    }
    let client_broke = opening.error.map(|error| (Side::Client, error));
    let server_broke = server.take_broke().map(|error| (Side::Server, error));
    Relay {
        client,
        server,
        meter,
        broke: client_broke.or(server_broke),
        upload,
        download: Flow::new(Side::Server),
    }
}

/// The future of [`relay`]. It is most of what an idle connection is made of, hence a struct: an async function keeps its arguments
/// twice.
pub struct Relay<'a, M> {
    client: &'a Stream,
    server: &'a Stream,
    meter: &'a M,
    /// The side that broke before this began.
    broke: Option<(Side, io::Error)>,
    upload: Flow,
    download: Flow,
}

impl<M> std::fmt::Debug for Relay<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl<M: Meter> Future for Relay<'_, M> {
    /// An error says which side broke, and how.
    type Output = Result<(), Broken>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (client, server) = (this.client, this.server);
        let (upload, download) = (&mut this.upload, &mut this.download);
        if let Some((side, error)) = this.broke.take() {
            return Poll::Ready(Err(Broken { side, error }));
        }
        server.upkeep();
        let up = upload.pump(cx, client, server, download.done, this.meter)?;
        let down = download.pump(cx, server, client, upload.done, this.meter)?;
        if upload.done && download.done {
            client.finish();
            server.finish();
            return Poll::Ready(Ok(()));
        }
        // A failure shows even where nobody reads or writes at this moment.
        for (side, stream) in [(Side::Client, client), (Side::Server, server)] {
            if let Poll::Ready(error) = stream.poll_broken(cx) {
                return Poll::Ready(Err(Broken { side, error }));
            }
        }
        if up == Pumped::Budget || down == Pumped::Budget {
            client.reactor().wake_next_turn(cx.waker());
        }
        Poll::Pending
    }
}

/// One direction.
struct Flow {
    from: Side,
    /// The sender has finished.
    ended: bool,
    /// The receiver has been told so.
    done: bool,
    /// The kernel cannot splice these streams.
    copies_only: bool,
    /// Bytes passed since the last small message, as far as it matters.
    streak: u32,
    held: Held,
}

/// What was read, but not yet taken by the receiver. Nothing, unless the receiver is blocked.
enum Held {
    Nothing,
    Spill(Spill),
    Pipe(Lent),
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
            ended: false,
            done: false,
            copies_only: false,
            streak: 0,
            held: Held::Nothing,
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
        let reactor = source.reactor();
        let mut budget = reactor.grant(BUDGET_BYTES);
        while !self.done {
            if !matches!(self.held, Held::Nothing) {
                if self.release(cx, sink, meter)?.is_pending() {
                    return Ok(Pumped::Blocked);
                }
            } else if self.ended {
                // Where this was the last direction, closing says the same.
                if !other_done {
                    let told = sink.shutdown_write();
                    told.map_err(|error| self.sink_broken(error))?;
                }
                self.done = true;
                meter.finished(self.from);
            } else if budget < SMALL_BYTES {
                // A smaller piece would look like a message.
                return Ok(Pumped::Budget);
            } else {
                let Poll::Ready(n) = self.take_in(cx, source, sink, budget, meter)? else {
                    return Ok(Pumped::Blocked);
                };
                budget = budget.saturating_sub(n);
                reactor.spend(n);
            }
        }
        Ok(Pumped::Blocked)
    }

    /// Offers what is held to the receiver.
    fn release(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Stream,
        meter: &impl Meter,
    ) -> Result<Poll<()>, Broken> {
        let sent = match &self.held {
            Held::Nothing => return Ok(Poll::Ready(())),
            Held::Spill(spill) => sink.poll_send(cx, spill.bytes()),
            Held::Pipe(pipe) => sink.poll_splice_in(cx, pipe.read_end(), pipe.held()),
        };
        let n = match sent {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) if self.is_in_pipe() && cannot_splice(&error) => {
                self.copies_only = true;
                self.pipe_to_spill()
                    .map_err(|error| self.sink_broken(error))?;
                return Ok(Poll::Ready(()));
            }
            Poll::Ready(Err(error)) => return Err(self.sink_broken(error)),
        };
        meter.moved(self.from, n);
        let left = match &mut self.held {
            Held::Nothing => 0,
            Held::Spill(spill) => {
                spill.consume(n);
                spill.bytes().len()
            }
            Held::Pipe(pipe) => {
                pipe.drained(n);
                pipe.held()
            }
        };
        if left == 0 {
            self.held = Held::Nothing;
        }
        Ok(Poll::Ready(()))
    }

    fn is_in_pipe(&self) -> bool {
        matches!(self.held, Held::Pipe(_))
    }

    fn pipe_to_spill(&mut self) -> io::Result<()> {
        if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            self.held = Held::Spill(Spill::new(&pipe.into_bytes()?));
        }
        Ok(())
    }

    /// Reads once, and passes on at once what the receiver takes. Ready with the number of bytes read.
    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        sink: &Stream,
        budget: usize,
        meter: &impl Meter,
    ) -> Result<Poll<usize>, Broken> {
        let is_long = self.streak >= SPLICE_AFTER_BYTES as u32;
        if is_long
            && !self.copies_only
            && source.can_splice()
            && let Some(pipe) = source.reactor().lend_pipe()
        {
            return self.splice(cx, source, sink, budget, pipe);
        }
        self.copy(cx, source, sink, meter)
    }

    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        sink: &Stream,
        meter: &impl Meter,
    ) -> Result<Poll<usize>, Broken> {
        source.reactor().with_scratch(|scratch| {
            let Poll::Ready(received) = source.poll_recv(cx, scratch) else {
                return Ok(Poll::Pending);
            };
            let n = received.map_err(|error| self.source_broken(error))?;
            self.took_in(n);
            self.pass(cx, sink, &scratch[..n], meter)?;
            Ok(Poll::Ready(n))
        })
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
            self.held = Held::Spill(Spill::new(&bytes[sent..]));
        }
        Ok(())
    }

    /// Fills a pipe, which [`Flow::release`] then empties. The pipe goes back at once if nothing was there.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        sink: &Stream,
        budget: usize,
        mut pipe: Lent,
    ) -> Result<Poll<usize>, Broken> {
        // As long as the receiver has no room, nothing is taken from the sender.
        match sink.poll_writable(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(writable) => writable.map_err(|error| self.sink_broken(error))?,
        }
        let most = pipe.capacity().min(FILL_BYTES).min(budget);
        match source.poll_splice_out(cx, pipe.write_end(), most) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(n)) => {
                self.took_in(n);
                if n > 0 {
                    pipe.filled(n);
                    self.held = Held::Pipe(pipe);
                }
                // None at all is the end or urgent data; which it is, the next read says.
                Ok(Poll::Ready(n))
            }
            Poll::Ready(Err(error)) if cannot_splice(&error) => {
                self.copies_only = true;
                Ok(Poll::Ready(0))
            }
            Poll::Ready(Err(error)) => Err(self.source_broken(error)),
        }
    }

    /// Notes how much came at once. Small pieces end a long stream.
    fn took_in(&mut self, n: usize) {
        self.streak = if n < SMALL_BYTES {
            0
        } else {
            let most = SPLICE_AFTER_BYTES as u32;
            most.min(self.streak.saturating_add(n as u32))
        };
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

/// True for errors that say something of splice(2), not of the stream.
fn cannot_splice(error: &io::Error) -> bool {
    let refused = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| refused.contains(&errno))
}
