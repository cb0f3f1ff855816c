//! Waits for a server with room, in order, as long as the client stays.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::route::{Destination, Route};
use super::target::{Target, server};
use crate::net::{EarlyData, Sleep};
use crate::state::{Choice, CloseReason, Conn, Place, Waiting};

/// Waits until `choose` finds a server with room and it is this connection's turn. Returns the
/// server's position and a place there, or `None` once there is no server to wait for, and how long
/// it took. `choose` chooses among `targets`, and may replace them first.
pub(super) async fn queue(
    conn: &Conn,
    route: &Route,
    to: &Destination,
    early_data: &EarlyData<'_>,
    targets: &RefCell<Rc<[Rc<Target>]>>,
    tried: &[usize],
    choose: impl Fn() -> Choice,
) -> Result<(Option<(usize, Place)>, Duration), CloseReason> {
    let (reactor, service) = (&route.reactor, &to.branch.service);
    let rules = service.rules();
    if service.queued() >= rules.queue {
        log::warn!(entrypoint = conn.entrypoint.name(), service = &*service.name;
            "queue full: every server is at its max_connections and {} connections wait (queue); add a server, or raise one of the two", rules.queue);
        return Err(CloseReason::QueueFull);
    }
    let mut queued = Queued::join(conn, route, to);
    let mut late = reactor.sleep_until(queued.begun + rules.queue_timeout);
    let mut is_new = true;
    let has_room =
        |targets: &[_], tried: &[_]| service.has_room(targets, server, tried, reactor.now());
    let waited = poll_fn(|cx| {
        queued.poll_trial(cx);
        if queued.turn.is_due() {
            match choose() {
                Choice::Server(index) => {
                    let place = targets.borrow()[index].server.place(conn.id);
                    queued.turn.is_served();
                    // What made room may have made more than this.
                    if has_room(&to.pool.get(), &[]) {
                        service.offer();
                    }
                    return Poll::Ready(Ok(Some((index, place))));
                }
                Choice::None => {
                    queued.turn.leave();
                    return Poll::Ready(Ok(None));
                }
                Choice::Full => {}
            }
        }
        queued.turn.wait(cx.waker());
        // Those in front may have no use for a server with room, because they have tried it.
        if std::mem::take(&mut is_new) && has_room(&targets.borrow(), tried) {
            service.offer();
        }
        queued.await_trial(cx);
        if early_data.has_left() {
            return Poll::Ready(Err(CloseReason::LeftQueue));
        }
        Pin::new(&mut late)
            .poll(cx)
            .map(|()| Err(CloseReason::QueueTimeout))
    });
    let waited = waited.await;
    let took = queued.waited();
    drop(queued);
    if let Err(CloseReason::QueueTimeout) = waited {
        let limit = humantime::format_duration(rules.queue_timeout);
        log::warn!(entrypoint = conn.entrypoint.name(), service = &*service.name;
            "no server had room within {limit} (queue_timeout); add a server, or raise max_connections of its servers");
    }
    Ok((waited?, took))
}

/// A connection in the queue. However it leaves, that counts.
struct Queued<'a> {
    conn: &'a Conn,
    route: &'a Route,
    to: &'a Destination,
    begun: Instant,
    turn: Waiting<'a>,
    /// Ends when a server that is out may be tried again, which no event announces. Only the first
    /// in the queue has this timer.
    trial: Option<(Instant, Sleep)>,
    /// Whether this is the first, and a server is out.
    is_watching: bool,
}

impl<'a> Queued<'a> {
    fn join(conn: &'a Conn, route: &'a Route, to: &'a Destination) -> Self {
        let begun = route.reactor.now();
        conn.queued(true, begun);
        Self {
            conn,
            route,
            to,
            begun,
            turn: to.branch.service.queue(),
            trial: None,
            is_watching: false,
        }
    }

    /// Offers a server that may be tried now to everyone, because the first may have no use for it.
    fn poll_trial(&mut self, cx: &mut Context<'_>) {
        if let Some((_, sleep)) = &mut self.trial
            && Pin::new(sleep).poll(cx).is_ready()
        {
            self.trial = None;
            self.to.branch.service.offer();
        }
    }

    /// Sets the timer for the next trial if this is the first in the queue.
    fn await_trial(&mut self, cx: &mut Context<'_>) {
        if !self.turn.is_first() {
            return;
        }
        let (reactor, targets) = (&self.route.reactor, self.to.pool.get());
        let now = reactor.now();
        let trials = targets.iter().filter_map(|it| it.server.next_trial());
        self.is_watching = trials.clone().next().is_some();
        let next = trials.filter(|at| *at > now).min();
        if self.trial.as_ref().map(|(at, _)| *at) != next {
            self.trial = next.map(|at| (at, reactor.sleep_until(at)));
            self.poll_trial(cx);
        }
    }

    fn waited(&self) -> Duration {
        let now = self.route.reactor.now();
        now.saturating_duration_since(self.begun)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let service = &self.to.branch.service;
        service.counters.queue_duration.observe(self.waited());
        self.conn.queued(false, self.route.reactor.now());
        self.turn.leave();
        if self.is_watching {
            service.tell_first();
        }
    }
}
