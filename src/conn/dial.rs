//! Chooses a server and connects to it.
//!
//! Counts and logs each failure, then tries the next server.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use smol::future::{FutureExt, poll_once};

use super::queue::queue;
use super::report::report;
use super::route::{Destination, Route};
use super::target::{OwnListener, Target, Topology, server};
use crate::config::{Address, Host};
use crate::net::{self, Dial, EarlyData, Lack, Stream, Turn};
use crate::state::{Choice, CloseReason, Conn, ConnectError, Peer, Place};

/// Tries servers of the service until one accepts the connection. Each attempt chooses among those
/// that are up at that moment and were not tried yet.
///
/// Servers that have no room are skipped at first. Waits for room on them only once no other server
/// is left.
pub(super) async fn dial<'a>(
    conn: &'a Rc<Conn>,
    route: &'a Rc<Route>,
    to: &'a Destination,
    opening: &'a EarlyData<'_>,
) -> Result<(Place, Stream), CloseReason> {
    let dialling = Dialling {
        conn,
        route,
        to,
        opening,
        targets: RefCell::new(to.pool.get()),
        deadline: Cell::new(route.reactor.now() + to.dial_timeout),
    };
    dialling.dial().await
}

struct Dialling<'a> {
    conn: &'a Conn,
    route: &'a Rc<Route>,
    to: &'a Destination,
    opening: &'a EarlyData<'a>,
    /// The servers to choose among: the service's, as they were when the first one was chosen.
    targets: RefCell<Rc<[Rc<Target>]>>,
    /// The moment `dial_timeout` expires. Time in the queue does not count.
    deadline: Cell<Instant>,
}

struct Failure {
    reason: ConnectError,
    text: String,
    /// Set if a later retry may succeed.
    lack: Option<Lack>,
    /// Whether it says nothing about the server: the attempt was cut short, or not made.
    is_ours: bool,
}

impl Failure {
    fn new(reason: ConnectError, text: String) -> Self {
        Self {
            reason,
            text,
            lack: None,
            is_ours: false,
        }
    }

    fn ours(self) -> Self {
        Self {
            is_ours: true,
            ..self
        }
    }
}

/// A server without room, with the connection's place there.
///
/// `failure` is `None` if it was not tried because other connections already wait for it.
struct Lacking {
    /// The server's position in the list, which stays as it is while servers are tried.
    index: usize,
    place: Place,
    failure: Option<Failure>,
}

impl Dialling<'_> {
    async fn dial(&self) -> Result<(Place, Stream), CloseReason> {
        let rules = self.to.branch.service.rules();
        let mut lacking = Vec::new();
        // Positions of servers that need no second attempt, and how many attempts have failed.
        let mut tried = Vec::new();
        let mut failed = 0;
        loop {
            let (index, place) = match self.choose(&tried).await? {
                Some(chosen) => chosen,
                None if tried.is_empty() => {
                    log::warn!(entrypoint = self.conn.entrypoint.name(), service = &*self.to.branch.service.name;
                        "no server available: {}; `coracle status` says why", self.why_none());
                    return Err(CloseReason::NoServer);
                }
                // Each has been tried. More retries begin with the first again.
                None if lacking.is_empty() && rules.retries.is_some_and(|most| failed <= most) => {
                    tried.clear();
                    self.pause().await;
                    if self.is_late() {
                        break;
                    }
                    continue;
                }
                None => break,
            };
            let target = self.target(index);
            if !target.line.is_empty() {
                tried.push(index);
                let failure = None;
                lacking.push(Lacking {
                    index,
                    place,
                    failure,
                });
                continue;
            }
            if failed > 0 {
                self.to.branch.service.counters.retries.increment();
            }
            match self.attempt(&target).await {
                Ok(stream) => {
                    self.passed_over(lacking);
                    return Ok((place, stream));
                }
                Err(failure) if failure.lack.is_some() => {
                    let failure = Some(failure);
                    lacking.push(Lacking {
                        index,
                        place,
                        failure,
                    });
                }
                Err(failure) => self.tell(&target, &failure),
            }
            // Only now: if the first server accepts, nothing is allocated.
            tried.push(index);
            failed += 1;
            if rules.retries.is_some_and(|most| failed > most) {
                break;
            }
            let all = self.targets.borrow().len();
            let untried = all.saturating_sub(tried.len());
            if untried > 0 && self.is_late() {
                let limit = humantime::format_duration(self.to.dial_timeout);
                log::warn!(
                    entrypoint = self.conn.entrypoint.name();
                    "dial: no server reached within {limit} (dial_timeout); {untried} of {all} not tried; the lines before say why the others failed"
                );
                break;
            }
        }
        self.wait_for_room(lacking).await
    }

    /// Chooses a server and takes a place there. Waits in the queue if all are at their limits.
    /// Returns `None` if there is none to choose.
    async fn choose(&self, tried: &[usize]) -> Result<Option<(usize, Place)>, CloseReason> {
        let service = &self.to.branch.service;
        let client = match self.conn.peer() {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        };
        let choose = || {
            let random = &mut || fastrand::u64(..);
            if tried.is_empty() {
                // Only then, because `tried` holds positions in the list.
                self.targets.replace(self.to.pool.get());
            }
            let (targets, now) = (self.targets.borrow(), self.route.reactor.now());
            service.choose(&targets, server, tried, client, random, now)
        };
        // Those that wait come first.
        let choice = match service.queued() {
            0 => choose(),
            _ => Choice::Full,
        };
        match choice {
            Choice::Server(index) => {
                let place = self.targets.borrow()[index].server.place(self.conn.id);
                Ok(Some((index, place)))
            }
            Choice::None => Ok(None),
            Choice::Full => {
                let (conn, targets) = (self.conn, &self.targets);
                let queued = queue(
                    conn,
                    self.route,
                    self.to,
                    self.opening,
                    targets,
                    tried,
                    choose,
                );
                // Boxed because few connections ever wait.
                let (chosen, took) = Box::pin(queued).await?;
                self.deadline.set(self.deadline.get() + took);
                Ok(chosen)
            }
        }
    }

    fn target(&self, index: usize) -> Rc<Target> {
        self.targets.borrow()[index].clone()
    }

    /// Returns why no server can be chosen.
    fn why_none(&self) -> &'static str {
        let targets = self.targets.borrow();
        match targets.iter().all(|it| it.server.is_up()) {
            true => "each is drained or has a weight of 0",
            false => "each is down, drained or has a weight of 0",
        }
    }

    /// Waits before servers that have failed are tried again, as HAProxy does.
    async fn pause(&self) {
        const PAUSE: Duration = Duration::from_secs(1);
        let reactor = &self.route.reactor;
        let until = (reactor.now() + PAUSE).min(self.deadline.get());
        reactor.sleep_until(until).await;
    }

    /// Waits in line at all of these servers until one of them has room.
    async fn wait_for_room(
        &self,
        mut lacking: Vec<Lacking>,
    ) -> Result<(Place, Stream), CloseReason> {
        let (reactor, conns) = (&self.route.reactor, &*self.route.conns);
        let limit = reactor.now() + self.to.connect_timeout;
        let mut late = reactor.sleep_until(limit.min(self.deadline.get()));
        let targets = self.targets.borrow().clone();
        let join = |it: &Lacking| {
            let lack = it.failure.as_ref().and_then(|failure| failure.lack);
            targets[it.index].line.join(lack, reactor.now())
        };
        let mut turns: Vec<Turn<'_>> = lacking.iter().map(join).collect();
        let mut starving = None;
        while !turns.is_empty() {
            let starves = turns.iter().any(|it| it.lack() == Some(Lack::Descriptors));
            starving = starves.then(|| starving.unwrap_or_else(|| conns.starves()));
            let mut left = conns.below(conns.len());
            let turn = poll_fn(|cx| {
                // Retry at once when a connection closes, to use the descriptors it frees.
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
            let target = &targets[lacking[i].index];
            let mut attempt = pin!(self.attempt(target));
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
                        // The attempt is in progress, so it no longer lacks descriptors.
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
                    return Ok((tried.place, stream));
                }
                Err(failure) if failure.lack.is_some() => {
                    tried.failure = Some(failure);
                    turns.push(join(&tried));
                    lacking.push(tried);
                }
                Err(failure) => self.tell(target, &failure),
            }
        }
        let (limit, key) = self.limit(limit);
        for Lacking { index, failure, .. } in lacking {
            let why = failure.map_or("others are already waiting".to_owned(), |it| it.text);
            let text = format!("{why}; no room within {limit} ({key})");
            self.tell(
                &targets[index],
                &Failure::new(ConnectError::Exhausted, text).ours(),
            );
        }
        Err(CloseReason::ConnectFailed)
    }

    /// Reports the servers that failed before another one accepted the connection.
    fn passed_over(&self, lacking: Vec<Lacking>) {
        for Lacking { index, failure, .. } in lacking {
            if let Some(failure) = failure {
                self.tell(&self.target(index), &failure);
            }
        }
    }

    fn tell(&self, target: &Target, failure: &Failure) {
        let counters = &target.server.counters;
        counters.connect_errors.of(failure.reason).increment();
        log::warn!(
            entrypoint = self.conn.entrypoint.name(), server = target.server.name();
            "dial: {}", failure.text
        );
        let is_servers = !failure.is_ours
            && !matches!(failure.reason, ConnectError::Exhausted | ConnectError::Loop);
        let now = self.route.reactor.now();
        if is_servers && let Some(change) = target.server.failed(&failure.text, now) {
            report(&self.route.conns, &target.server, change, now);
        }
    }

    fn is_late(&self) -> bool {
        self.route.reactor.now() >= self.deadline.get()
    }

    /// Returns the limit that expires first, either `until` or `dial_timeout`, and its
    /// configuration key.
    fn limit(&self, until: Instant) -> (humantime::FormattedDuration, &'static str) {
        let (limit, key): (Duration, _) = match until <= self.deadline.get() {
            true => (self.to.connect_timeout, "connect_timeout"),
            false => (self.to.dial_timeout, "dial_timeout"),
        };
        (humantime::format_duration(limit), key)
    }

    /// Tries each address of one server once.
    async fn attempt(&self, target: &Target) -> Result<Stream, Failure> {
        log::debug!(
            entrypoint = self.conn.entrypoint.name(), server = target.server.name(),
            id:% = self.conn.id; "dialling");
        let route = self.route;
        let topology = route.topology.get();
        let own = topology.own(&target.server);
        let begun = route.reactor.now();
        let limit = begun + self.to.connect_timeout;
        let dial = Dial {
            deadline: limit.min(self.deadline.get()),
            keepalive: route.keepalive,
            outgoing: self.to.outgoing.as_deref(),
            client: match self.conn.peer() {
                Peer::Tcp(address) => Some(address.ip().to_canonical()),
                Peer::Unix => None,
            },
        };
        let connected = match &target.address {
            Address::Unix(path) => {
                if let Some(own) = own.iter().find(|own| own.is_path(path)) {
                    self.refuse_circle(&topology, own)?;
                }
                Stream::connect_unix(&route.reactor, path)
            }
            address => {
                let resolved;
                let (ips, port): (&[IpAddr], u16) = match address {
                    Address::Tcp {
                        host: Host::Ip(ip),
                        port,
                        ..
                    } => (std::slice::from_ref(ip), *port),
                    _ => {
                        resolved = resolve(route, target, dial).await?;
                        (&resolved.0, resolved.1)
                    }
                };
                let port = match (&self.to.ranges, address.is_range()) {
                    (Some(ranges), true) => port + self.offset(ranges)?,
                    _ => port,
                };
                let others;
                let ips = match own.is_empty() {
                    true => ips,
                    false => {
                        others = self.without_circles(&topology, target, ips, port)?;
                        &others
                    }
                };
                net::dial_tcp(&route.reactor, ips, port, dial, self.opening).await
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
                    "the server's backlog is full".to_owned()
                }
                _ => error.to_string(),
            };
            Failure {
                lack: Lack::of(&error),
                is_ours: reason == ConnectError::Timeout && limit > self.deadline.get(),
                ..Failure::new(reason, text)
            }
        })?;
        let took = route.reactor.now().saturating_duration_since(begun);
        target.server.counters.connect_duration.observe(took);
        Ok(stream)
    }

    /// Returns how far the port that the client connected to is from the first of its range.
    fn offset(&self, ranges: &[RangeInclusive<u16>]) -> Result<u16, Failure> {
        let offset = self.opening.local_port().and_then(|port| {
            let range = ranges.iter().find(|range| range.contains(&port))?;
            Some(port - range.start())
        });
        offset.ok_or_else(|| {
            let text = "cannot tell which port of the range the client connected to".to_owned();
            Failure::new(ConnectError::Other, text).ours()
        })
    }

    /// Returns the addresses of a server that do not lead back here.
    ///
    /// Fails if all of them do.
    fn without_circles(
        &self,
        topology: &Topology,
        target: &Target,
        ips: &[IpAddr],
        port: u16,
    ) -> Result<Vec<IpAddr>, Failure> {
        let mut others = Vec::new();
        let mut refused = Ok(());
        for ip in ips {
            let to = SocketAddr::new(*ip, port);
            let own = topology.own(&target.server);
            let own = own.iter().find(|own| own.is_at(to));
            match own.map_or(Ok(()), |own| self.refuse_circle(topology, own)) {
                Ok(()) => others.push(*ip),
                failure => refused = failure,
            }
        }
        match refused {
            Err(failure) if !others.is_empty() => self.tell(target, &failure),
            refused => refused?,
        }
        Ok(others)
    }

    /// Fails if connecting to this listener of our own would lead back to the entrypoint that dials
    /// it.
    fn refuse_circle(&self, topology: &Topology, own: &OwnListener) -> Result<(), Failure> {
        let from = &self.conn.entrypoint;
        if !topology.leads_back(&self.route.names, from.id(), own.entrypoint) {
            return Ok(());
        }
        let how = match from.id() == own.entrypoint {
            true => "which would forward to itself".to_owned(),
            false => format!("which leads back to entrypoint `{}`", from.name()),
        };
        let text = format!("this is coracle's own listener {own}, {how}; use another server");
        Err(Failure::new(ConnectError::Loop, text))
    }
}

/// Returns the addresses and the port of the server's name.
async fn resolve(
    route: &Route,
    target: &Target,
    dial: Dial<'_>,
) -> Result<(Rc<[IpAddr]>, u16), Failure> {
    let late = async {
        route.reactor.sleep_until(dial.deadline).await;
        Err("the resolver has not answered yet".into())
    };
    let own = target.address.port().unwrap_or_default();
    let answer = match &target.name {
        Some(name) => route.names.endpoint(name, own).or(late).await,
        None => Err("the name is not in the configuration".into()),
    };
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
        // A missing Unix socket path is like a port without a listener.
        ConnectionRefused | ConnectionReset | NotFound => ConnectError::Refused,
        TimedOut => ConnectError::Timeout,
        HostUnreachable | NetworkUnreachable => ConnectError::Unreachable,
        _ if Lack::of(error).is_some() => ConnectError::Exhausted,
        // The kernel has no sockets of this family at all.
        _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            ConnectError::Unreachable
        }
        _ => ConnectError::Other,
    }
}
