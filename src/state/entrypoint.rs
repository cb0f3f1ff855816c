//! One entrypoint: its identity, open connections, counters and published metrics.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::branch::{Branch, RouteNumbers, Taken};
use super::byte_rate::{BandwidthRules, Limit};
use super::counters::{Counter, CounterBy, Histogram, Label as _, label};
use super::direction::Direction;
use super::gate::{Gate, GateRules};
use super::identity::{ConnId, EntrypointId};
use super::members::Members;
use super::metric::{Metric, Publish};
use super::peer::Peer;
use super::reason::{CloseReason, RefuseReason};
use super::service::Service;

label! {
    /// The transport protocol of an entrypoint.
    Protocol {
        /// Connections over TCP, or streams over a Unix socket.
        Tcp = "TCP",
    }
}

label! {
    /// Why accepting a connection failed. None of these ends a listener.
    AcceptError {
        /// The client left before it was accepted.
        Aborted = "aborted",
        /// The process has no descriptor left (EMFILE).
        ProcessDescriptors = "process_descriptors",
        /// The system has no descriptor left (ENFILE).
        SystemDescriptors = "system_descriptors",
        /// The kernel has no memory for the connection (ENOMEM, ENOBUFS).
        Memory = "memory",
        /// Any other error; the log has its text.
        Other = "other",
    }
}

/// How an entrypoint refuses connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtRefuse {
    /// The client gets a reset.
    #[default]
    Reset,
    /// The client is told nothing, if the kernel permits that.
    Drop,
    /// The client gets the end of the stream.
    Close,
}

/// How many connections an entrypoint may have, by the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// The maximum number of open connections.
    pub most: Option<usize>,
    /// Whether more are accepted and reset instead of waiting.
    pub refuses: bool,
}

/// Upper bounds of the connection duration's buckets: 10 ms to 1 day, about a factor of 6 apart.
/// They place both a web request and a day-long SSH session well, with few series.
const DURATION_BOUNDS: &[Duration; 9] = &[
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
    Duration::from_secs(21_600),
    Duration::from_secs(86_400),
];

/// What identifies an entrypoint.
#[derive(Debug)]
pub struct EntrypointIdentity {
    /// The entrypoint's identity.
    pub id: EntrypointId,
    /// The entrypoint's name in the configuration.
    pub name: String,
    /// The entrypoint's transport protocol.
    pub protocol: Protocol,
}

/// One entrypoint. It lives until the configuration no longer has it and its last connection is
/// gone.
#[derive(Debug)]
pub struct Entrypoint {
    /// What identifies the entrypoint.
    pub identity: Arc<EntrypointIdentity>,
    /// The open connections.
    pub open: Members,
    /// The counters.
    pub counters: EntrypointCounters,
    /// How long connections may be silent.
    pub timeouts: Cell<Timeouts>,
    /// How it refuses connections.
    pub at_refuse: Cell<AtRefuse>,
    limit: Cell<ConnectionLimit>,
    /// `None` if everybody is admitted.
    gate: RefCell<Option<Box<Gate>>>,
    /// `None` if nothing is limited.
    bandwidth: RefCell<Option<Box<BandwidthRules>>>,
    began: Instant,
    /// The name of the service whose servers its connections get, unless a rule decides otherwise.
    service: RefCell<Option<Arc<str>>>,
    /// What its rules have decided, with the service of each.
    routes: RefCell<Vec<(Rc<Taken>, Arc<str>)>>,
    /// Shared with copies of the numbers.
    listening: RefCell<Arc<[Local]>>,
    former: RefCell<Vec<Local>>,
}

/// How long connections may be silent. `None` means forever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The limit while nothing passes in either direction.
    pub idle: Option<Duration>,
    /// The limit after one side has finished sending and the other has not.
    pub half_close: Option<Duration>,
}

/// The counters of one entrypoint. The number of open connections is not among them: it is the
/// length of a set.
#[derive(Clone, Debug)]
pub struct EntrypointCounters {
    /// Connections that have entered the set.
    pub opened: Counter,
    /// Connections that have left the set.
    pub closed: CounterBy<CloseReason>,
    /// Payload bytes relayed.
    pub bytes: CounterBy<Direction>,
    /// How long the connections that have left the set were in it.
    pub duration: Histogram<9>,
    /// Failed attempts to accept a connection.
    pub accept_errors: CounterBy<AcceptError>,
    /// Connections that were accepted and refused at once.
    pub refused: CounterBy<RefuseReason>,
    /// Nanoseconds that connections have waited because their bandwidth is limited.
    pub limited: CounterBy<Limit>,
}

/// What an entrypoint actually listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// An IP address, possibly the wildcard address, and the actual port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Display for Local {
    /// Writes the address as the configuration has it.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Entrypoint {
    pub(super) fn new(id: EntrypointId, name: &str, protocol: Protocol, now: Instant) -> Self {
        let name = name.to_owned();
        Self {
            identity: Arc::new(EntrypointIdentity { id, name, protocol }),
            open: Members::default(),
            counters: EntrypointCounters {
                opened: Counter::default(),
                closed: CounterBy::default(),
                bytes: CounterBy::default(),
                duration: Histogram::new(DURATION_BOUNDS),
                accept_errors: CounterBy::default(),
                refused: CounterBy::default(),
                limited: CounterBy::default(),
            },
            timeouts: Cell::default(),
            at_refuse: Cell::default(),
            limit: Cell::default(),
            gate: RefCell::default(),
            bandwidth: RefCell::default(),
            began: now,
            service: RefCell::default(),
            routes: RefCell::default(),
            listening: RefCell::new(Arc::new([])),
            former: RefCell::default(),
        }
    }

    /// Returns the entrypoint's identity.
    #[must_use]
    pub fn id(&self) -> EntrypointId {
        self.identity.id
    }

    /// Returns the entrypoint's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Returns when the entrypoint was created. None of its connections is older.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Returns how many connections it may have.
    #[must_use]
    pub fn limit(&self) -> ConnectionLimit {
        self.limit.get()
    }

    /// Sets how many connections it may have. Open ones stay.
    pub fn set_limit(&self, limit: ConnectionLimit) {
        self.limit.set(limit);
        self.open.offer_all();
    }

    /// Returns how fast its connections may be, if that is limited.
    pub(super) fn bandwidth(&self) -> Option<BandwidthRules> {
        self.bandwidth.borrow().as_deref().copied()
    }

    /// Sets how fast its connections may be. [`Shared::limit_all`] applies that to open ones.
    ///
    /// [`Shared::limit_all`]: super::Shared::limit_all
    pub fn set_bandwidth(&self, rules: BandwidthRules) {
        let rules = (!rules.is_unlimited()).then(|| Box::new(rules));
        self.bandwidth.replace(rules);
    }

    /// Sets the service whose servers its next connections get, unless a rule decides otherwise.
    pub fn set_service(&self, name: Option<&Arc<str>>) {
        self.service.replace(name.cloned());
    }

    /// Sets where its rules lead, each with its label, which keeps what it has counted.
    pub fn set_routes(&self, routes: &[(Arc<str>, Rc<Service>)]) -> Vec<Rc<Branch>> {
        let before = self.routes.take();
        let known = |label: &Arc<str>| before.iter().find(|(it, _)| it.label == *label);
        let mut branches = Vec::new();
        let routes = routes.iter().map(|(label, service)| {
            let taken = match known(label) {
                Some((taken, _)) => taken.clone(),
                None => Rc::new(Taken::new(label)),
            };
            branches.push(Branch::of(service, taken.clone()));
            (taken, service.name.clone())
        });
        let routes = routes.collect();
        self.routes.replace(routes);
        branches
    }

    /// Sets whom it admits from now on. `open` has its connections with their peers, if the rules
    /// know clients.
    pub fn set_gate(&self, rules: GateRules, open: &[(ConnId, Peer)]) {
        if rules.is_open() {
            self.gate.replace(None);
            return;
        }
        let open = open.iter().filter_map(|(id, peer)| Some((*id, peer.ip()?)));
        let open: Vec<_> = open.collect();
        let mut gate = self.gate.borrow_mut();
        gate.get_or_insert_default().apply(rules, &open);
    }

    /// Lets the client at `address` in, or says why not. A client over a Unix socket has no
    /// address, and its file's permissions decide. The caller must add an admitted client to the
    /// set.
    ///
    /// # Errors
    /// Returns the reason to refuse the client.
    pub fn admit(&self, address: Option<SocketAddr>, now: Instant) -> Result<(), RefuseReason> {
        let ip = address.map(|address| address.ip());
        if self.denies(ip) {
            return Err(RefuseReason::Denied);
        }
        if !self.has_room() {
            return Err(RefuseReason::Limit);
        }
        self.admit_at_rate(ip, now)
    }

    /// Lets a proxy in, or says why not. Whom it connects for is judged by
    /// `Entrypoint::admit_proxied`, once that is known.
    ///
    /// # Errors
    /// Returns the reason to refuse the proxy.
    pub fn admit_proxy(&self) -> Result<(), RefuseReason> {
        match self.has_room() {
            true => Ok(()),
            false => Err(RefuseReason::Limit),
        }
    }

    /// Lets in the client that a proxy connects for, or says why not. The connection is in the set
    /// already.
    pub(super) fn admit_proxied(&self, peer: Peer, now: Instant) -> Result<(), RefuseReason> {
        match self.denies(peer.ip()) {
            true => Err(RefuseReason::Denied),
            false => self.admit_at_rate(peer.ip(), now),
        }
    }

    fn denies(&self, ip: Option<IpAddr>) -> bool {
        let gate = self.gate.borrow();
        let gate = gate.as_ref();
        gate.is_some_and(|gate| ip.is_some_and(|ip| gate.denies(ip)))
    }

    fn admit_at_rate(&self, ip: Option<IpAddr>, now: Instant) -> Result<(), RefuseReason> {
        match &mut *self.gate.borrow_mut() {
            None => Ok(()),
            Some(gate) => {
                let now = now.saturating_duration_since(self.began).as_nanos() as u64;
                gate.admit(ip, self.open.len(), now)
            }
        }
    }

    /// Counts a connection as one of another client.
    pub(super) fn is_proxied(&self, id: ConnId, from: Peer, to: Peer) {
        if let Some(gate) = &mut *self.gate.borrow_mut() {
            from.ip()
                .inspect(|ip| gate.leaves(id, *ip, self.open.len()));
            to.ip().inspect(|ip| gate.enters(id, *ip));
        }
    }

    /// Adds a connection to the open ones.
    pub(super) fn enters(&self, id: ConnId, peer: Peer) {
        self.open.insert(id);
        if let (Some(gate), Some(ip)) = (&mut *self.gate.borrow_mut(), peer.ip()) {
            gate.enters(id, ip);
        }
    }

    /// Removes a connection from the open ones.
    pub(super) fn leaves(&self, id: ConnId, peer: impl FnOnce() -> Peer) {
        self.open.remove(id);
        if let Some(gate) = &mut *self.gate.borrow_mut()
            && let Some(ip) = peer().ip()
        {
            gate.leaves(id, ip, self.open.len());
        }
    }

    /// Returns whether another connection may enter.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.limit
            .get()
            .most
            .is_none_or(|most| self.open.len() < most)
    }

    /// Returns what the entrypoint listens on.
    #[must_use]
    pub fn listening(&self) -> Arc<[Local]> {
        self.listening.borrow().clone()
    }

    /// Returns what the entrypoint no longer listens on but may still have open connections from.
    #[must_use]
    pub fn former(&self) -> Vec<Local> {
        self.former.borrow().clone()
    }

    pub(super) fn listens_on(&self, locals: Vec<Local>) {
        let mut former = self.former.borrow_mut();
        let before = self.listening.replace(locals.into());
        if self.open.is_empty() {
            former.clear();
            return;
        }
        former.extend(before.iter().cloned());
        let listening = self.listening.borrow();
        let mut seen = Vec::new();
        former.retain(|local| {
            let is_new = !listening.contains(local) && !seen.contains(local);
            seen.push(local.clone());
            is_new
        });
    }

    fn route_numbers(&self) -> Vec<RouteNumbers> {
        let routes = self.routes.borrow();
        let numbers = routes.iter().map(|(taken, service)| RouteNumbers {
            label: taken.label.clone(),
            service: service.clone(),
            connections: taken.count.value(),
        });
        numbers.collect()
    }

    /// Returns a copy of the entrypoint's numbers.
    #[must_use]
    pub fn numbers(&self) -> EntrypointNumbers {
        EntrypointNumbers {
            identity: self.identity.clone(),
            service: self.service.borrow().clone(),
            routes: self.route_numbers(),
            listening: self.listening(),
            limit: self.limit.get(),
            open: self.open.len() as u64,
            counters: self.counters.clone(),
        }
    }
}

/// The numbers of one entrypoint at one moment.
#[derive(Debug)]
pub struct EntrypointNumbers {
    /// What identifies the entrypoint.
    pub identity: Arc<EntrypointIdentity>,
    /// The name of the service whose servers its connections get, unless a rule decides otherwise.
    pub service: Option<Arc<str>>,
    /// What its rules have decided, in the order of the configuration; those that no rule fits come
    /// last. Empty without rules.
    pub routes: Vec<RouteNumbers>,
    /// What it listens on.
    pub listening: Arc<[Local]>,
    /// How many connections it may have.
    pub limit: ConnectionLimit,
    /// The length of the set of its open connections.
    pub open: u64,
    /// The counters.
    pub counters: EntrypointCounters,
}

impl EntrypointNumbers {
    /// Returns how many connections were turned away, by reason as the metrics call it, sorted by
    /// that: refused, or closed because of what had to come first or because no rule fitted.
    #[must_use]
    pub fn turned_away(&self) -> Vec<(&'static str, u64)> {
        let refused = self.counters.refused.iter();
        let refused = refused.map(|(reason, n)| (reason.label(), n));
        let closed = [
            CloseReason::NoRoute,
            CloseReason::Prologue,
            CloseReason::Untrusted,
        ];
        let closed = closed.map(|it| (it.label(), self.counters.closed.of(it).value()));
        let mut all: Vec<_> = refused.chain(closed).collect();
        all.sort_unstable();
        all
    }

    /// Returns what it listens on as text: three consecutive ports or more of an address as a
    /// range.
    #[must_use]
    pub fn listens_on(&self) -> Vec<String> {
        const RANGE: usize = 3;
        let follows = |a: &Local, b: &Local| match (a, b) {
            (Local::Tcp(a), Local::Tcp(b)) => {
                a.ip() == b.ip() && a.port().checked_add(1) == Some(b.port())
            }
            _ => false,
        };
        let mut all = Vec::new();
        for run in self.listening.chunk_by(follows) {
            match (run, run.last()) {
                ([Local::Tcp(first), ..], Some(Local::Tcp(last))) if run.len() >= RANGE => {
                    all.push(format!("{first}-{}", last.port()));
                }
                _ => all.extend(run.iter().map(Local::to_string)),
            }
        }
        all
    }
}

impl Publish for EntrypointNumbers {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_open_connections",
            "Connections open now: the length of the set of connections at this scrape.",
            |it, out| out.value(it.open),
        ),
        Metric::counter(
            "coracle_connections_opened_total",
            "Connections accepted and added to the set of connections.",
            |it, out| out.value(it.counters.opened.value()),
        ),
        Metric::counter(
            "coracle_connections_closed_total",
            "Connections that left the set of connections, by the reason why they ended.",
            |it, out| out.by("reason", &it.counters.closed),
        ),
        Metric::counter(
            "coracle_routed_connections_total",
            "Connections whose service a rule of the entrypoint has decided, by the label of the rule; default for those that no rule fitted.",
            |it, out| {
                for route in &it.routes {
                    out.number(Some(("route", &route.label)), route.connections as f64);
                }
            },
        ),
        Metric::histogram(
            "coracle_connection_duration_seconds",
            "How long ended connections were open, in seconds.",
            |it, out| out.observed(&it.counters.duration),
        ),
        Metric::counter(
            "coracle_bytes_total",
            "Payload bytes relayed, counted as they pass.",
            |it, out| out.by("direction", &it.counters.bytes),
        ),
        Metric::counter(
            "coracle_accept_errors_total",
            "Failed attempts to accept a connection. The listener continues after each.",
            |it, out| out.by("reason", &it.counters.accept_errors),
        ),
        Metric::counter(
            "coracle_connections_refused_total",
            "Connections that were refused. They never enter the set, except those of clients that a proxy's header names.",
            |it, out| out.by("reason", &it.counters.refused),
        ),
        Metric::counter(
            "coracle_bandwidth_limited_seconds_total",
            "How long connections have waited because of a limit of the bandwidth, by that limit.",
            |it, out| {
                for (limit, nanos) in it.counters.limited.iter() {
                    out.number(Some(("limit", limit.label())), nanos as f64 / 1e9);
                }
            },
        ),
    ];

    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str)) {
        add("entrypoint", &self.identity.name);
        add("protocol", self.identity.protocol.label());
    }
}
