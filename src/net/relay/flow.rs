//! One direction of a relay.
//!
//! Short messages are copied through the loop's shared buffer. A stream that keeps moving a lot is
//! spliced through a lent pipe. Bytes that one side does not accept are not read from the other: at
//! most 64 KiB are held, in memory or in a pipe, and only while the receiver is blocked.

use std::io;
use std::task::Waker;

use rustix::io::Errno;

use crate::net::buffers::{LentPipe, Unsent};
use crate::net::socket::Stream;

/// Bytes that one direction may move before other tasks run.
const BUDGET_BYTES: usize = 1 << 20;

/// KiB after which a direction is spliced. With less, a pipe does not pay off.
const SPLICE_AFTER_KIB: u16 = 256;

/// Smaller pieces count as messages, for which copying is cheaper. One of them also ends a long
/// stream.
const SMALL_BYTES: usize = 4 * 1024;

/// The most bytes held in a pipe for a receiver that stops reading.
const HELD_BYTES: usize = 64 * 1024;

/// One of the two ends of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that connected to us.
    Client,
    /// The end that we connected to.
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Why a relay ended before both sides had finished.
#[derive(Debug)]
pub struct Broken {
    /// The side that failed.
    pub side: Side,
    /// The error on that side.
    pub error: io::Error,
}

/// Receives reports of the bytes that pass.
pub trait Meter {
    /// Called after the other side has accepted `bytes` from side `from`.
    fn moved(&self, from: Side, bytes: usize);

    /// Returns how many bytes from side `from` may pass now. Called before each read and each send.
    fn allowance(&self, _from: Side) -> usize {
        usize::MAX
    }

    /// Called if nothing from side `from` may pass now. `waker` is to be woken once something may.
    fn paused(&self, _from: Side, _waker: &Waker) {}

    /// Called after side `from` has finished sending and the other side was told.
    fn finished(&self, from: Side);
}

/// One direction of a relay.
pub(super) struct Flow {
    from: Side,
    /// The sender has finished.
    ended: bool,
    /// The receiver was told that the sender has finished.
    done: bool,
    /// The kernel cannot splice these streams.
    copies_only: bool,
    /// The last piece was as large as allowed, so the sender is ahead.
    is_ahead: bool,
    /// KiB passed since the last small message, capped at [`SPLICE_AFTER_KIB`].
    streak: u16,
    /// What was read but not yet accepted by the receiver. Boxed because an idle flow holds
    /// nothing.
    held: Option<Box<Held>>,
}

enum Held {
    Unsent(Unsent),
    Pipe(LentPipe),
}

impl Held {
    fn is_in_pipe(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// Drops `n` bytes that the receiver has accepted.
    ///
    /// Returns true if they were the last.
    fn taken(&mut self, n: usize) -> bool {
        match self {
            Self::Unsent(unsent) => {
                unsent.consume(n);
                unsent.is_empty()
            }
            Self::Pipe(pipe) => {
                pipe.drained(n);
                pipe.held() == 0
            }
        }
    }
}

/// Why a flow has stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// The sender has nothing more, now or ever.
    Dry,
    /// The receiver has no room now.
    Full,
    /// There may be more to do, but other tasks run first.
    Budget,
    /// The meter lets nothing pass now.
    Paused,
}

impl Flow {
    pub(super) fn new(from: Side) -> Self {
        Self {
            from,
            ended: false,
            done: false,
            copies_only: false,
            is_ahead: false,
            streak: 0,
            held: None,
        }
    }

    /// Creates a flow that was already read from.
    ///
    /// `held` is what the receiver has yet to accept.
    pub(super) fn resumed(from: Side, held: Unsent, ended: bool) -> Self {
        let mut flow = Self::new(from);
        flow.ended = ended;
        if !held.is_empty() {
            flow.hold(Held::Unsent(held));
        }
        flow
    }

    /// Returns true if the sender has finished and the receiver was told.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Returns true if the sender has finished.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Drops what is held, because the receiver accepts no more.
    pub(super) fn give_up(&mut self) {
        self.held = None;
    }

    /// Moves what can be moved now, within the budget.
    ///
    /// If `tells_end` is true, the receiver is told when the sender finishes.
    pub(super) fn pump(
        &mut self,
        source: &Stream,
        sink: &Stream,
        tells_end: bool,
        meter: &impl Meter,
    ) -> Result<Pumped, Broken> {
        let reactor = source.reactor();
        let mut budget = reactor.grant(BUDGET_BYTES);
        while !self.done {
            if self.held.is_some() {
                let allowed = meter.allowance(self.from);
                if allowed == 0 {
                    return Ok(Pumped::Paused);
                }
                if !self.release(sink, meter, allowed)? {
                    return Ok(Pumped::Full);
                }
            } else if self.ended {
                if tells_end {
                    let told = sink.shutdown_write();
                    told.map_err(|error| self.sink_broken(error))?;
                }
                self.done = true;
                meter.finished(self.from);
            } else if !source.is_readable() {
                return Ok(Pumped::Dry);
            } else if !sink.is_writable() {
                // Read nothing from the sender while the receiver has no room.
                return Ok(Pumped::Full);
            } else if budget < SMALL_BYTES {
                // A smaller piece would look like a message.
                return Ok(Pumped::Budget);
            } else {
                let allowed = meter.allowance(self.from);
                if allowed == 0 {
                    return Ok(Pumped::Paused);
                }
                let Some(n) = self.take_in(source, sink, budget.min(allowed), meter)? else {
                    return Ok(Pumped::Dry);
                };
                budget = budget.saturating_sub(n);
                reactor.spend(n);
            }
        }
        Ok(Pumped::Dry)
    }

    /// Offers the held bytes to the receiver, at most `allowed` of them.
    ///
    /// Returns false if it accepts none.
    fn release(
        &mut self,
        sink: &Stream,
        meter: &impl Meter,
        allowed: usize,
    ) -> Result<bool, Broken> {
        let Some(held) = &mut self.held else {
            return Ok(true);
        };
        let sent = match &**held {
            Held::Unsent(unsent) => {
                let bytes = unsent.bytes();
                sink.try_send(&bytes[..allowed.min(bytes.len())])
            }
            Held::Pipe(pipe) => sink.try_splice_in(pipe.read_end(), pipe.held().min(allowed)),
        };
        let n = match sent {
            Ok(None) => return Ok(false),
            Ok(Some(n)) => n,
            Err(error) if held.is_in_pipe() && cannot_splice(error) => {
                self.copies_only = true;
                self.pipe_to_unsent(sink)
                    .map_err(|error| self.sink_broken(error))?;
                return Ok(true);
            }
            Err(error) => return Err(self.sink_broken(error)),
        };
        if held.taken(n) {
            self.held = None;
        }
        meter.moved(self.from, n);
        Ok(true)
    }

    /// Returns the pipe to the pool if the receiver stays blocked: once `sink` has aged, moves the
    /// bytes into memory.
    pub(super) fn rest(&mut self, sink: &Stream, has_aged: bool) -> Result<(), Broken> {
        if !self.held.as_ref().is_some_and(|held| held.is_in_pipe()) {
            return Ok(());
        }
        if has_aged {
            let moved = self.pipe_to_unsent(sink);
            return moved.map_err(|error| self.sink_broken(error));
        }
        sink.tell_when_aged();
        Ok(())
    }

    fn hold(&mut self, held: Held) {
        self.held = Some(Box::new(held));
    }

    fn pipe_to_unsent(&mut self, sink: &Stream) -> io::Result<()> {
        if let Some(held) = self.held.take()
            && let Held::Pipe(pipe) = *held
        {
            let unsent = sink.reactor().keep_unsent(&pipe.into_bytes()?)?;
            self.hold(Held::Unsent(unsent));
        }
        Ok(())
    }

    /// Reads once, at most `allowed` bytes, and passes on what the receiver accepts immediately.
    ///
    /// Returns the number of bytes read, or `None` if there are none.
    fn take_in(
        &mut self,
        source: &Stream,
        sink: &Stream,
        allowed: usize,
        meter: &impl Meter,
    ) -> Result<Option<usize>, Broken> {
        let is_long = self.streak >= SPLICE_AFTER_KIB;
        let most = allowed.min(source.reactor().may_splice());
        if is_long
            && !self.copies_only
            && most >= SMALL_BYTES
            && source.can_splice()
            && let Some(pipe) = source.reactor().lend_pipe()
        {
            return self.splice(source, sink, most, pipe);
        }
        self.copy(source, sink, allowed, meter)
    }

    fn copy(
        &mut self,
        source: &Stream,
        sink: &Stream,
        allowed: usize,
        meter: &impl Meter,
    ) -> Result<Option<usize>, Broken> {
        let reactor = source.reactor();
        reactor.with_scratch(|scratch| {
            let most = allowed.min(scratch.len());
            let scratch = &mut scratch[..most];
            // If no more may be held, bytes that the receiver does not accept stay in the sender's
            // kernel buffer.
            let may_hold = reactor.may_hold();
            let received = match may_hold {
                true => source.try_recv(scratch),
                false => source.try_peek(scratch),
            };
            let Some(n) = received.map_err(|error| self.source_broken(error))? else {
                return Ok(None);
            };
            self.took_in(n, most);
            let sent = self.pass(sink, &scratch[..n], meter)?;
            if !may_hold {
                let consumed = source.consume(&mut scratch[..sent]);
                consumed.map_err(|error| self.source_broken(error))?;
            } else if sent < n {
                let unsent = reactor.keep_unsent(&scratch[sent..n]);
                self.hold(Held::Unsent(
                    unsent.map_err(|error| self.source_broken(error))?,
                ));
            }
            Ok(Some(n))
        })
    }

    /// Offers newly read bytes to the receiver and returns how many it accepts.
    ///
    /// No bytes mean the end of the stream.
    fn pass(&mut self, sink: &Stream, bytes: &[u8], meter: &impl Meter) -> Result<usize, Broken> {
        if bytes.is_empty() {
            self.ended = true;
            return Ok(0);
        }
        let sent = sink.try_send(bytes);
        let n = sent.map_err(|error| self.sink_broken(error))?.unwrap_or(0);
        if n > 0 {
            meter.moved(self.from, n);
        }
        Ok(n)
    }

    /// Fills a pipe for [`Flow::release`] to empty.
    ///
    /// Returns the pipe to the pool if there was nothing to read.
    fn splice(
        &mut self,
        source: &Stream,
        sink: &Stream,
        budget: usize,
        mut pipe: LentPipe,
    ) -> Result<Option<usize>, Broken> {
        let most = self.piece(sink).min(pipe.capacity()).min(budget);
        match source.try_splice_out(pipe.write_end(), most) {
            Ok(None) => Ok(None),
            Ok(Some(n)) => {
                self.took_in(n, most);
                self.is_ahead = n == most;
                if n > 0 {
                    pipe.filled(n);
                    self.hold(Held::Pipe(pipe));
                }
                // 0 bytes mean the end or urgent data. The next read tells which.
                Ok(Some(n))
            }
            Err(error) if cannot_splice(error) => {
                self.copies_only = true;
                Ok(Some(0))
            }
            Err(error) => Err(self.source_broken(error)),
        }
    }

    /// Returns how much to put into a pipe.
    ///
    /// That is what may be held for a receiver that stops reading, or the room that the receiver
    /// has, if that is more and the sender is ahead.
    fn piece(&self, sink: &Stream) -> usize {
        let room = match self.is_ahead {
            true => sink.room().unwrap_or(0),
            false => 0,
        };
        room.max(HELD_BYTES)
    }

    /// Records the size of a piece that may have had `most` bytes.
    ///
    /// Small pieces end a long stream, unless no more was allowed.
    fn took_in(&mut self, n: usize, most: usize) {
        self.streak = if n < SMALL_BYTES.min(most) {
            0
        } else {
            let kib = u16::try_from(n / 1024).unwrap_or(u16::MAX);
            self.streak.saturating_add(kib).min(SPLICE_AFTER_KIB)
        };
    }

    fn source_broken(&self, error: impl Into<io::Error>) -> Broken {
        Broken {
            side: self.from,
            error: error.into(),
        }
    }

    fn sink_broken(&self, error: impl Into<io::Error>) -> Broken {
        Broken {
            side: self.from.other(),
            error: error.into(),
        }
    }
}

/// Returns true for errors that concern splice(2) rather than the stream.
fn cannot_splice(error: Errno) -> bool {
    matches!(
        error,
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOMEM
    )
}
