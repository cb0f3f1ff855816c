//! Waits for a server with room, in order, as long as the client stays.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use super::route::Route;
use crate::net::EarlyData;
use crate::state::{Choice, CloseReason, Conn, Place};

/// Waits until `choose` finds a server with room and it is this connection's turn. Returns the
/// server's position, the place that `place` takes there, and how long it took.
///
/// `has_room` returns whether `choose` would find one, and changes nothing.
pub(super) async fn queue(
    conn: &Conn,
    route: &Route,
    early_data: &EarlyData<'_>,
    choose: impl Fn() -> Choice,
    place: impl Fn(usize) -> Place,
    has_room: impl Fn() -> bool,
) -> Result<(usize, Place, Duration), CloseReason> {
    let (reactor, service) = (&route.reactor, &route.service);
    let rules = service.rules();
    let begun = reactor.now();
    if service.queued() >= rules.queue {
        log::warn!(entrypoint = conn.entrypoint.name(), service = &*service.name;
            "queue full: every server is at its max_connections and {} connections wait (queue)", rules.queue);
        return Err(CloseReason::QueueFull);
    }
    conn.queued(true, begun);
    let mut turn = service.queue();
    let mut late = reactor.sleep_until(begun + rules.queue_timeout);
    let mut is_new = true;
    let waited = poll_fn(|cx| {
        if turn.is_due() {
            let choice = choose();
            if choice != Choice::Full {
                turn.is_served();
                return Poll::Ready(match choice {
                    Choice::Server(index) => Ok((index, place(index))),
                    _ => Err(CloseReason::NoServer),
                });
            }
        }
        turn.wait(cx.waker());
        // Those in front may have no use for a server with room, because they have tried it.
        if std::mem::take(&mut is_new) && has_room() {
            service.offer();
        }
        if early_data.has_left() {
            return Poll::Ready(Err(CloseReason::LeftQueue));
        }
        Pin::new(&mut late)
            .poll(cx)
            .map(|()| Err(CloseReason::QueueTimeout))
    });
    let waited = waited.await;
    let now = reactor.now();
    let took = now.saturating_duration_since(begun);
    service.counters.queue_duration.observe(took);
    conn.queued(false, now);
    if let Err(CloseReason::QueueTimeout) = waited {
        let limit = humantime::format_duration(rules.queue_timeout);
        log::warn!(entrypoint = conn.entrypoint.name(), service = &*service.name;
            "no server had room within {limit} (queue_timeout)");
    }
    let (index, place) = waited?;
    Ok((index, place, took))
}
