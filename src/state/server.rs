//! One server: its connections, its health, and what an operator has ordered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::{self, Candidate};
use super::counters::{Counter, CounterBy, Histogram, Label as _, label};
use super::direction::Direction;
use super::health::{Change, Health};
use super::identity::{ConnId, ServerId};
use super::members::Members;
use super::metric::{Metric, Publish};
use super::past::Passed;
use super::reason::ConnectError;
use super::record::{LastCheck, Record};
use super::service::Service;

/// Upper bounds of the connect time's buckets: from 0.5 ms (the same machine) over LAN and Wi-Fi to
/// 5 s, the default timeout.
const CONNECT_BOUNDS: &[Duration; 8] = &[
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

label! {
    /// What an operator has ordered for a server.
    AdminState {
        /// It gets new connections while it is up.
        Ready = "ready",
        /// It gets no new connections. Its open ones continue.
        Drain = "drain",
        /// It counts as down.
        Down = "down",
    }
}

label! {
    /// The direction in which a server's state changed.
    StateChange {
        /// It came up.
        Up = "up",
        /// It went down.
        Down = "down",
    }
}

/// Why an operator's orders change a server's state.
const BY_ORDER: &str = "ordered by an operator";

/// What identifies a server.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The server's identity.
    pub id: ServerId,
    /// The name of its service.
    pub service: Arc<str>,
    /// Its name, or its address as written in the configuration.
    pub name: String,
}

/// A server's share of the connections, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its weight in proportion to that of others; 0 for no new connections.
    pub weight: u16,
    /// Whether it is used only while no other server is up.
    pub is_backup: bool,
    /// The maximum number of its connections.
    pub max_connections: Option<usize>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 1,
            is_backup: false,
            max_connections: None,
        }
    }
}

/// One server of a service. It lives until the configuration no longer has it and its last
/// connection is gone.
#[derive(Debug)]
pub struct Server {
    /// What identifies the server.
    pub identity: Arc<ServerIdentity>,
    /// The service that it belongs to.
    pub service: Rc<Service>,
    /// The open connections that are connected to it.
    pub open: Members,
    /// The counters.
    pub counters: ServerCounters,
    /// The connections that are dialling it.
    dialling: Members,
    share: Cell<Share>,
    admin: Cell<AdminState>,
    health: RefCell<Health>,
    /// Whether a connection is finding out if the server is back.
    is_on_trial: Cell<bool>,
    /// Whether it is checked.
    is_checked: Cell<bool>,
    record: Record,
    seat: Cell<i64>,
    key: u64,
}

/// The counters of one server.
#[derive(Clone, Debug)]
pub struct ServerCounters {
    /// Connections that were connected to it.
    pub opened: Counter,
    /// Payload bytes relayed.
    pub bytes: CounterBy<Direction>,
    /// How long each successful connect took.
    pub connect_duration: Histogram<8>,
    /// Failed attempts to connect.
    pub connect_errors: CounterBy<ConnectError>,
    /// How often it came up and went down.
    pub state_changes: CounterBy<StateChange>,
    /// How long each finished check took.
    pub check_duration: Histogram<8>,
    /// Failed checks.
    pub check_failures: Counter,
}

impl ServerCounters {
    /// Returns what has passed at the server.
    pub(super) fn passed(&self) -> Passed {
        Passed {
            opened: self.opened.value(),
            bytes: self.bytes.both(),
        }
    }
}

/// In which order servers are used. The first group that has servers decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    Primary,
    Backup,
    /// Tried although it is down.
    DownPrimary,
    DownBackup,
}

impl Server {
    pub(super) fn new(id: ServerId, service: &Rc<Service>, name: &str) -> Self {
        Self {
            identity: Arc::new(ServerIdentity {
                id,
                service: service.name.clone(),
                name: name.to_owned(),
            }),
            service: service.clone(),
            open: Members::default(),
            counters: ServerCounters {
                opened: Counter::default(),
                bytes: CounterBy::default(),
                connect_duration: Histogram::new(CONNECT_BOUNDS),
                connect_errors: CounterBy::default(),
                state_changes: CounterBy::default(),
                check_duration: Histogram::new(CONNECT_BOUNDS),
                check_failures: Counter::default(),
            },
            dialling: Members::default(),
            share: Cell::default(),
            admin: Cell::new(AdminState::Ready),
            health: RefCell::default(),
            is_on_trial: Cell::new(false),
            is_checked: Cell::new(false),
            record: Record::default(),
            seat: Cell::new(0),
            key: balance::key(name),
        }
    }

    /// Returns the server's identity.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.identity.id
    }

    /// Returns the server's name, or its address as written in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Returns the share that the configuration gives it.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share.get()
    }

    /// Sets the share from a configuration that comes into force.
    pub fn set_share(&self, share: Share) {
        if self.share.replace(share) != share {
            self.service.offer();
        }
    }

    /// Returns whether connections and checks find it working, whatever an operator has ordered.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.health.borrow().is_up()
    }

    /// Returns whether it counts as up: it works, and no operator has taken it down.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.admin.get() != AdminState::Down && self.is_healthy()
    }

    /// Returns what an operator has ordered.
    #[must_use]
    pub fn admin_state(&self) -> AdminState {
        self.admin.get()
    }

    /// Does what an operator orders. Returns the change if the server went up or down by it.
    pub fn order(&self, state: AdminState, now: Instant) -> Option<Change> {
        let was_up = self.is_up();
        let before = self.admin.replace(state);
        if before == state {
            return None;
        }
        if state == AdminState::Ready {
            self.health.borrow_mut().starts(now);
        }
        self.record.changed(now);
        self.service.offer();
        let is_up = self.is_up();
        let change = (was_up != is_up).then(|| Change {
            is_up,
            why: BY_ORDER.to_owned(),
        });
        change.inspect(|change| self.count(change))
    }

    /// Returns why it counts as down, or `None` if it is up.
    #[must_use]
    pub fn why_down(&self) -> Option<Arc<str>> {
        match self.admin.get() {
            AdminState::Down => Some(BY_ORDER.into()),
            AdminState::Ready | AdminState::Drain => self.record.why_down(),
        }
    }

    /// Returns how many connections it has and how many are dialling it.
    #[must_use]
    pub fn load(&self) -> usize {
        self.open.len() + self.dialling.len()
    }

    pub(super) fn has_room(&self) -> bool {
        let most = self.share.get().max_connections;
        most.is_none_or(|most| self.load() < most)
    }

    /// Returns when it may be used, or `None` for never.
    pub(super) fn tier(&self, now: Instant) -> Option<Tier> {
        let share = self.share.get();
        if share.weight == 0 || self.admin.get() != AdminState::Ready {
            return None;
        }
        let health = self.health.borrow();
        let may_be_tried = || !self.is_on_trial.get() && self.has_room();
        let is_usable = health.is_up() || (health.is_trial_due(now) && may_be_tried());
        match (is_usable, share.is_backup) {
            (true, false) => Some(Tier::Primary),
            (true, true) => Some(Tier::Backup),
            _ if self.service.rules().refuses_when_down => None,
            (false, false) => Some(Tier::DownPrimary),
            (false, true) => Some(Tier::DownBackup),
        }
    }

    /// Returns when a connection may try it again, if it is out until then. Only time makes that
    /// moment come, so whoever waits for the server needs a timer.
    #[must_use]
    pub fn next_trial(&self) -> Option<Instant> {
        self.health.borrow().next_trial()
    }

    pub(super) fn candidate(&self, now: Instant) -> Candidate<'_> {
        let slow_start = self.service.rules().slow_start;
        let share = self.health.borrow().share(slow_start, now);
        Candidate {
            weight: u32::from(self.share.get().weight) * share,
            load: self.load(),
            seat: &self.seat,
            key: self.key,
        }
    }

    /// Takes a place at the server for a connection that dials it.
    #[must_use]
    pub fn place(self: &Rc<Self>, conn: ConnId) -> Place {
        self.dialling.insert(conn);
        let is_trial = !self.is_healthy() && !self.is_on_trial.replace(true);
        Place {
            server: self.clone(),
            conn,
            is_trial,
            is_kept: false,
        }
    }

    /// Records that a connection could not reach it, and why. Returns the change if that takes it
    /// down.
    pub fn failed(&self, why: &str, now: Instant) -> Option<Change> {
        let rules = self.service.rules().health;
        let change = self.health.borrow_mut().failed(why, rules, now);
        self.found(change, now)
    }

    /// Records the outcome of a check that took `took`. Returns the change if the server went up or
    /// down by it.
    pub fn checked(
        &self,
        outcome: Result<(), &str>,
        took: Duration,
        now: Instant,
    ) -> Option<Change> {
        self.is_checked.set(true);
        self.counters.check_duration.observe(took);
        if outcome.is_err() {
            self.counters.check_failures.increment();
        }
        let rules = self.service.rules().health;
        let change = self.health.borrow_mut().checked(outcome, rules, now);
        self.record.checked(outcome, took, now);
        self.found(change, now)
    }

    /// Records that it is no longer checked. Returns the change if the checks had taken it down.
    pub fn unchecked(&self, now: Instant) -> Option<Change> {
        self.is_checked.set(false);
        let change = self.health.borrow_mut().unchecked(now);
        self.record.unchecked();
        // Without a change, too, it may be time for a connection to try it.
        self.service.offer();
        self.found(change, now)
    }

    /// Takes note of what connections or checks have found. While an operator keeps the server
    /// down, that changes nothing.
    fn found(&self, change: Option<Change>, now: Instant) -> Option<Change> {
        let change = change?;
        self.record.found(change.is_up, &change.why);
        if self.admin.get() == AdminState::Down {
            return None;
        }
        self.record.changed(now);
        self.count(&change);
        self.service.offer();
        Some(change)
    }

    fn count(&self, change: &Change) {
        let to = if change.is_up {
            StateChange::Up
        } else {
            StateChange::Down
        };
        self.counters.state_changes.of(to).increment();
    }

    /// Removes a connection that was connected to it.
    pub(super) fn leaves(&self, conn: ConnId) {
        self.open.remove(conn);
        self.service.offer();
    }

    /// Returns a copy of the server's numbers.
    #[must_use]
    pub fn numbers(&self) -> ServerNumbers {
        ServerNumbers {
            identity: self.identity.clone(),
            open: self.open.len() as u64,
            dialling: self.dialling.len() as u64,
            is_up: self.is_up(),
            why_down: self.why_down(),
            since: self.record.since(),
            is_checked: self.is_checked.get(),
            last_check: self.record.last_check(),
            admin: self.admin.get(),
            share: self.share.get(),
            counters: self.counters.clone(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let past = &self.service.past;
        past.set(past.get().and(self.counters.passed()));
    }
}

/// A place at a server, held by the connection that dials it. Dropping it gives it up.
#[derive(Debug)]
pub struct Place {
    server: Rc<Server>,
    conn: ConnId,
    is_trial: bool,
    /// The connection is connected, so it has kept its place at the server.
    is_kept: bool,
}

impl Place {
    /// Returns the server.
    #[must_use]
    pub fn server(&self) -> &Rc<Server> {
        &self.server
    }

    /// Turns the place into that of a connected connection. Returns the change if that brings the
    /// server up.
    pub(super) fn connected(mut self, now: Instant) -> Option<Change> {
        self.server.open.insert(self.conn);
        self.server.counters.opened.increment();
        self.is_kept = true;
        let change = self.server.health.borrow_mut().connected(now);
        self.server.found(change, now)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server.dialling.remove(self.conn);
        if self.is_trial {
            self.server.is_on_trial.set(false);
        }
        if !self.is_kept {
            self.server.service.offer();
        }
    }
}

/// The numbers of one server at one moment.
#[derive(Debug)]
pub struct ServerNumbers {
    /// What identifies the server.
    pub identity: Arc<ServerIdentity>,
    /// The length of the set of open connections that are connected to it.
    pub open: u64,
    /// The number of connections that are dialling it.
    pub dialling: u64,
    /// Whether it counts as up.
    pub is_up: bool,
    /// Why it counts as down, or `None` if it is up.
    pub why_down: Option<Arc<str>>,
    /// When it last went up or down or got another order, or `None` if it never has.
    pub since: Option<Instant>,
    /// Whether it is checked.
    pub is_checked: bool,
    /// The last finished check, while it is checked.
    pub last_check: Option<LastCheck>,
    /// What an operator has ordered.
    pub admin: AdminState,
    /// The share that the configuration gives it.
    pub share: Share,
    /// The counters.
    pub counters: ServerCounters,
}

impl Publish for ServerNumbers {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_service_open_connections",
            "Open connections connected to this server; connections still dialling belong to no server.",
            |it, out| out.value(it.open),
        ),
        Metric::counter(
            "coracle_service_bytes_total",
            "Payload bytes relayed to and from this server, counted as they pass.",
            |it, out| out.by("direction", &it.counters.bytes),
        ),
        Metric::gauge(
            "coracle_server_up",
            "Whether the server counts as up (1) or down (0), by its connections, its checks and an operator's orders.",
            |it, out| out.value(it.is_up.into()),
        ),
        Metric::gauge(
            "coracle_server_admin_state",
            "What an operator has ordered for the server: 0 ready, 1 drain, 2 down.",
            |it, out| out.value(it.admin.index() as u64),
        ),
        Metric::counter(
            "coracle_server_state_changes_total",
            "How often the server came up and went down.",
            |it, out| out.by("to", &it.counters.state_changes),
        ),
        Metric::histogram(
            "coracle_server_check_duration_seconds",
            "How long each health check of the server took, in seconds.",
            |it, out| {
                if it.is_checked {
                    out.observed(&it.counters.check_duration);
                }
            },
        ),
        Metric::counter(
            "coracle_server_check_failures_total",
            "Failed health checks of the server.",
            |it, out| {
                if it.is_checked {
                    out.value(it.counters.check_failures.value());
                }
            },
        ),
        Metric::histogram(
            "coracle_connect_duration_seconds",
            "How long each successful connect to the server took, in seconds.",
            |it, out| out.observed(&it.counters.connect_duration),
        ),
        Metric::counter(
            "coracle_connect_errors_total",
            "Failed attempts to connect to the server.",
            |it, out| out.by("reason", &it.counters.connect_errors),
        ),
    ];

    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str)) {
        add("service", &self.identity.service);
        add("server", &self.identity.name);
    }
}
