//! A service's servers, their counters and the choice among them.

use std::cell::Cell;
use std::time::Duration;

use super::counters::{CounterBy, Histogram};
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

/// A server's position in its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerId(u16);

impl ServerId {
    /// The position in [`Service::servers`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One server's name and counters.
#[derive(Debug)]
pub struct Server {
    /// Its address as written in the configuration; the metrics' label.
    pub name: String,
    /// How long it took to connect, for each success.
    pub connect_duration: Histogram<8>,
    /// Attempts to connect that failed.
    pub connect_errors: CounterBy<ConnectError>,
}

/// A group of servers that offer the same, used in turn.
#[derive(Debug)]
pub struct Service {
    /// Its position in [`Shared::services`](super::Shared::services).
    pub index: usize,
    /// Its name in the configuration.
    pub name: String,
    /// Its servers, at least one, in the order of the configuration.
    pub servers: Vec<Server>,
    turn: Cell<usize>,
}

impl Service {
    /// A service of which nothing has been counted yet.
    ///
    /// # Panics
    /// With no server, or more than 65,536 of them: the configuration allows neither.
    #[must_use]
    pub fn new(index: usize, name: &str, servers: impl IntoIterator<Item = String>) -> Self {
        let servers: Vec<_> = servers
            .into_iter()
            .map(|name| Server {
                name,
                connect_duration: Histogram::new(CONNECT_BOUNDS),
                connect_errors: CounterBy::default(),
            })
            .collect();
        assert!(!servers.is_empty() && servers.len() <= usize::from(u16::MAX) + 1);
        Self {
            index,
            name: name.to_owned(),
            servers,
            turn: Cell::new(0),
        }
    }

    /// The server with this position.
    #[must_use]
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.index()]
    }

    /// Every server once, in the order in which one connection shall try them: each call starts one further on (round robin).
    pub fn candidates(&self) -> impl Iterator<Item = ServerId> + use<> {
        let n = self.servers.len();
        let first = self.turn.get();
        self.turn.set((first + 1) % n);
        // `new` has made sure that n fits.
        (0..n).map(move |i| ServerId(((first + i) % n) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_turns_and_each_connection_may_try_all() {
        let service = Service::new(0, "s", ["a", "b", "c"].map(str::to_owned));
        let names = |_| -> String {
            service
                .candidates()
                .map(|id| service.server(id).name.as_str())
                .collect()
        };
        let tries: Vec<String> = (0..4).map(names).collect();
        assert_eq!(tries, ["abc", "bca", "cab", "abc"]);
    }
}
