//! What has passed at each entrypoint, service and server, up to one moment.

use std::ptr;
use std::sync::Arc;

use super::Shared;
use super::entrypoint::{Direction, EntrypointIdentity};
use super::past::Passed;
use super::server::ServerIdentity;

/// An entrypoint, service or server.
#[derive(Clone, Debug)]
pub enum Subject {
    /// An entrypoint.
    Entrypoint(Arc<EntrypointIdentity>),
    /// A service, by its name.
    Service(Arc<str>),
    /// A server.
    Server(Arc<ServerIdentity>),
}

impl Subject {
    /// Returns whether both are the same object. One that has ended and begun again is another.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Entrypoint(a), Self::Entrypoint(b)) => a.id == b.id,
            // The name is allocated with the service and kept here, so no later service has it.
            (Self::Service(a), Self::Service(b)) => ptr::eq(&**a, &**b),
            (Self::Server(a), Self::Server(b)) => a.id == b.id,
            _ => false,
        }
    }
}

/// The numbers of one object at one moment.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The object.
    pub subject: Subject,
    /// The open connections. Those of a service are connected to one of its servers.
    pub open: u64,
    /// What has passed since it began.
    pub passed: Passed,
}

impl Shared {
    /// Counts what has passed at each live object: entrypoints, services, and then servers. This
    /// walks through all open connections.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        let (entrypoints, servers) = (self.registry.entrypoints(), self.registry.servers());
        let services = self.registry.services();
        let mut by_id: Vec<_> = servers.iter().map(|it| (it.id(), it.past.get())).collect();
        by_id.sort_unstable_by_key(|(id, _)| *id);
        self.conns.for_each(|conn| {
            if let Some(server) = conn.server()
                && let Ok(at) = by_id.binary_search_by_key(&server.id(), |(id, _)| *id)
            {
                by_id[at].1 = by_id[at].1.and(conn.carried());
            }
        });
        let of_entrypoints = entrypoints.iter().map(|it| Tally {
            subject: Subject::Entrypoint(it.identity.clone()),
            open: it.open.len() as u64,
            passed: Passed {
                opened: it.counters.opened.value(),
                bytes: [Direction::ToServer, Direction::ToClient]
                    .map(|direction| it.counters.bytes.of(direction).value()),
            },
        });
        let of_servers = servers.iter().map(|it| {
            let found = by_id.binary_search_by_key(&it.id(), |(id, _)| *id);
            Tally {
                subject: Subject::Server(it.identity.clone()),
                open: it.open.len() as u64,
                passed: found.map_or(Passed::default(), |at| by_id[at].1),
            }
        });
        let of_servers: Vec<_> = of_servers.collect();
        // Services are sorted by name, and servers by that of their service.
        let mut rest = servers.iter().zip(&of_servers).peekable();
        let of_services = services.iter().map(|service| {
            let (mut open, mut passed) = (0, service.past.get());
            while let Some((_, own)) = rest.next_if(|(it, _)| it.service.name == service.name) {
                open += own.open;
                passed = passed.and(own.passed);
            }
            Tally {
                subject: Subject::Service(service.name.clone()),
                open,
                passed,
            }
        });
        let mut tallies: Vec<_> = of_entrypoints.chain(of_services).collect();
        tallies.extend(of_servers);
        tallies
    }
}
