//! Copies of the state at one moment, for readers on other threads. This module does no I/O and
//! changes nothing.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::account_numbers::AccountSize;
use super::addresses::Addresses;
use super::ceiling::CeilingNumbers;
use super::config_loads::ConfigLoads;
use super::conns::Phase;
use super::direction::Direction;
use super::entrypoint::{EntrypointIdentity, EntrypointNumbers};
use super::held::HeldBytes;
use super::identity::{ConnId, EntrypointId, ServerId};
use super::loop_times::LoopNumbers;
use super::peer::Peer;
use super::server::{ServerIdentity, ServerNumbers};
use super::service::ServiceNumbers;

/// All numbers at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// One entry per entrypoint, oldest first.
    pub entrypoints: Vec<EntrypointNumbers>,
    /// All connections together.
    pub connections: ConnectionTotals,
    /// How long iterations of the loop take.
    pub loop_times: LoopNumbers,
    /// One entry per service, sorted by name.
    pub services: Vec<ServiceNumbers>,
    /// One entry per server, sorted by name.
    pub servers: Vec<ServerNumbers>,
    /// The addresses on which the entrypoints listen.
    pub addresses: Arc<Addresses>,
    /// The configurations that have come into force.
    pub config_loads: ConfigLoads,
    /// The bytes held for blocked receivers.
    pub held: HeldBytes,
    /// What was done against a lack of memory.
    pub ceiling: CeilingNumbers,
    /// How many clients are known, if what they use is counted.
    pub accounts: Option<AccountSize>,
    /// Whether metrics that Traefik also has are published under Traefik's names, too.
    pub traefik_names: bool,
}

/// All connections since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionTotals {
    /// How many have entered the set.
    pub opened: u64,
    /// How many are in it.
    pub open: u64,
}

/// The set of open connections at one moment.
#[derive(Debug)]
pub struct Entries {
    /// The entries, in no particular order.
    pub list: Vec<Entry>,
    /// The live entrypoints, oldest first.
    pub entrypoints: Vec<Arc<EntrypointIdentity>>,
    /// The live servers, oldest first.
    pub servers: Vec<Arc<ServerIdentity>>,
    /// The addresses on which the entrypoints listen.
    pub addresses: Arc<Addresses>,
    /// The moment of the copy.
    pub at: Instant,
}

/// One entry of the set.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The connection's identity.
    pub id: ConnId,
    /// Who is at the client's end.
    pub peer: Peer,
    /// Who is at the other end of the socket, if that is a proxy of the client.
    pub socket_peer: Option<Peer>,
    /// The entrypoint that accepted it.
    pub entrypoint: EntrypointId,
    /// The name of the service that it is for, once that is decided.
    pub service: Option<Arc<str>>,
    /// The label of the rule that has decided about that, if the entrypoint has rules.
    pub route: Option<Arc<str>>,
    /// The server, once the connection is connected to one.
    pub server: Option<ServerId>,
    /// How far the connection has progressed.
    pub phase: Phase,
    /// When the connection was accepted.
    pub opened: Instant,
    /// Payload bytes passed on from the client to the server so far.
    pub to_server_bytes: u64,
    /// Payload bytes passed on from the server to the client so far.
    pub to_client_bytes: u64,
}

impl Entries {
    /// Returns the entrypoint's name, or an empty string if it is no longer alive.
    #[must_use]
    pub fn entrypoint_name(&self, id: EntrypointId) -> &str {
        let found = self.entrypoints.binary_search_by_key(&id, |it| it.id);
        found.map_or("", |index| &self.entrypoints[index].name)
    }

    /// Returns the server's name, or an empty string if it is no longer alive.
    #[must_use]
    pub fn server_name(&self, id: ServerId) -> &str {
        let found = self.servers.binary_search_by_key(&id, |it| it.id);
        found.map_or("", |index| &self.servers[index].name)
    }
}

impl Shared {
    /// Copies all numbers. This is all that a scrape costs the thread that moves data: it does not
    /// walk the set of connections, because each entrypoint and server has its own set.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let registry = &self.registry;
        Snapshot {
            entrypoints: registry.entrypoint_numbers(),
            connections: ConnectionTotals {
                opened: self.conns.opened(),
                open: self.conns.len() as u64,
            },
            loop_times: self.loop_times.numbers(),
            services: registry.service_numbers(),
            servers: registry.server_numbers(),
            addresses: registry.addresses(),
            config_loads: self.config_loads.clone(),
            held: self.held.copy(),
            ceiling: self.ceiling.numbers(),
            accounts: self.account_size(),
            traefik_names: self.traefik_names.get(),
        }
    }

    /// Copies the set of open connections.
    #[must_use]
    pub fn entries(&self, at: Instant) -> Entries {
        let mut list = Vec::with_capacity(self.conns.len());
        self.conns.for_each(|conn| {
            list.push(Entry {
                id: conn.id,
                peer: conn.peer(),
                socket_peer: conn.proxied().map(|_| conn.socket_peer()),
                entrypoint: conn.entrypoint.id(),
                service: conn.service().map(|it| it.name.clone()),
                route: conn.route().cloned(),
                server: conn.server().map(|server| server.id()),
                phase: conn.shown_phase(),
                opened: conn.opened(),
                to_server_bytes: conn.bytes(Direction::ToServer),
                to_client_bytes: conn.bytes(Direction::ToClient),
            });
        });
        let entrypoints = self.registry.entrypoints();
        let servers = self.registry.servers();
        let mut servers: Vec<_> = servers.iter().map(|it| it.identity.clone()).collect();
        servers.sort_unstable_by_key(|it| it.id);
        Entries {
            list,
            entrypoints: entrypoints.iter().map(|it| it.identity.clone()).collect(),
            servers,
            addresses: self.registry.addresses(),
            at,
        }
    }
}
