//! What a connection needs to know to be served.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Address;
use crate::net::{Keepalive, Names, Reactor};
use crate::state::{Conn, Service};

/// Where an entrypoint's connections go, and how. A connection keeps the one it began with.
#[derive(Debug)]
pub struct Route {
    /// The readiness loop.
    pub reactor: Rc<Reactor>,
    /// The servers' names.
    pub names: Rc<Names>,
    /// The service, whose servers are at `addresses`.
    pub service: Rc<Service>,
    /// The address of each of the service's servers, in their order.
    pub addresses: Vec<Address>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// The keep-alive of the connections to servers.
    pub keepalive: Option<Keepalive>,
    /// Is called in each connection's task before it dials, so that tests can have it fail.
    pub hook: Option<Hook>,
}

/// A test's way into a connection's task.
#[derive(Clone)]
pub struct Hook(pub Rc<dyn Fn(&Conn)>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
