//! The end of a relay after one side has broken: what that side had sent still reaches the other
//! side, followed by a reset.
//!
//! A failure to send to a peer says nothing about what the peer had sent before, which the kernel
//! keeps to be read. And resetting a connection discards what its peer's kernel has not
//! acknowledged. So this *delivers* until the broken side, the source, has nothing left to read,
//! and then *waits* until the other side, the sink, has acknowledged it. Dropping the streams sends
//! the reset.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::flow::{Broken, Flow, Meter, Pumped, Side};
use crate::net::reactor::Sleep;
use crate::net::socket::Stream;
use crate::state::Backoff;

/// The first pause before checking again what the sink has acknowledged. The kernel reports no
/// event for that.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long to wait: for a sink that accepts nothing, then for its acknowledgement of the rest, and
/// for a source that is silent but could continue. Keep-alive gives a vanished peer the same time
/// by default.
const PATIENCE: Duration = Duration::from_secs(120);

/// The state of a lingering relay.
pub(super) struct Linger {
    broken: Broken,
    /// True if an end of stream that is read from the source was sent by the peer.
    ends: bool,
    /// True if the source only stopped receiving. It may still send and finish, or it may wait for
    /// bytes that can no longer be sent to it. A silence of [`PATIENCE`] is taken to mean the
    /// latter.
    waits_for_end: bool,
    /// When the source was last readable.
    heard: Instant,
    /// True once the sink's kernel buffer has accepted everything.
    delivered: bool,
    /// When the sink last accepted something, or when delivery ended.
    since: Instant,
    /// The bytes that the sink had not acknowledged at the last check.
    queued: usize,
    next_look: Sleep,
    pauses: Backoff,
}

/// The progress of the delivery.
#[derive(PartialEq, Eq)]
enum Step {
    /// Bytes are left or may still arrive. The task will be woken for them.
    More,
    /// The sink has no room now.
    Blocked,
    /// Everything is delivered.
    Delivered,
    /// The sink has broken, too.
    Failed,
}

impl Linger {
    /// Starts after `source` has broken.
    ///
    /// `flow` is the direction from it.
    pub(super) fn after(broken: Broken, source: &Stream, flow: &Flow) -> Self {
        source.look_again();
        let now = source.reactor().now();
        Self {
            ends: flow.has_ended() || leaves_the_end_to_read(&broken.error),
            // A peer that could not be told of the end may wait for it forever.
            waits_for_end: is(&broken.error, Errno::PIPE) && source.breaks_one_way(),
            broken,
            heard: now,
            delivered: false,
            since: now,
            queued: 0,
            next_look: source.reactor().sleep_until(now),
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX),
        }
    }

    /// Returns the source's side.
    pub(super) fn side(&self) -> Side {
        self.broken.side
    }

    pub(super) fn into_broken(self) -> Broken {
        self.broken
    }

    /// Completes when nothing more can be done for the sink.
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
            self.pauses.reset();
            self.next_look.reset(now);
        }
        self.poll_taken(cx, sink, now)
    }

    /// Completes when the source has been silent for too long.
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
            Ok(Pumped::Paused) => {
                meter.paused(self.side(), cx.waker());
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

    /// Completes when the sink has acknowledged everything delivered, or has accepted nothing for
    /// too long.
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
            self.next_look.reset(now + self.pauses.pause());
        }
    }
}

/// Returns true for send errors after which only reading can tell whether the peer had finished.
///
/// With EPIPE, a TCP peer had finished before, and a Unix peer's reset is still to be read. Other
/// errors were removed from the socket by reporting them, and it then reads as ended.
fn leaves_the_end_to_read(error: &io::Error) -> bool {
    is(error, Errno::PIPE) || is(error, Errno::NOTCONN)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
