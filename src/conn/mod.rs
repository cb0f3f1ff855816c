//! One connection from accept to close: choose a server, dial it, relay, and report how it ended.
//!
//! [`serve()`] does all of this along a [`Route`], which the connection keeps until it closes. A
//! reload replaces a listener's [`CurrentRoute`], which affects only later connections.

mod access;
mod broken;
mod dial;
mod prologue;
mod queue;
mod report;
mod route;
mod routing;
mod serve;
mod target;

pub use access::{log_access, log_closed};
pub use report::{order, report};
pub use route::{CurrentRoute, Destination, Route, Rules};
pub use serve::serve;
pub use target::{At, CurrentTopology, OwnListener, Pool, Target, Topology};
