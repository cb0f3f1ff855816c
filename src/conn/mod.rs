//! One connection from accept to close: choose a server, dial it, relay, and say how it ended.
//!
//! [`serve()`] does all of it by a [`Route`], which the connection keeps to its end. A reload
//! replaces the [`CurrentRoute`] of a listener, for the connections that come after it.

mod access;
mod dial;
mod route;
mod serve;
mod target;

pub use access::log_access;
pub use route::{CurrentRoute, Route};
pub use serve::serve;
pub use target::{At, CurrentTopology, OwnListener, Target, Topology};
