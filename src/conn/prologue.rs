//! What a client sends first that decides about its connection, before a server is chosen. Read
//! with a bound and a deadline.

use std::future::poll_fn;
use std::io;

use smol::future::FutureExt;

use super::broken::lost_client;
use super::route::Route;
use crate::net::EarlyData;
use crate::state::{CloseReason, Conn, Label as _, Network, Peer, Proxied};
use crate::wire::proxy_header::{self, Client, MAX_V2_BYTES, Malformed, Parsed};

/// Why there is no verdict on a prologue.
pub(super) enum Failure<W> {
    /// No bytes that may follow would make it right.
    Wrong(W),
    /// It was not whole by the deadline.
    Late,
    /// The client finished sending before.
    Cut,
    /// The client's connection failed.
    Broken(io::Error),
}

/// Reads the client's first bytes until `judge`, which is given all of them whenever there are
/// more, returns a verdict or an error. Keeps them in `opening`. All that is read of a connection
/// this way has one deadline.
///
/// `judge` must have a verdict on `most` bytes.
pub(super) async fn read<T, W>(
    conn: &Conn,
    route: &Route,
    opening: &EarlyData<'_>,
    most: usize,
    judge: impl Fn(&[u8]) -> Result<Option<T>, W>,
) -> Result<T, Failure<W>> {
    let reactor = &route.reactor;
    let late = reactor.sleep_until(conn.opened() + route.prologue_timeout);
    let verdict = async {
        loop {
            if let Some(verdict) = opening.look(&judge).map_err(Failure::Wrong)? {
                return Ok(verdict);
            }
            match poll_fn(|cx| opening.poll_more(cx, most)).await {
                Ok(0) => return Err(Failure::Cut),
                Ok(_) => {}
                Err(error) => return Err(Failure::Broken(error)),
            }
        }
    };
    // In this order: after a pause of the program, what has arrived meanwhile counts.
    let late = async {
        late.await;
        Err(Failure::Late)
    };
    verdict.or(late).await
}

/// Reads the header of the PROXY protocol, and notes in the entry whose connection it is. What
/// follows it stays in `opening`.
pub(super) async fn read_header(
    conn: &Conn,
    route: &Route,
    trusted: &[Network],
    opening: &EarlyData<'_>,
) -> Result<(), CloseReason> {
    let entrypoint = conn.entrypoint.name();
    let is_trusted = match conn.socket_peer() {
        Peer::Tcp(peer) => trusted.iter().any(|it| it.contains(peer.ip())),
        // The mode of the socket decides who may connect.
        Peer::Unix => true,
    };
    if !is_trusted {
        log::warn!(entrypoint, peer:% = conn.socket_peer();
            "PROXY protocol: the peer is none of the `trusted`; closed");
        return Err(CloseReason::Untrusted);
    }
    conn.reads_prologue(true, route.reactor.now());
    let judge = |bytes: &[u8]| match proxy_header::parse(bytes)? {
        Parsed::Partial => Ok(None),
        Parsed::Header { bytes, client } => Ok(Some((bytes, client))),
    };
    let (bytes, client) = match read(conn, route, opening, MAX_V2_BYTES, judge).await {
        Ok(header) => header,
        Err(failure) => return Err(refuse(conn, route, opening, failure)),
    };
    opening.skip(bytes);
    conn.reads_prologue(false, route.reactor.now());
    let (peer, destination) = match client {
        Client::Tcp {
            source,
            destination,
        } => (source.into(), Some(destination)),
        Client::Unix => (Peer::Unix, None),
        Client::Local | Client::Unknown => return Ok(()),
    };
    let proxied = Proxied { peer, destination };
    let admitted = route.conns.is_proxied(conn, proxied, route.reactor.now());
    admitted.map_err(|reason| {
        conn.entrypoint.counters.refused.of(reason).increment();
        log::info!(entrypoint, peer:% = peer, socket_peer:% = conn.socket_peer();
            "refused ({}), as the proxy's header names the client", reason.label());
        CloseReason::Refused
    })
}

/// Logs why there is no header, and returns the reason to close the connection.
fn refuse(
    conn: &Conn,
    route: &Route,
    opening: &EarlyData<'_>,
    failure: Failure<Malformed>,
) -> CloseReason {
    let (entrypoint, peer) = (conn.entrypoint.name(), conn.socket_peer());
    match failure {
        Failure::Wrong(why) => {
            log::warn!(entrypoint, peer:% = peer; "PROXY protocol: no valid header, {why}; closed");
        }
        Failure::Late => {
            let limit = humantime::format_duration(route.prologue_timeout);
            log::warn!(entrypoint, peer:% = peer;
                "PROXY protocol: no whole header within {limit} (prologue_timeout); closed");
        }
        // A check of a balancer that only connects.
        Failure::Cut if opening.look(<[u8]>::is_empty) => {
            log::debug!(entrypoint, peer:% = peer; "PROXY protocol: the peer sent nothing");
        }
        Failure::Cut => {
            log::warn!(entrypoint, peer:% = peer; "PROXY protocol: the header is cut off; closed");
        }
        Failure::Broken(error) => return lost_client(&error),
    }
    CloseReason::Prologue
}
