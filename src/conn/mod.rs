//! One connection from accept to close: choose a server, dial it, relay, and say how it ended.

mod dial;
mod route;
mod serve;

pub use route::{Hook, Route};
pub use serve::serve;
