//! What a connection needs to know to be served.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::target::Target;
use crate::net::{Keepalive, Names, Reactor};
use crate::state::{Conn, Conns, ServerId, Service};

/// Where an entrypoint's connections go, and how. A connection keeps the one it began with.
#[derive(Debug)]
pub struct Route {
    /// The readiness loop.
    pub reactor: Rc<Reactor>,
    /// The set that its connections are in.
    pub conns: Rc<Conns>,
    /// The servers' names.
    pub names: Rc<Names>,
    /// The service, whose servers are at `targets`.
    pub service: Rc<Service>,
    /// Each of the service's servers, in their order. All routes to a service share them.
    pub targets: Rc<[Target]>,
    /// The servers of each entrypoint, in their order, to see where a server leads that is another entrypoint.
    pub onward: Rc<[Rc<[Target]>]>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How long dialling may take for one connection, with all servers that it tries. Not shorter than `connect_timeout`.
    pub dial_timeout: Duration,
    /// The keep-alive of the connections to servers.
    pub keepalive: Option<Keepalive>,
    /// Is called in each connection's task before it dials, so that tests can have it fail.
    pub hook: Option<Hook>,
}

impl Route {
    pub(super) fn target(&self, id: ServerId) -> &Target {
        &self.targets[id.index()]
    }
}

/// A test's way into a connection's task.
#[derive(Clone)]
pub struct Hook(pub Rc<dyn Fn(&Conn)>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
