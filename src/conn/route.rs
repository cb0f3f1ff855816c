//! What a connection needs to know to be served.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::target::{CurrentTopology, Target};
use crate::net::{Keepalive, Names, Reactor};
use crate::state::{Conns, Entrypoint, Service};

/// Where an entrypoint's connections go, and how. A connection keeps the one it began with.
#[derive(Debug)]
pub struct Route {
    /// The readiness loop.
    pub reactor: Rc<Reactor>,
    /// The set that its connections are in.
    pub conns: Rc<Conns>,
    /// The servers' names.
    pub names: Rc<Names>,
    /// Where connections come in.
    pub entrypoint: Rc<Entrypoint>,
    /// The service that they are for.
    pub service: Rc<Service>,
    /// The service's servers, in the order of the configuration.
    pub targets: Rc<[Rc<Target>]>,
    /// Which servers lead to listeners of our own.
    pub topology: Rc<CurrentTopology>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How long dialling may take for one connection, with all servers that it tries. Not shorter than `connect_timeout`.
    pub dial_timeout: Duration,
    /// The keep-alive of the connections to servers.
    pub keepalive: Option<Keepalive>,
}

/// The route of those who come in now, which a reload replaces.
#[derive(Debug)]
pub struct CurrentRoute(RefCell<Rc<Route>>);

impl CurrentRoute {
    /// `route` for all who come in from now on.
    #[must_use]
    pub fn new(route: Rc<Route>) -> Self {
        Self(RefCell::new(route))
    }

    /// The route of whoever comes in now.
    #[must_use]
    pub fn get(&self) -> Rc<Route> {
        self.0.borrow().clone()
    }

    /// From now on it is another one.
    pub fn replace(&self, route: Rc<Route>) {
        // Outside the borrow: with the old one an entrypoint may go.
        let old = self.0.replace(route);
        drop(old);
    }
}
