//! One coarse tick for all idle and half-close timeouts: no connection has a timer of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

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

/// Why this connection has to end, if it has to. While it is dialling, `dial_timeout` is what limits it.
fn reason(conn: &Conn, now: Instant, pauses: &Pauses) -> Option<CloseReason> {
    let timeouts = conn.entrypoint.timeouts.get();
    let silent = pauses.awake(conn.last_activity(), now);
    let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| silent >= limit);
    match conn.phase() {
        Phase::Dialling => None,
        Phase::HalfClosed if is_over(timeouts.half_close) => Some(CloseReason::HalfCloseTimeout),
        _ if is_over(timeouts.idle) => Some(CloseReason::IdleTimeout),
        _ => None,
    }
}

/// How long to wait until the next sweep; `None` if no entrypoint that lives has a timeout.
pub(super) fn tick(shared: &Shared) -> Option<Duration> {
    let entrypoints = shared.registry.entrypoints();
    let timeouts = entrypoints.iter().map(|it| it.timeouts.get());
    let timeouts = timeouts.flat_map(|it| [it.idle, it.half_close]);
    let shortest = timeouts.flatten().min()?;
    Some((shortest / TICKS_PER_TIMEOUT).clamp(TICK_MIN, TICK_MAX))
}

/// Sweeps each `tick` until it is cancelled. `pauses` are those of earlier sweeps.
pub(super) async fn sweep(
    reactor: Rc<Reactor>,
    shared: Rc<Shared>,
    pauses: Rc<RefCell<Pauses>>,
    tick: Duration,
) {
    loop {
        let due = reactor.now() + tick;
        reactor.sleep_until(due).await;
        let late = reactor.now().saturating_duration_since(due);
        if late >= PAUSE_MIN {
            pauses.borrow_mut().add(late, reactor.now());
            // The next iteration of the loop, in which what has come meanwhile is read before this task is woken.
            reactor.sleep(Duration::from_millis(1)).await;
        }
        let now = reactor.now();
        let conns = &shared.conns;
        let overdue = conns.overdue(|conn| reason(conn, now, &pauses.borrow()));
        for (id, reason) in overdue {
            conns.kill(id, reason, now);
        }
    }
}
