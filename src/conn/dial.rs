//! Choosing a server and connecting to it; a failure is counted, told, and the next server tried.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use smol::future::{FutureExt, poll_once};

use super::route::Route;
use super::target::{OwnListener, leads_back};
use crate::config::{Address, Host};
use crate::net::{self, Dial, EarlyData, Lack, Stream, Turn};
use crate::state::{CloseReason, Conn, ConnectError, ServerId};

/// Tries the service's servers in turn until one takes the connection. Only when none is left does it wait for one that had no room.
pub(super) async fn dial(
    conn: &Rc<Conn>,
    route: &Rc<Route>,
    opening: &EarlyData<'_>,
) -> Result<(ServerId, Stream), CloseReason> {
    let dialling = Dialling {
        conn,
        route,
        opening,
        deadline: route.reactor.now() + route.dial_timeout,
    };
    dialling.dial().await.ok_or(CloseReason::ConnectFailed)
}

struct Dialling<'a> {
    conn: &'a Conn,
    route: &'a Rc<Route>,
    opening: &'a EarlyData<'a>,
    /// The end of `dial_timeout`.
    deadline: Instant,
}

struct Failure {
    reason: ConnectError,
    text: String,
    /// It may help to try again later.
    lack: Option<Lack>,
}

impl Failure {
    fn new(reason: ConnectError, text: String) -> Self {
        let lack = None;
        Self { reason, text, lack }
    }
}

/// A server that had no room, with what it said if it was asked at all: where others wait already, nobody asks.
struct Lacking {
    id: ServerId,
    failure: Option<Failure>,
}

impl Dialling<'_> {
    async fn dial(&self) -> Option<(ServerId, Stream)> {
        let mut lacking = Vec::new();
        let mut candidates = self.route.service.candidates();
        while let Some(id) = candidates.next() {
            if !self.route.target(id).line.is_empty() {
                lacking.push(Lacking { id, failure: None });
                continue;
            }
            match self.attempt(id).await {
                Ok(stream) => {
                    self.passed_over(lacking);
                    return Some((id, stream));
                }
                Err(failure) if failure.lack.is_some() => {
                    let failure = Some(failure);
                    lacking.push(Lacking { id, failure });
                }
                Err(failure) => self.tell(id, &failure),
            }
            let untried = candidates.size_hint().0;
            if untried > 0 && self.is_late() {
                let limit = humantime::format_duration(self.route.dial_timeout);
                log::warn!(
                    entrypoint = self.conn.entrypoint.name.as_str();
                    "dial: no server within {limit} (dial_timeout); {untried} of {} were not tried",
                    self.route.targets.len()
                );
                break;
            }
        }
        self.wait_for_room(lacking).await
    }

    /// Waits in the lines of all these servers until one of them has room.
    async fn wait_for_room(&self, mut lacking: Vec<Lacking>) -> Option<(ServerId, Stream)> {
        let (reactor, conns) = (&self.route.reactor, &*self.route.conns);
        let limit = reactor.now() + self.route.connect_timeout;
        let mut late = reactor.sleep_until(limit.min(self.deadline));
        let mut turns: Vec<Turn<'_>> = lacking.iter().map(|it| self.join(it)).collect();
        let mut starving = None;
        while !turns.is_empty() {
            let starves = turns.iter().any(|it| it.lack() == Some(Lack::Descriptors));
            starving = starves.then(|| starving.unwrap_or_else(|| conns.starves()));
            let mut left = conns.below(conns.len());
            let turn = poll_fn(|cx| {
                // What a connection that has left gives back is not left lying.
                while starves && Pin::new(&mut left).poll(cx).is_ready() {
                    turns.iter().for_each(Turn::hurry);
                    left = conns.below(conns.len());
                }
                let mut turns = turns.iter_mut();
                if let Some(i) = turns.position(|turn| turn.poll(reactor, cx).is_ready()) {
                    return Poll::Ready(Some(i));
                }
                Pin::new(&mut late).poll(cx).map(|()| None)
            });
            let Some(i) = turn.await else {
                break;
            };
            let id = lacking[i].id;
            let mut attempt = pin!(self.attempt(id));
            let outcome = match poll_once(attempt.as_mut()).await {
                Some(Err(failure)) if failure.lack.is_some() => {
                    if let Some(lack) = failure.lack {
                        turns[i].found_none(lack, reactor.now());
                    }
                    lacking[i].failure = Some(failure);
                    continue;
                }
                outcome => {
                    turns.swap_remove(i).found_room();
                    match outcome {
                        Some(outcome) => outcome,
                        // It is under way, which is all that it lacked.
                        None => {
                            starving = None;
                            attempt.await
                        }
                    }
                }
            };
            let mut tried = lacking.swap_remove(i);
            match outcome {
                Ok(stream) => {
                    self.passed_over(lacking);
                    return Some((id, stream));
                }
                Err(failure) if failure.lack.is_some() => {
                    tried.failure = Some(failure);
                    turns.push(self.join(&tried));
                    lacking.push(tried);
                }
                Err(failure) => self.tell(id, &failure),
            }
        }
        let (limit, key) = self.limit(limit);
        for Lacking { id, failure } in lacking {
            let why = failure.map_or("others wait for room too".to_owned(), |it| it.text);
            let text = format!("{why}; no room within {limit} ({key})");
            self.tell(id, &Failure::new(ConnectError::Exhausted, text));
        }
        None
    }

    fn join(&self, lacking: &Lacking) -> Turn<'_> {
        let lack = lacking.failure.as_ref().and_then(|failure| failure.lack);
        let line = &self.route.target(lacking.id).line;
        line.join(lack, self.route.reactor.now())
    }

    /// Tells of the servers that were tried before another one took the connection.
    fn passed_over(&self, lacking: Vec<Lacking>) {
        for Lacking { id, failure } in lacking {
            if let Some(failure) = failure {
                self.tell(id, &failure);
            }
        }
    }

    fn tell(&self, id: ServerId, failure: &Failure) {
        let server = self.route.service.server(id);
        server.connect_errors.of(failure.reason).increment();
        log::warn!(
            entrypoint = self.conn.entrypoint.name.as_str(), server = server.name.as_str();
            "dial: {}", failure.text
        );
    }

    fn is_late(&self) -> bool {
        self.route.reactor.now() >= self.deadline
    }

    /// The limit that ends first, `until` or that of all dialling, and its key.
    fn limit(&self, until: Instant) -> (humantime::FormattedDuration, &'static str) {
        let (limit, key): (Duration, _) = match until <= self.deadline {
            true => (self.route.connect_timeout, "connect_timeout"),
            false => (self.route.dial_timeout, "dial_timeout"),
        };
        (humantime::format_duration(limit), key)
    }

    /// Tries each address of one server once.
    async fn attempt(&self, id: ServerId) -> Result<Stream, Failure> {
        let (route, target) = (self.route, self.route.target(id));
        let begun = route.reactor.now();
        let limit = begun + route.connect_timeout;
        let dial = Dial {
            deadline: limit.min(self.deadline),
            keepalive: route.keepalive,
        };
        let connected = match &target.address {
            Address::Unix(path) => {
                if let Some(own) = target.own.iter().find(|own| own.is_path(path)) {
                    self.refuse_circle(own)?;
                }
                Stream::connect_unix(&route.reactor, path)
            }
            Address::Tcp { host, port } => {
                let resolved;
                let ips: &[IpAddr] = match host {
                    Host::Ip(ip) => std::slice::from_ref(ip),
                    Host::Name(name) => {
                        resolved = resolve(route, name, dial).await?;
                        &resolved
                    }
                };
                let others;
                let ips = match target.own.is_empty() {
                    true => ips,
                    false => {
                        others = self.without_circles(id, ips, *port)?;
                        &others
                    }
                };
                net::dial_tcp(&route.reactor, ips, *port, dial, self.opening).await
            }
        };
        let stream = connected.map_err(|error| {
            let reason = classify(&error);
            let text = match reason {
                ConnectError::Timeout => {
                    let (limit, key) = self.limit(limit);
                    format!("no answer within {limit} ({key})")
                }
                ConnectError::Exhausted if error.kind() == io::ErrorKind::WouldBlock => {
                    "its backlog is full".to_owned()
                }
                _ => error.to_string(),
            };
            let lack = Lack::of(&error);
            Failure { reason, text, lack }
        })?;
        let took = route.reactor.now().saturating_duration_since(begun);
        let server = route.service.server(id);
        server.connect_duration.observe(took);
        Ok(stream)
    }

    /// The addresses of a server that do not lead back here; a failure if all do.
    fn without_circles(
        &self,
        id: ServerId,
        ips: &[IpAddr],
        port: u16,
    ) -> Result<Vec<IpAddr>, Failure> {
        let target = self.route.target(id);
        let mut others = Vec::new();
        let mut refused = Ok(());
        for ip in ips {
            let to = SocketAddr::new(*ip, port);
            let own = target.own.iter().find(|own| own.is_at(to));
            match own.map_or(Ok(()), |own| self.refuse_circle(own)) {
                Ok(()) => others.push(*ip),
                failure => refused = failure,
            }
        }
        match refused {
            Err(failure) if !others.is_empty() => self.tell(id, &failure),
            refused => refused?,
        }
        Ok(others)
    }

    /// Fails if a connection to this listener of our own would come back to the entrypoint from which it is dialled.
    fn refuse_circle(&self, own: &OwnListener) -> Result<(), Failure> {
        let (route, from) = (self.route, &self.conn.entrypoint);
        if !leads_back(&route.onward, &route.names, from.index, own.entrypoint) {
            return Ok(());
        }
        let how = match from.index == own.entrypoint {
            true => "it would forward to itself".to_owned(),
            false => format!("it leads back to entrypoint `{}`", from.name),
        };
        let text = format!("this is coracle's own listener {own}; {how}; name another server");
        Err(Failure::new(ConnectError::Loop, text))
    }
}

async fn resolve(route: &Rc<Route>, name: &str, dial: Dial) -> Result<Rc<[IpAddr]>, Failure> {
    let late = async {
        route.reactor.sleep_until(dial.deadline).await;
        Err("no answer yet from the resolver".into())
    };
    let answer = route.names.addresses(name).or(late).await;
    answer.map_err(|why| {
        let text = format!("cannot resolve the name: {why}");
        Failure::new(ConnectError::Unresolved, text)
    })
}

fn classify(error: &io::Error) -> ConnectError {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, NotFound, TimedOut,
    };
    match error.kind() {
        // A Unix socket's path that is not there is like a port that nobody listens on.
        ConnectionRefused | ConnectionReset | NotFound => ConnectError::Refused,
        TimedOut => ConnectError::Timeout,
        HostUnreachable | NetworkUnreachable => ConnectError::Unreachable,
        _ if Lack::of(error).is_some() => ConnectError::Exhausted,
        // No socket of that family at all.
        _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            ConnectError::Unreachable
        }
        _ => ConnectError::Other,
    }
}
