//! What the commands ask of a running coracle over its admin endpoint.

mod audit;
mod reload;
mod request;

pub use audit::Audit;
pub use reload::{Reload, Reloaded};
pub use request::Failure;
