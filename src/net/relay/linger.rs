//! What is left of a relay of which one side has broken: what that side had sent still reaches the other, and then its reset does.
//!
//! That a peer cannot be sent to says nothing of what it had sent before, which the kernel keeps to be read. And resetting a connection
//! discards what its kernel has not acknowledged. So this *delivers* until the broken side, the source, has nothing left to read,
//! and then *waits* until the other, the sink, has acknowledged it. The reset itself is the drop of the streams.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::flow::{Broken, Flow, Meter, Pumped, Side};
use crate::net::reactor::Sleep;
use crate::net::socket::Stream;

/// The first pause before the next look at what the sink has acknowledged, of which the kernel reports no event. It doubles.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The longest time for which the sink may take nothing, and then the longest wait for its acknowledgement of the rest; and the longest
/// silence of a source that could go on. By default keep-alive gives a vanished peer as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is left to do.
pub(super) struct Linger {
    broken: Broken,
    /// An end that is read from the source is its own.
    ends: bool,
    /// The source only receives no more. When it ends is up to it, but it may also wait for what it can no longer be sent: a silence of
    /// [`PATIENCE`] is taken for that.
    waits_for_end: bool,
    /// When the source was last heard of.
    heard: Instant,
    /// The sink's kernel has all of it.
    delivered: bool,
    /// When the sink last took something, or when the last of it was delivered.
    since: Instant,
    /// The bytes that the sink had not acknowledged at the last look.
    queued: usize,
    next_look: Sleep,
    pause: Duration,
}

/// How far the delivery has come.
#[derive(PartialEq, Eq)]
enum Step {
    /// Bytes are left, or may still come. Their task will be woken.
    More,
    /// The sink has no room for them at this moment.
    Blocked,
    /// All of it is delivered.
    Delivered,
    /// The sink has broken too.
    Failed,
}

impl Linger {
    /// Begins after `source` has broken. `flow` is the one from it.
    pub(super) fn after(broken: Broken, source: &Stream, flow: &Flow) -> Self {
        source.look_again();
        let now = source.reactor().now();
        Self {
            ends: flow.has_ended() || leaves_the_end_to_read(&broken.error),
            // One that could not be told of an end may wait for it for ever.
            waits_for_end: is(&broken.error, Errno::PIPE) && source.breaks_one_way(),
            broken,
            heard: now,
            delivered: false,
            since: now,
            queued: 0,
            next_look: source.reactor().sleep_until(now),
            pause: PAUSE_MIN,
        }
    }

    /// The source.
    pub(super) fn side(&self) -> Side {
        self.broken.side
    }

    pub(super) fn into_broken(self) -> Broken {
        self.broken
    }

    /// Ready when nothing more can be done for the sink.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        sink: &Stream,
        flow: &mut Flow,
        meter: &impl Meter,
    ) -> Poll<()> {
        let now = source.reactor().now();
        let mut step = Step::Delivered;
        if !self.delivered {
            if sink.is_writable() {
                self.since = now;
            }
            if source.is_readable() {
                self.heard = now;
            }
            step = self.deliver(cx, source, sink, flow, meter);
        }
        let gone = step == Step::Failed
            || sink.failure().is_some()
            || sink.wait(cx, step == Step::Blocked).is_err();
        if gone {
            return Poll::Ready(());
        }
        if step == Step::More {
            return self.poll_silence(cx, now);
        }
        if step == Step::Delivered && !self.delivered {
            self.delivered = true;
            self.since = now;
            self.pause = PAUSE_MIN;
            self.next_look.reset(now);
        }
        self.poll_taken(cx, sink, now)
    }

    /// Ready when the source has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        if !self.waits_for_end {
            return Poll::Pending;
        }
        let until = self.heard + PATIENCE;
        if now >= until {
            return Poll::Ready(());
        }
        self.next_look.reset(until);
        Pin::new(&mut self.next_look).poll(cx)
    }

    fn deliver(
        &self,
        cx: &mut Context<'_>,
        source: &Stream,
        sink: &Stream,
        flow: &mut Flow,
        meter: &impl Meter,
    ) -> Step {
        match flow.pump(source, sink, self.ends, meter) {
            Ok(Pumped::Full) => Step::Blocked,
            Ok(Pumped::Budget) => {
                source.reactor().wake_next_iteration(cx.waker());
                Step::More
            }
            Ok(Pumped::Dry) if self.waits_for_end && !flow.is_done() => {
                match source.wait(cx, false) {
                    Ok(()) => Step::More,
                    Err(_) => Step::Delivered,
                }
            }
            Ok(Pumped::Dry) => Step::Delivered,
            Err(broken) if broken.side == self.side() => Step::Delivered,
            Err(_) => Step::Failed,
        }
    }

    /// Ready when the sink has acknowledged all that was delivered, or has taken nothing for too long.
    fn poll_taken(&mut self, cx: &mut Context<'_>, sink: &Stream, now: Instant) -> Poll<()> {
        loop {
            ready!(Pin::new(&mut self.next_look).poll(cx));
            let queued = sink.unacknowledged();
            if self.delivered && queued == 0 {
                return Poll::Ready(());
            }
            if !self.delivered && queued != self.queued {
                self.since = now;
            }
            self.queued = queued;
            if now.saturating_duration_since(self.since) >= PATIENCE {
                return Poll::Ready(());
            }
            self.next_look.reset(now + self.pause);
            self.pause = (2 * self.pause).min(PAUSE_MAX);
        }
    }
}

/// True for errors of sending that leave it to reading to tell whether the peer had finished before: a TCP peer that has is why it
/// is EPIPE, and a Unix peer's reset is still to be read. Other errors have been taken from the socket, which then reads as ended.
fn leaves_the_end_to_read(error: &io::Error) -> bool {
    is(error, Errno::PIPE) || is(error, Errno::NOTCONN)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
