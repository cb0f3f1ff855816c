//! One coarse tick for all idle and half-close timeouts: no connection has a timer of its own.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config;
use crate::net::Reactor;
use crate::state::{CloseReason, Conn, Pauses, Phase, Shared};

/// How often the shortest timeout is looked after, so that a connection outlives it by a quarter at most.
const TICKS_PER_TIMEOUT: u32 = 4;
/// A tick is no shorter than this.
const TICK_MIN: Duration = Duration::from_millis(50);
/// A tick is no longer than this.
const TICK_MAX: Duration = Duration::from_secs(5);

/// A tick that comes so much too late tells of a pause of the program: it was stopped, frozen or had no processor.
const PAUSE_MIN: Duration = Duration::from_millis(25);

/// An entrypoint's timeouts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    idle: Option<Duration>,
    half_close: Option<Duration>,
}

impl Limits {
    pub(super) fn of(entrypoint: &config::Entrypoint) -> Self {
        Self {
            idle: entrypoint.idle_timeout,
            half_close: entrypoint.half_close_timeout,
        }
    }

    /// Why this connection has to end, if it has to. While it is dialling, `dial_timeout` is what limits it.
    fn reason(self, conn: &Conn, now: Instant, pauses: &Pauses) -> Option<CloseReason> {
        let silent = pauses.awake(conn.last_activity(), now);
        let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| silent >= limit);
        match conn.phase() {
            Phase::Dialling => None,
            Phase::HalfClosed if is_over(self.half_close) => Some(CloseReason::HalfCloseTimeout),
            _ if is_over(self.idle) => Some(CloseReason::IdleTimeout),
            _ => None,
        }
    }
}

/// Sweeps for ever; nothing, if no entrypoint has a timeout. `limits` has one element per entrypoint, in their order.
pub(super) fn sweep(
    reactor: Rc<Reactor>,
    shared: Rc<Shared>,
    limits: Vec<Limits>,
) -> Option<impl Future<Output = ()>> {
    let timeouts = limits
        .iter()
        .flat_map(|limit| [limit.idle, limit.half_close]);
    let shortest = timeouts.flatten().min()?;
    let tick = (shortest / TICKS_PER_TIMEOUT).clamp(TICK_MIN, TICK_MAX);
    Some(async move {
        let mut pauses = Pauses::default();
        loop {
            let due = reactor.now() + tick;
            reactor.sleep_until(due).await;
            let late = reactor.now().saturating_duration_since(due);
            if late >= PAUSE_MIN {
                pauses.add(late, reactor.now());
                // The next turn of the loop, in which what has come meanwhile is read before this task is woken.
                reactor.sleep(Duration::from_millis(1)).await;
            }
            let now = reactor.now();
            let conns = &shared.conns;
            let limit = |conn: &Conn| limits[conn.entrypoint.index];
            let overdue = conns.overdue(|conn| limit(conn).reason(conn, now, &pauses));
            for (id, reason) in overdue {
                conns.kill(id, reason, now);
            }
        }
    })
}
