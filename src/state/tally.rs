//! What has passed at each entrypoint, service and server, up to one moment.

use std::ptr;
use std::sync::Arc;

use super::Shared;
use super::entrypoint::EntrypointIdentity;
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
    /// Counts what has passed at each live object: entrypoints, services, and then servers.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        let entrypoints = self.registry.entrypoints();
        let services = self.registry.service_sums();
        let servers = self.registry.servers();
        let mut tallies = Vec::with_capacity(entrypoints.len() + services.len() + servers.len());
        tallies.extend(entrypoints.iter().map(|it| Tally {
            subject: Subject::Entrypoint(it.identity.clone()),
            open: it.open.len() as u64,
            passed: Passed {
                opened: it.counters.opened.value(),
                bytes: it.counters.bytes.both(),
            },
        }));
        tallies.extend(services.into_iter().map(|(service, open, passed)| Tally {
            subject: Subject::Service(service.name.clone()),
            open,
            passed,
        }));
        tallies.extend(servers.iter().map(|it| Tally {
            subject: Subject::Server(it.identity.clone()),
            open: it.open.len() as u64,
            passed: it.counters.passed(),
        }));
        tallies
    }
}
