//! Waits for a server with room, in order, as long as the client stays.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::route::Route;
use super::target::{Target, server};
use crate::net::EarlyData;
use crate::state::{Choice, CloseReason, Conn, Place};

/// Waits until `choose` finds a server with room and it is this connection's turn. Returns the
/// server's position and a place there, or `None` once there is no server to wait for, and how long
/// it took. `choose` chooses among `targets`, and may replace them first.
pub(super) async fn queue(
    conn: &Conn,
    route: &Route,
    early_data: &EarlyData<'_>,
    targets: &RefCell<Rc<[Rc<Target>]>>,
    tried: &[usize],
    choose: impl Fn() -> Choice,
) -> Result<(Option<(usize, Place)>, Duration), CloseReason> {
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
    let has_room =
        |targets: &[_], tried: &[_]| service.has_room(targets, server, tried, reactor.now());
    let waited = poll_fn(|cx| {
        if turn.is_due() {
            match choose() {
                Choice::Server(index) => {
                    let place = targets.borrow()[index].server.place(conn.id);
                    turn.is_served();
                    // What made room may have made more than this.
                    if has_room(&route.pool.get(), &[]) {
                        service.offer();
                    }
                    return Poll::Ready(Ok(Some((index, place))));
                }
                Choice::None => {
                    turn.leave();
                    return Poll::Ready(Ok(None));
                }
                Choice::Full => {}
            }
        }
        turn.wait(cx.waker());
        // Those in front may have no use for a server with room, because they have tried it.
        if std::mem::take(&mut is_new) && has_room(&targets.borrow(), tried) {
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
    Ok((waited?, took))
}
