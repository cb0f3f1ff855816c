//! The client side: what commands ask a running coracle over its admin endpoint.

mod audit_answer;
mod connections;
mod reload;
mod request;
mod table;

pub use audit_answer::Audit;
pub use connections::Connections;
pub use reload::{Reload, Reloaded};
pub use request::Failure;
