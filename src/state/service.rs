//! Servers with their counters and metrics, and services, which choose among their servers.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::counters::{CounterBy, Histogram};
use super::identity::ServerId;
use super::members::Members;
use super::metric::{Metric, Publish};
use super::reason::ConnectError;

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

/// What identifies a server.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The server's identity.
    pub id: ServerId,
    /// The name of its service.
    pub service: String,
    /// Its address as written in the configuration.
    pub name: String,
}

/// One server of a service. It lives until the configuration no longer has it and its last
/// connection is gone.
#[derive(Debug)]
pub struct Server {
    /// What identifies the server.
    pub identity: Arc<ServerIdentity>,
    /// The open connections that are connected to it.
    pub open: Members,
    /// The counters.
    pub counters: ServerCounters,
}

/// The counters of one server.
#[derive(Clone, Debug)]
pub struct ServerCounters {
    /// How long each successful connect took.
    pub connect_duration: Histogram<8>,
    /// Failed attempts to connect.
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

    /// Returns the server's identity.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.identity.id
    }

    /// Returns the server's address as written in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Returns a copy of the server's numbers.
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
    /// What identifies the server.
    pub identity: Arc<ServerIdentity>,
    /// The length of the set of open connections that are connected to it.
    pub open: u64,
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

/// A group of interchangeable servers, used in turn. Its routes hold the list of servers.
#[derive(Debug)]
pub struct Service {
    /// The service's name in the configuration.
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

    /// Iterates over each of `servers` once, in the order in which a connection should try them.
    /// Each call starts one further on (round robin).
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
    fn servers_take_turns_and_a_connection_may_try_all() {
        let service = Service::new("s");
        let names = |_| -> String { service.in_turn(&["a", "b", "c"]).copied().collect() };
        let tries: Vec<String> = (0..4).map(names).collect();
        assert_eq!(tries, ["abc", "bca", "cab", "abc"]);
    }

    #[test]
    fn turn_survives_added_and_removed_servers() {
        let service = Service::new("s");
        let many = [0; 5].map(|_| service.in_turn(&["a", "b", "c", "d"]).next());
        assert_eq!(many[4], Some(&"a"));
        assert_eq!(service.in_turn(&["a"]).next(), Some(&"a"));
        assert_eq!(service.in_turn(&["a", "b"]).next(), Some(&"a"));
        assert_eq!(service.in_turn(&[] as &[u8]).next(), None);
    }
}
