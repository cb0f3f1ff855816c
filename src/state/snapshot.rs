//! Copies of the state at one moment, for those who read it at leisure. No I/O, and nothing is changed.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::addresses::Addresses;
use super::config_loads::ConfigLoads;
use super::conns::Phase;
use super::entrypoint::{Direction, EntrypointIdentity, EntrypointNumbers};
use super::held::HeldBytes;
use super::identity::{ConnId, EntrypointId, ServerId};
use super::peer::Peer;
use super::service::{ServerIdentity, ServerNumbers};

/// All numbers of one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// One for each entrypoint, the oldest first.
    pub entrypoints: Vec<EntrypointNumbers>,
    /// One for each server, in the order of their names.
    pub servers: Vec<ServerNumbers>,
    /// Where the entrypoints listen.
    pub addresses: Arc<Addresses>,
    /// The configurations that have come into force.
    pub config_loads: ConfigLoads,
    /// Bytes that are held for blocked receivers.
    pub held: HeldBytes,
    /// Whether what Traefik publishes too is published under its names as well.
    pub traefik_names: bool,
}

/// The set at one moment.
#[derive(Debug)]
pub struct Entries {
    /// The entries, in no order.
    pub list: Vec<Entry>,
    /// The entrypoints that live, the oldest first.
    pub entrypoints: Vec<Arc<EntrypointIdentity>>,
    /// The servers that live, the oldest first.
    pub servers: Vec<Arc<ServerIdentity>>,
    /// Where the entrypoints listen.
    pub addresses: Arc<Addresses>,
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
    /// Where it came in.
    pub entrypoint: EntrypointId,
    /// The server it talks to, once it is connected to one.
    pub server: Option<ServerId>,
    /// How far it has come.
    pub phase: Phase,
    /// When it was accepted.
    pub opened: Instant,
    /// Payload bytes passed on from the client to the server so far.
    pub to_server_bytes: u64,
    /// Payload bytes passed on from the server to the client so far.
    pub to_client_bytes: u64,
}

impl Entries {
    /// The entrypoint's name; empty for one that does not live.
    #[must_use]
    pub fn entrypoint_name(&self, id: EntrypointId) -> &str {
        let found = self.entrypoints.binary_search_by_key(&id, |it| it.id);
        found.map_or("", |index| &self.entrypoints[index].name)
    }

    /// The server's name; empty for one that does not live.
    #[must_use]
    pub fn server_name(&self, id: ServerId) -> &str {
        let found = self.servers.binary_search_by_key(&id, |it| it.id);
        found.map_or("", |index| &self.servers[index].name)
    }
}

impl Shared {
    /// Copies all numbers. This is all that a scrape costs the thread that moves data: no walk through the set, for each
    /// entrypoint and server has its own.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (entrypoints, servers) = self.registry.numbers();
        Snapshot {
            entrypoints,
            servers,
            addresses: self.registry.addresses(),
            config_loads: self.config_loads.clone(),
            held: self.held.copy(),
            traefik_names: self.traefik_names.get(),
        }
    }

    /// Copies the set.
    #[must_use]
    pub fn entries(&self, at: Instant) -> Entries {
        let mut list = Vec::with_capacity(self.conns.len());
        self.conns.for_each(|conn| {
            list.push(Entry {
                id: conn.id,
                peer: conn.peer(),
                entrypoint: conn.entrypoint.id(),
                server: conn.server().map(|server| server.id()),
                phase: conn.phase(),
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
