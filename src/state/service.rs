//! Servers, what is counted and published of them, and the choice among those of a service.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::counters::{CounterBy, Histogram};
use super::identity::ServerId;
use super::members::Members;
use super::metric::{Metric, Publish};
use super::reason::ConnectError;

/// Upper bounds of the connect time's buckets: 0.5 ms (the same box) over a LAN and Wi-Fi to 5 s, the default timeout.
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

/// What a server is known by.
#[derive(Debug)]
pub struct ServerIdentity {
    /// Its identity.
    pub id: ServerId,
    /// The name of its service.
    pub service: String,
    /// Its address as written in the configuration.
    pub name: String,
}

/// One server of a service. It lives until the configuration no longer has it and its last connection has gone.
#[derive(Debug)]
pub struct Server {
    /// What it is known by.
    pub identity: Arc<ServerIdentity>,
    /// The open connections that are connected to it.
    pub open: Members,
    /// What is counted.
    pub counters: ServerCounters,
}

/// What is counted for one server.
#[derive(Clone, Debug)]
pub struct ServerCounters {
    /// How long it took to connect, for each success.
    pub connect_duration: Histogram<8>,
    /// Attempts to connect that failed.
    pub connect_errors: CounterBy<ConnectError>,
}

impl Server {
    pub(super) fn new(id: ServerId, service: &str, name: &str) -> Self {
        Self {
            identity: Arc::new(ServerIdentity {
                id,
                service: service.to_owned(),
                name: name.to_owned(),
            }),
            open: Members::default(),
            counters: ServerCounters {
                connect_duration: Histogram::new(CONNECT_BOUNDS),
                connect_errors: CounterBy::default(),
            },
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.identity.id
    }

    /// Its address as written in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// A copy of its numbers.
    #[must_use]
    pub fn numbers(&self) -> ServerNumbers {
        ServerNumbers {
            identity: self.identity.clone(),
            open: self.open.len() as u64,
            counters: self.counters.clone(),
        }
    }
}

/// The numbers of one server at one moment.
#[derive(Debug)]
pub struct ServerNumbers {
    /// Which server.
    pub identity: Arc<ServerIdentity>,
    /// The length of the set of open connections that are connected to it.
    pub open: u64,
    /// What was counted.
    pub counters: ServerCounters,
}

impl Publish for ServerNumbers {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_service_open_connections",
            "Open connections that are connected to this server; those that are still dialling belong to none.",
            |it, out| out.value(it.open),
        ),
        Metric::histogram(
            "coracle_connect_duration_seconds",
            "How long it took to connect to the server, in seconds, for each success.",
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

/// A group of servers that offer the same, used in turn. Which servers these are is its routes' business.
#[derive(Debug)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    turn: Cell<usize>,
}

impl Service {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            turn: Cell::new(0),
        }
    }

    /// Each of its `servers` once, in the order in which one connection shall try them: each call starts one further on (round
    /// robin).
    pub fn in_turn<'a, T>(&self, servers: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let n = servers.len().max(1);
        let first = self.turn.get() % n;
        self.turn.set((first + 1) % n);
        servers[first.min(servers.len())..]
            .iter()
            .chain(&servers[..first])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_turns_and_each_connection_may_try_all() {
        let service = Service::new("s");
        let names = |_| -> String { service.in_turn(&["a", "b", "c"]).copied().collect() };
        let tries: Vec<String> = (0..4).map(names).collect();
        assert_eq!(tries, ["abc", "bca", "cab", "abc"]);
    }

    #[test]
    fn the_turn_goes_on_where_servers_come_and_go() {
        let service = Service::new("s");
        let many = [0; 5].map(|_| service.in_turn(&["a", "b", "c", "d"]).next());
        assert_eq!(many[4], Some(&"a"));
        assert_eq!(service.in_turn(&["a"]).next(), Some(&"a"));
        assert_eq!(service.in_turn(&["a", "b"]).next(), Some(&"a"));
        assert_eq!(service.in_turn(&[] as &[u8]).next(), None);
    }
}
