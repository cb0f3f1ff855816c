//! Choosing a server and connecting to it; a failure is counted, told, and the next server tried.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use smol::future::FutureExt;

use super::route::Route;
use crate::config::{Address, Host};
use crate::net::{self, Dial, Opening, Stream};
use crate::state::{CloseReason, Conn, ConnectError, ServerId};

/// Tries the service's servers in turn until one takes the connection.
pub(super) async fn dial(
    conn: &Rc<Conn>,
    route: &Rc<Route>,
    opening: &Opening<'_>,
) -> Result<(ServerId, Stream), CloseReason> {
    for id in route.service.candidates() {
        let server = route.service.server(id);
        let begun = route.reactor.now();
        match dial_one(route, &route.addresses[id.index()], opening).await {
            Ok(stream) => {
                let took = route.reactor.now().saturating_duration_since(begun);
                server.connect_duration.observe(took);
                return Ok((id, stream));
            }
            Err(Failure { reason, text }) => {
                server.connect_errors.of(reason).increment();
                log::warn!(
                    entrypoint = conn.entrypoint.name.as_str(), server = server.name.as_str();
                    "dial: {text}"
                );
            }
        }
    }
    Err(CloseReason::ConnectFailed)
}

struct Failure {
    reason: ConnectError,
    text: String,
}

async fn dial_one(
    route: &Rc<Route>,
    address: &Address,
    opening: &Opening<'_>,
) -> Result<Stream, Failure> {
    let dial = Dial {
        deadline: route.reactor.now() + route.connect_timeout,
        keepalive: route.keepalive,
    };
    let connected = match address {
        Address::Unix(path) => net::dial_unix(&route.reactor, path, dial).await,
        Address::Tcp { host, port } => {
            let resolved;
            let ips: &[IpAddr] = match host {
                Host::Ip(ip) => std::slice::from_ref(ip),
                Host::Name(name) => {
                    resolved = resolve(route, name, dial).await?;
                    &resolved
                }
            };
            net::dial_tcp(&route.reactor, ips, *port, dial, opening).await
        }
    };
    connected.map_err(|error| {
        let reason = classify(&error);
        let text = match reason {
            ConnectError::Timeout => {
                let limit = humantime::format_duration(route.connect_timeout);
                format!("no answer within {limit} (connect_timeout)")
            }
            _ => error.to_string(),
        };
        Failure { reason, text }
    })
}

async fn resolve(route: &Rc<Route>, name: &str, dial: Dial) -> Result<Rc<[IpAddr]>, Failure> {
    let late = async {
        route.reactor.sleep_until(dial.deadline).await;
        Err("no answer yet from the resolver".into())
    };
    let answer = route.names.addresses(name).or(late).await;
    answer.map_err(|why| Failure {
        reason: ConnectError::Unresolved,
        text: format!("cannot resolve the name: {why}"),
    })
}

fn classify(error: &io::Error) -> ConnectError {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        NotFound, OutOfMemory, TimedOut, WouldBlock,
    };
    use rustix::io::Errno;
    match error.kind() {
        // A Unix socket's path that is not there is like a port that nobody listens on.
        ConnectionRefused | ConnectionReset | NotFound => ConnectError::Refused,
        TimedOut => ConnectError::Timeout,
        HostUnreachable | NetworkUnreachable => ConnectError::Unreachable,
        OutOfMemory | AddrNotAvailable | WouldBlock => ConnectError::Exhausted,
        _ => match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS) => ConnectError::Exhausted,
            _ => ConnectError::Other,
        },
    }
}
