//! What is known at one moment, copied so that another thread can read it at leisure. No I/O, and nothing is changed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::config_loads::ConfigLoads;
use super::conns::{ConnId, Peer, Phase};
use super::counters::{Counter, CounterBy, Histogram};
use super::entrypoint::{AcceptError, Direction, Entrypoint, Local, Protocol};
use super::held::HeldIn;
use super::reason::{CloseReason, ConnectError};
use super::service::{Server, ServerId};

/// All numbers of one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// What the numbers belong to.
    pub catalogue: Arc<Catalogue>,
    /// One for each entrypoint, in the order of the configuration.
    pub entrypoints: Vec<EntrypointNumbers>,
    /// One for each server, service by service.
    pub servers: Vec<ServerNumbers>,
    /// The configurations that have come into force.
    pub config_loads: ConfigLoads,
    /// Bytes that are held for blocked receivers, by the place.
    held: [usize; 2],
}

impl Snapshot {
    /// Bytes that are held in this place for blocked receivers.
    #[must_use]
    pub fn held_bytes(&self, place: HeldIn) -> usize {
        self.held[place as usize]
    }
}

/// The numbers of one entrypoint; [`Entrypoint`] says what they are.
#[derive(Debug)]
pub struct EntrypointNumbers {
    /// Connections in the set.
    pub open: u64,
    /// Connections that have entered it.
    pub opened: Counter,
    /// Connections that have left it.
    pub closed: CounterBy<CloseReason>,
    /// Payload bytes that were passed on.
    pub bytes: CounterBy<Direction>,
    /// How long the connections that have left were open.
    pub duration: Histogram<9>,
    /// Failed attempts to accept a connection.
    pub accept_errors: CounterBy<AcceptError>,
}

impl EntrypointNumbers {
    fn of(entrypoint: &Entrypoint) -> Self {
        Self {
            open: 0,
            opened: entrypoint.opened.clone(),
            closed: entrypoint.closed.clone(),
            bytes: entrypoint.bytes.clone(),
            duration: entrypoint.duration.clone(),
            accept_errors: entrypoint.accept_errors.clone(),
        }
    }
}

/// The numbers of one server; [`Server`] says what they are.
#[derive(Debug)]
pub struct ServerNumbers {
    /// Connections in the set that are connected to it.
    pub open: u64,
    /// How long it took to connect.
    pub connect_duration: Histogram<8>,
    /// Attempts to connect that failed.
    pub connect_errors: CounterBy<ConnectError>,
}

impl ServerNumbers {
    fn of(server: &Server) -> Self {
        Self {
            open: 0,
            connect_duration: server.connect_duration.clone(),
            connect_errors: server.connect_errors.clone(),
        }
    }
}

/// The set at one moment.
#[derive(Debug)]
pub struct Entries {
    /// What the positions in the entries stand for.
    pub catalogue: Arc<Catalogue>,
    /// The entries, in no order.
    pub list: Vec<Entry>,
    /// The moment.
    pub at: Instant,
}

/// One entry of the set.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its identity.
    pub id: ConnId,
    /// Who is at the client's end.
    pub peer: Peer,
    /// Where it came in: a position in [`Catalogue::entrypoints`].
    pub entrypoint: u32,
    /// The service it is for: a position in [`Catalogue::services`].
    pub service: u32,
    /// The server it talks to, once chosen.
    pub server: Option<ServerId>,
    /// How far it has come.
    pub phase: Phase,
    /// When it was accepted.
    pub opened: Instant,
}

impl Shared {
    /// Copies all numbers. This is all that a scrape costs the thread that moves data: one walk through the set, and one
    /// copy of the counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let entrypoints = self.entrypoints.iter();
        let mut entrypoints: Vec<_> = entrypoints.map(|it| EntrypointNumbers::of(it)).collect();
        let of_services = self.services.iter().map(|service| service.servers.len());
        // Where the servers of each service begin.
        let begins = |begin: &mut usize, n: usize| Some(std::mem::replace(begin, *begin + n));
        let begins: Vec<_> = of_services.clone().scan(0, begins).collect();
        let mut servers = Vec::with_capacity(of_services.sum());
        let of_all = self.services.iter().flat_map(|service| &service.servers);
        servers.extend(of_all.map(ServerNumbers::of));
        // How the set is spread is read off its entries, never counted beside it.
        self.conns.for_each(|conn| {
            entrypoints[conn.entrypoint.index].open += 1;
            if let Some(server) = conn.server() {
                servers[begins[conn.service.index] + server.index()].open += 1;
            }
        });
        Snapshot {
            catalogue: self.catalogue(),
            entrypoints,
            servers,
            config_loads: self.config_loads.clone(),
            held: [HeldIn::Spill, HeldIn::Pipe].map(|place| self.held.bytes(place)),
        }
    }

    /// Copies the set.
    #[must_use]
    pub fn entries(&self, at: Instant) -> Entries {
        let mut list = Vec::with_capacity(self.conns.len());
        self.conns.for_each(|conn| {
            list.push(Entry {
                id: conn.id,
                peer: conn.peer,
                // A configuration has far fewer.
                entrypoint: conn.entrypoint.index as u32,
                service: conn.service.index as u32,
                server: conn.server(),
                phase: conn.phase(),
                opened: conn.opened,
            });
        });
        Entries {
            catalogue: self.catalogue(),
            list,
            at,
        }
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        let catalogue = self.catalogue.get_or_init(|| Arc::new(Catalogue::of(self)));
        catalogue.clone()
    }
}

/// The names that numbers and entries belong to. It is made once, when all listeners are open.
#[derive(Debug)]
pub struct Catalogue {
    /// The entrypoints' names and protocols, in the order of the configuration.
    pub entrypoints: Vec<(String, Protocol)>,
    /// The services' names with those of their servers, in the order of the configuration.
    pub services: Vec<(String, Vec<String>)>,
    /// Whether what Traefik publishes too is published under its names as well.
    pub traefik_names: bool,
    listening: HashMap<Local, usize>,
}

impl Catalogue {
    fn of(shared: &Shared) -> Self {
        let names = |servers: &[Server]| servers.iter().map(|server| server.name.clone()).collect();
        let services = shared.services.iter();
        let entrypoints = shared.entrypoints.iter();
        let listening = entrypoints.clone().flat_map(|entrypoint| {
            let locals = entrypoint.listening().iter();
            locals.map(|local| (plain(local), entrypoint.index))
        });
        Self {
            entrypoints: entrypoints
                .clone()
                .map(|entrypoint| (entrypoint.name.clone(), entrypoint.protocol))
                .collect(),
            services: services
                .map(|service| (service.name.clone(), names(&service.servers)))
                .collect(),
            traefik_names: shared.traefik_names,
            listening: listening.collect(),
        }
    }

    /// What the entrypoints listen on.
    pub fn listening(&self) -> impl Iterator<Item = &Local> {
        self.listening.keys()
    }

    /// The entrypoint that a connection whose own end is `local` was accepted at: the one that listens on just this address, or on all
    /// addresses of this family. (An accepted socket has its listener's family: an IPv4 client of a listener for both has a
    /// mapped address, and none of a listener for IPv4.)
    #[must_use]
    pub fn entrypoint_of(&self, local: &Local) -> Option<usize> {
        let any = |address: &SocketAddr| -> IpAddr {
            match address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            }
        };
        let exact = self.listening.get(&plain(local));
        let found = exact.or_else(|| match local {
            Local::Tcp(address) => {
                let any = SocketAddr::new(any(address), address.port());
                self.listening.get(&Local::Tcp(any))
            }
            Local::Unix(_) => None,
        });
        found.copied()
    }
}

/// Without what else a socket's IPv6 address may hold.
fn plain(local: &Local) -> Local {
    match local {
        Local::Tcp(address) => Local::Tcp(SocketAddr::new(address.ip(), address.port())),
        Local::Unix(path) => Local::Unix(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_socket_belongs_to_the_closest_listener_of_its_own_family() {
        let local = |text: &str| Local::Tcp(text.parse().expect("an address"));
        let listens = |index: usize, on: &str| {
            let entrypoint = Entrypoint::new(index, on, Protocol::Tcp);
            entrypoint.listens_on(vec![local(on)]);
            Rc::new(entrypoint)
        };
        let on = ["0.0.0.0:80", "[::]:80", "10.0.0.9:80", "0.0.0.0:81"];
        let entrypoints = on.iter().enumerate().map(|(i, on)| listens(i, on));
        let shared = Shared::new(entrypoints.collect(), Vec::new());
        let catalogue = shared.catalogue();
        for (socket, index) in [
            ("10.0.0.1:80", Some(0)),
            ("[fd00::1]:80", Some(1)),
            ("[::ffff:10.0.0.1]:80", Some(1)),
            ("10.0.0.9:80", Some(2)),
            ("10.0.0.9:81", Some(3)),
            ("[::ffff:10.0.0.9]:81", None),
            ("10.0.0.1:82", None),
        ] {
            assert_eq!(catalogue.entrypoint_of(&local(socket)), index, "{socket}");
        }
    }
}
