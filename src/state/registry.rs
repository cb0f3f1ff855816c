//! The live entrypoints, services and servers: those of the configuration in force, and removed
//! ones that open connections still hold.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use super::addresses::Addresses;
use super::entrypoint::{Entrypoint, EntrypointNumbers, Local, Protocol};
use super::identity::{EntrypointId, Identities};
use super::past::Passed;
use super::server::{Server, ServerNumbers};
use super::service::{Service, ServiceNumbers};
use super::sorted::Sorted;

/// Finds live objects. The registry keeps nothing alive: the routes and the connections do.
#[derive(Debug, Default)]
pub struct Registry {
    identities: Identities,
    entrypoints: RefCell<Sorted<EntrypointId, Weak<Entrypoint>>>,
    services: RefCell<Sorted<String, Weak<Service>>>,
    /// By the names of the service and the server.
    servers: RefCell<Sorted<(String, String), Weak<Server>>>,
    /// Computed on demand, and discarded when an entrypoint changes.
    addresses: RefCell<Option<Arc<Addresses>>>,
}

impl Registry {
    /// Returns the entrypoint called `name`. If none is alive, creates one that begins at `now`
    /// with all counters at zero.
    pub fn entrypoint(&self, name: &str, protocol: Protocol, now: Instant) -> Rc<Entrypoint> {
        let living = self.entrypoints();
        let found = living.into_iter().find(|it| it.name() == name);
        found.unwrap_or_else(|| {
            let id = self.identities.next();
            let new = Rc::new(Entrypoint::new(id, name, protocol, now));
            let mut all = self.entrypoints.borrow_mut();
            all.insert(id, Rc::downgrade(&new));
            new
        })
    }

    /// Returns the service called `name`, or creates it.
    pub fn service(&self, name: &str) -> Rc<Service> {
        let mut services = self.services.borrow_mut();
        services.retain(|_, it| it.strong_count() > 0);
        let found = services.get(name).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let new = Rc::new(Service::new(name));
            services.insert(name.to_owned(), Rc::downgrade(&new));
            new
        })
    }

    /// Returns the server called `name` in `service`, or creates it.
    pub fn server(&self, service: &Rc<Service>, name: &str) -> Rc<Server> {
        let mut servers = self.servers.borrow_mut();
        let key = (service.name.to_string(), name.to_owned());
        let found = servers.get(&key).and_then(Weak::upgrade);
        found.unwrap_or_else(|| {
            let new = Rc::new(Server::new(self.identities.next(), service, name));
            servers.insert(key, Rc::downgrade(&new));
            new
        })
    }

    /// Records what an entrypoint listens on from now on.
    pub fn listens_on(&self, entrypoint: &Entrypoint, locals: Vec<Local>) {
        entrypoint.listens_on(locals);
        self.addresses.take();
    }

    /// Returns the live entrypoints, oldest first.
    #[must_use]
    pub fn entrypoints(&self) -> Vec<Rc<Entrypoint>> {
        let before = self.entrypoints.borrow().len();
        let living = living(&self.entrypoints);
        if living.len() < before {
            self.addresses.take();
        }
        living
    }

    /// Copies the numbers of all live entrypoints, oldest first.
    #[must_use]
    pub fn entrypoint_numbers(&self) -> Vec<EntrypointNumbers> {
        self.entrypoints().iter().map(|it| it.numbers()).collect()
    }

    /// Copies the numbers of all live services, sorted by name.
    #[must_use]
    pub fn service_numbers(&self) -> Vec<ServiceNumbers> {
        let numbers = |(service, open, passed): (Rc<Service>, _, _)| service.numbers(open, passed);
        self.service_sums().into_iter().map(numbers).collect()
    }

    /// Returns each live service, sorted by name, with the open connections of its servers and what
    /// has passed at them and at those that it no longer has.
    pub(super) fn service_sums(&self) -> Vec<(Rc<Service>, u64, Passed)> {
        // Both are sorted by the service's name.
        let servers = self.servers();
        let mut rest = servers.iter().peekable();
        let sums = self.services().into_iter().map(|service| {
            let (mut open, mut passed) = (0, service.past.get());
            while let Some(own) = rest.next_if(|it| it.service.name == service.name) {
                open += own.open.len() as u64;
                passed = passed.and(own.counters.passed());
            }
            (service, open, passed)
        });
        sums.collect()
    }

    /// Copies the numbers of all live servers, sorted by name.
    #[must_use]
    pub fn server_numbers(&self) -> Vec<ServerNumbers> {
        self.servers().iter().map(|it| it.numbers()).collect()
    }

    /// Returns the live services, sorted by name.
    pub(super) fn services(&self) -> Vec<Rc<Service>> {
        living(&self.services)
    }

    /// Returns the live servers, sorted by name.
    #[must_use]
    pub fn servers(&self) -> Vec<Rc<Server>> {
        living(&self.servers)
    }

    /// Frees what is left of objects that are no longer alive. Readers do that too, but there may be
    /// none.
    pub fn forget_dead(&self) {
        let _ = self.entrypoints();
        living(&self.services);
        living(&self.servers);
    }

    /// Returns the addresses on which all live entrypoints listen or have listened.
    #[must_use]
    pub fn addresses(&self) -> Arc<Addresses> {
        let entrypoints = self.entrypoints();
        let mut addresses = self.addresses.borrow_mut();
        let addresses = addresses.get_or_insert_with(|| Arc::new(Addresses::of(&entrypoints)));
        addresses.clone()
    }
}

/// Returns the live objects and removes the others.
fn living<I: Ord, T>(all: &RefCell<Sorted<I, Weak<T>>>) -> Vec<Rc<T>> {
    let mut living = Vec::with_capacity(all.borrow().len());
    all.borrow_mut().retain(|_, it| {
        let it = it.upgrade();
        living.extend(it.clone());
        it.is_some()
    });
    living
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_objects_are_found_again_and_dead_ones_start_over() {
        let registry = Registry::default();
        let now = Instant::now();
        let first = registry.entrypoint("a", Protocol::Tcp, now);
        first.counters.opened.increment();
        let again = registry.entrypoint("a", Protocol::Tcp, now);
        assert!(Rc::ptr_eq(&first, &again));
        let (id, service) = (first.id(), registry.service("s"));
        let server = registry.server(&service, "x");
        assert!(Rc::ptr_eq(&server, &registry.server(&service, "x")));
        let other = registry.service("t");
        assert_ne!(server.id(), registry.server(&other, "x").id());
        assert_eq!(
            registry.server_numbers().len(),
            1,
            "the other one is not held"
        );
        drop((first, again));
        assert!(registry.entrypoints().is_empty());
        drop(server);
        registry.forget_dead();
        assert!(registry.servers.borrow().is_empty());
        let new = registry.entrypoint("a", Protocol::Tcp, now);
        assert!(new.id() > id, "identities are never reused");
        assert_eq!(new.counters.opened.value(), 0);
    }
}
