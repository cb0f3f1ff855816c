//! One coarse tick for all idle and half-close timeouts, so that no connection needs its own timer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::Reactor;
use crate::state::{CloseReason, Conn, Pauses, Phase, Shared};

/// How many ticks the shortest timeout spans, so that a connection outlives it by at most a
/// quarter.
const TICKS_PER_TIMEOUT: u32 = 4;
/// The shortest tick.
const TICK_MIN: Duration = Duration::from_millis(50);
/// The longest tick.
const TICK_MAX: Duration = Duration::from_secs(5);

/// A tick that is this late reveals a pause of the program: it was stopped, frozen or had no
/// processor.
const PAUSE_MIN: Duration = Duration::from_millis(25);

/// Returns why this connection must end, if it must. A connection that is still dialling is limited
/// by `dial_timeout` instead, and one whose prologue is awaited by `prologue_timeout`.
fn reason(conn: &Conn, now: Instant, pauses: &Pauses) -> Option<CloseReason> {
    let timeouts = conn.entrypoint.timeouts.get();
    let silent = pauses.awake(conn.last_activity(), now);
    // Its silence is ours.
    if conn.is_paused() {
        return None;
    }
    let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| silent >= limit);
    match conn.phase() {
        Phase::Prologue | Phase::Dialling | Phase::Queued => None,
        Phase::HalfClosed if is_over(timeouts.half_close) => Some(CloseReason::HalfCloseTimeout),
        _ if is_over(timeouts.idle) => Some(CloseReason::IdleTimeout),
        _ => None,
    }
}

/// Returns how long to wait until the next sweep, or `None` if no live entrypoint has a timeout.
pub(super) fn tick(shared: &Shared) -> Option<Duration> {
    let entrypoints = shared.registry.entrypoints();
    let timeouts = entrypoints.iter().map(|it| it.timeouts.get());
    let timeouts = timeouts.flat_map(|it| [it.idle, it.half_close]);
    let shortest = timeouts.flatten().min()?;
    Some((shortest / TICKS_PER_TIMEOUT).clamp(TICK_MIN, TICK_MAX))
}

/// Sweeps every `tick` until cancelled. `pauses` holds those of earlier sweeps.
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
            // Wait for the next iteration of the loop, which reads what has arrived meanwhile
            // before it wakes this task.
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
