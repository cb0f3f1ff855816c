//! Everything needed to serve a connection.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use super::target::{CurrentTopology, Pool};
use crate::net::{Keepalive, Names, Reactor};
use crate::state::{Branch, Conns, Entrypoint, Network, Outgoing, Rule};
use crate::wire::proxy_header::Version;

/// Where an entrypoint's connections go, and how.
///
/// A connection keeps the route that it started with.
#[derive(Debug)]
pub struct Route {
    /// The readiness loop.
    pub reactor: Rc<Reactor>,
    /// The set that holds the connections.
    pub conns: Rc<Conns>,
    /// The servers' names.
    pub names: Rc<Names>,
    /// The entrypoint that accepts the connections.
    pub entrypoint: Rc<Entrypoint>,
    /// Where connections go, unless a rule decides otherwise; `None` if they are closed.
    pub to: Option<Destination>,
    /// The rules that decide where connections go, if there are any.
    pub rules: Option<Box<Rules>>,
    /// Which servers are listeners of our own.
    pub topology: Rc<CurrentTopology>,
    /// The networks whose connections begin with the PROXY protocol's header, if they must.
    pub accept_proxy: Option<Rc<[Network]>>,
    /// The longest time until the bytes that decide about a connection have arrived.
    pub prologue_timeout: Duration,
    /// The keep-alive setting for connections to servers.
    pub keepalive: Option<Keepalive>,
}

/// A service that connections go to, and how.
#[derive(Debug)]
pub struct Destination {
    /// The service, and what counts the connections that are sent there.
    pub branch: Rc<Branch>,
    /// The service's servers.
    pub pool: Rc<Pool>,
    /// The longest time to spend connecting to one server.
    pub connect_timeout: Duration,
    /// The longest time to spend dialling for one connection, across all servers tried. At least
    /// `connect_timeout`.
    pub dial_timeout: Duration,
    /// The header that each connection to a server begins with, if any.
    pub send_proxy: Option<Version>,
    /// The ports of the entrypoint that stand for those of its servers, in order; `None` if each
    /// server has one port.
    pub ranges: Option<Rc<[RangeInclusive<u16>]>>,
    /// How connections to servers leave this machine, if that is not left to the kernel.
    pub outgoing: Option<Box<Outgoing>>,
}

/// The rules that decide where connections go.
#[derive(Debug)]
pub struct Rules {
    /// Their conditions.
    pub rules: Vec<Rule>,
    /// Where each of them leads.
    pub to: Vec<Destination>,
    /// After which time a client that has sent nothing no longer waits for a decision.
    pub default_after: Option<Duration>,
}

impl Route {
    /// Returns where a connection goes, if no rules decide about that.
    #[must_use]
    pub fn only(&self) -> Option<&Destination> {
        match self.rules {
            None => self.to.as_ref(),
            Some(_) => None,
        }
    }
}

/// The route for new connections.
///
/// A reload replaces it.
#[derive(Debug)]
pub struct CurrentRoute(RefCell<Rc<Route>>);

impl CurrentRoute {
    /// Creates a cell that gives `route` to new connections.
    #[must_use]
    pub fn new(route: Rc<Route>) -> Self {
        Self(RefCell::new(route))
    }

    /// Returns the route for a new connection.
    #[must_use]
    pub fn get(&self) -> Rc<Route> {
        self.0.borrow().clone()
    }

    /// Replaces the route for new connections.
    pub fn replace(&self, route: Rc<Route>) {
        // Drop the old route outside the borrow, because it may be the last owner of an entrypoint.
        let old = self.0.replace(route);
        drop(old);
    }
}
