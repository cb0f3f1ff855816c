//! One connection from its first moment in the set to its last.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Waker;

use smol::future::FutureExt;

use super::broken::{is_reset, lost_client};
use super::dial;
use super::prologue;
use super::report::report;
use super::route::Route;
use super::routing;
use crate::net::{self, Broken, EarlyData, Meter, Side, Stream};
use crate::state::{CloseReason, Conn, Direction, Guard, Peer, Phase};
use crate::wire::proxy_header::Client;

/// Serves one connection until it closes.
///
/// The connection is in the set exactly as long as its sockets are open, however this future ends.
pub fn serve(guard: Guard, route: Rc<Route>, client: Stream) -> impl Future<Output = ()> {
    let served = Served {
        client,
        route,
        guard,
    };
    // Not an async function: that would store its arguments twice.
    async move {
        let carried = AssertUnwindSafe(carry(&served)).catch_unwind();
        let reason = carried.await.unwrap_or_else(|_| {
            let conn = served.guard.conn();
            log::error!(entrypoint = conn.entrypoint.name(), peer:% = conn.peer(), id:% = conn.id;
                "internal error; other connections are unaffected; please report it");
            CloseReason::Panic
        });
        let Served {
            client,
            route,
            guard,
        } = served;
        drop(client);
        guard.close(reason, route.reactor.now());
    }
}

/// What a connection's task owns.
///
/// Fields drop in declaration order: the socket closes before the entry leaves the set.
struct Served {
    client: Stream,
    route: Rc<Route>,
    guard: Guard,
}

async fn carry(served: &Served) -> CloseReason {
    let conn = served.guard.conn();
    log::debug!(entrypoint = conn.entrypoint.name(), peer:% = conn.peer(), id:% = conn.id; "opened");
    served.route.conns.tell_serving(conn);
    // Boxed because it is larger than the relay and done before the relay starts.
    let (server, opening) = match Box::pin(connect(served)).await {
        Ok(connected) => connected,
        Err(reason) => return reason,
    };
    match net::relay(&served.client, &server, opening, served).await {
        Ok(()) => CloseReason::Done,
        Err(broken) => reason_for(served, &broken),
    }
}

/// Dials while the client is connected.
///
/// The client's first bytes are sent to the server or kept for it.
async fn connect(served: &Served) -> Result<(Stream, net::Read), CloseReason> {
    let (conn, route) = (served.guard.conn(), &served.route);
    let opening = EarlyData::of(&served.client);
    if let Some(trusted) = &route.accept_proxy {
        prologue::read_header(conn, route, trusted, &opening).await?;
    }
    let to = match (&route.rules, &route.to) {
        (Some(rules), _) => routing::destination(conn, route, rules, &opening).await?,
        (None, Some(to)) => to,
        (None, None) => return Err(CloseReason::NoRoute),
    };
    if let Some(version) = to.send_proxy {
        opening.precede(version.header(header_client(conn, &served.client)));
    }
    let dialled = async {
        let (place, server) = dial::dial(conn, route, to, &opening).await?;
        match opening.introduce(&server).await {
            Ok(()) => Ok((place, server)),
            Err(error) => {
                let side = Side::Server;
                Err(reason_for(served, &Broken { side, error }))
            }
        }
    };
    let gone = async { Err(gone_while_dialling(&opening).await) };
    let (place, stream) = dialled.or(gone).await?;
    let (server, now) = (place.server().clone(), route.reactor.now());
    log::debug!(
        entrypoint = conn.entrypoint.name(), peer:% = conn.peer(), id:% = conn.id,
        server = server.name(); "connected");
    if let Some(change) = conn.relaying(place, now) {
        report(&route.conns, &server, change, now);
    }
    route.conns.limit(conn, now);
    Ok((stream, opening.into_read()))
}

/// Returns whose connection it is, for the header of the PROXY protocol.
fn header_client(conn: &Conn, client: &Stream) -> Client {
    let destination = match conn.proxied() {
        Some(proxied) => proxied.destination,
        None => client.local_address(),
    };
    match (conn.peer(), destination) {
        (Peer::Tcp(source), Some(destination)) => Client::Tcp {
            source,
            destination,
        },
        (Peer::Tcp(_), None) => Client::Unknown,
        (Peer::Unix, _) => Client::Unix,
    }
}

/// Waits until the client's connection fails.
///
/// A client that has finished sending has not failed: it may be waiting for an answer.
async fn gone_while_dialling(client: &EarlyData<'_>) -> CloseReason {
    let error = std::future::poll_fn(|cx| client.poll_broken(cx)).await;
    lost_client(&error)
}

/// Counts transferred bytes in the connection's entry.
impl Meter for Served {
    fn moved(&self, from: Side, bytes: usize) {
        let now = self.route.reactor.now();
        let conn = self.guard.conn();
        conn.moved(direction(from), bytes, now);
        if conn.is_limited() {
            self.route.conns.spend(conn, direction(from), bytes, now);
        }
    }

    fn allowance(&self, from: Side) -> usize {
        let conn = self.guard.conn();
        if !conn.is_limited() {
            return usize::MAX;
        }
        let now = self.route.reactor.now();
        self.route.conns.allowance(conn, direction(from), now)
    }

    fn paused(&self, from: Side, waker: &Waker) {
        let (conn, now) = (self.guard.conn(), self.route.reactor.now());
        self.route.conns.pause(conn, direction(from), waker, now);
    }

    fn finished(&self, _from: Side) {
        let conn = self.guard.conn();
        if conn.phase() == Phase::Relaying {
            conn.half_closed(self.route.reactor.now());
        }
    }
}

/// Returns the direction of bytes from a side.
fn direction(from: Side) -> Direction {
    match from {
        Side::Client => Direction::ToServer,
        Side::Server => Direction::ToClient,
    }
}

fn reason_for(served: &Served, broken: &Broken) -> CloseReason {
    let conn = served.guard.conn();
    log::debug!(
        entrypoint = conn.entrypoint.name(), peer:% = conn.peer(), id:% = conn.id,
        side:? = broken.side, error:% = broken.error; "connection broken");
    match (broken.side, is_reset(&broken.error)) {
        (Side::Client, true) => CloseReason::ClientReset,
        (Side::Client, false) => CloseReason::ClientLost,
        (Side::Server, true) => CloseReason::ServerReset,
        (Side::Server, false) => CloseReason::ServerLost,
    }
}
