//! One direction of a relay.
//!
//! Short messages are copied through the loop's one buffer; a stream that keeps moving much is spliced through a lent pipe. What
//! one side does not take is not read from the other: at most 64 KiB are held, in memory or in a pipe, and only while the
//! receiver is blocked.

use std::io;

use rustix::io::Errno;

use crate::net::buffers::{LentPipe, Unsent};
use crate::net::socket::Stream;

/// Bytes that one direction may move before the other tasks get their turn.
const BUDGET_BYTES: usize = 1 << 20;

/// KiB after which a direction is spliced: less is moved before a pipe has paid for itself.
const SPLICE_AFTER_KIB: u16 = 256;

/// Less than this at once is a message, for which copying is cheaper. It ends a long stream, too.
const SMALL_BYTES: usize = 4 * 1024;

/// The most that is held in a pipe for a receiver that stops.
const HELD_BYTES: usize = 64 * 1024;

/// One of the two ends of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
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

/// One direction.
pub(super) struct Flow {
    from: Side,
    /// The sender has finished.
    ended: bool,
    /// The receiver has been told so.
    done: bool,
    /// The kernel cannot splice these streams.
    copies_only: bool,
    /// The last piece filled all that it might: the sender is ahead.
    is_ahead: bool,
    /// KiB passed since the last small message, as far as it matters.
    streak: u16,
    /// What was read, but not yet taken by the receiver. Boxed, since an idle flow has nothing.
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

    /// Forgets `n` bytes that the receiver has taken. True if they were the last.
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
    /// The sender has nothing more at this moment, or for ever.
    Dry,
    /// The receiver has no room at this moment.
    Full,
    /// There may be more to do; others come first.
    Budget,
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

    /// One of which something was read already: `held` is what the receiver has yet to take.
    pub(super) fn resumed(from: Side, held: Unsent, ended: bool) -> Self {
        let mut flow = Self::new(from);
        flow.ended = ended;
        if !held.is_empty() {
            flow.hold(Held::Unsent(held));
        }
        flow
    }

    /// True when the sender has finished and the receiver has been told.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// True when the sender has finished.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Drops what is held: the receiver takes no more.
    pub(super) fn give_up(&mut self) {
        self.held = None;
    }

    /// Moves what can be moved at this moment, within the budget. `tells_end` is whether the receiver is told of the sender's end.
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
                if !self.release(sink, meter)? {
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
                // As long as the receiver has no room, nothing is taken from the sender.
                return Ok(Pumped::Full);
            } else if budget < SMALL_BYTES {
                // A smaller piece would look like a message.
                return Ok(Pumped::Budget);
            } else {
                let Some(n) = self.take_in(source, sink, budget, meter)? else {
                    return Ok(Pumped::Dry);
                };
                budget = budget.saturating_sub(n);
                reactor.spend(n);
            }
        }
        Ok(Pumped::Dry)
    }

    /// Offers what is held to the receiver. False if it takes nothing.
    fn release(&mut self, sink: &Stream, meter: &impl Meter) -> Result<bool, Broken> {
        let Some(held) = &mut self.held else {
            return Ok(true);
        };
        let sent = match &**held {
            Held::Unsent(unsent) => sink.try_send(unsent.bytes()),
            Held::Pipe(pipe) => sink.try_splice_in(pipe.read_end(), pipe.held()),
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

    /// Gives a lent pipe back whose receiver stays blocked: after `sink` has been told to have aged, its bytes are held in memory.
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

    /// Reads once, and passes on at once what the receiver takes. The number of bytes read; `None` if none are there.
    fn take_in(
        &mut self,
        source: &Stream,
        sink: &Stream,
        budget: usize,
        meter: &impl Meter,
    ) -> Result<Option<usize>, Broken> {
        let is_long = self.streak >= SPLICE_AFTER_KIB;
        let most = budget.min(source.reactor().may_splice());
        if is_long
            && !self.copies_only
            && most >= SMALL_BYTES
            && source.can_splice()
            && let Some(pipe) = source.reactor().lend_pipe()
        {
            return self.splice(source, sink, most, pipe);
        }
        self.copy(source, sink, meter)
    }

    fn copy(
        &mut self,
        source: &Stream,
        sink: &Stream,
        meter: &impl Meter,
    ) -> Result<Option<usize>, Broken> {
        let reactor = source.reactor();
        reactor.with_scratch(|scratch| {
            // Where no more may be held, what the receiver does not take stays in the sender's kernel buffer.
            let may_hold = reactor.may_hold();
            let received = match may_hold {
                true => source.try_recv(scratch),
                false => source.try_peek(scratch),
            };
            let Some(n) = received.map_err(|error| self.source_broken(error))? else {
                return Ok(None);
            };
            self.took_in(n);
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

    /// Offers what was just read to the receiver, and returns how many bytes it has taken. No bytes are the end.
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

    /// Fills a pipe, which [`Flow::release`] then empties. The pipe goes back at once if nothing was there.
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
                self.took_in(n);
                self.is_ahead = n == most;
                if n > 0 {
                    pipe.filled(n);
                    self.hold(Held::Pipe(pipe));
                }
                // None at all is the end or urgent data; which it is, the next read says.
                Ok(Some(n))
            }
            Err(error) if cannot_splice(error) => {
                self.copies_only = true;
                Ok(Some(0))
            }
            Err(error) => Err(self.source_broken(error)),
        }
    }

    /// How much to put into a pipe: what may be held in it for a receiver that stops, or what the receiver has room for, if that
    /// is more and the sender has as much.
    fn piece(&self, sink: &Stream) -> usize {
        let room = match self.is_ahead {
            true => sink.room().unwrap_or(0),
            false => 0,
        };
        room.max(HELD_BYTES)
    }

    /// Notes how much came at once. Small pieces end a long stream.
    fn took_in(&mut self, n: usize) {
        self.streak = if n < SMALL_BYTES {
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

/// True for errors that say something of splice(2), not of the stream.
fn cannot_splice(error: Errno) -> bool {
    matches!(
        error,
        Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOMEM
    )
}
