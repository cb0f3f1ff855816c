//! One connection from accept to close: choose a server, dial it, relay, and say how it ended.

mod access;
mod dial;
mod route;
mod serve;
mod target;

pub use access::log_access;
pub use route::{CurrentRoute, Route};
pub use serve::serve;
pub use target::{At, CurrentTopology, OwnListener, Target, Topology};
