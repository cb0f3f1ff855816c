//! The client side: what commands ask a running coracle over its admin endpoint.

mod audit_answer;
mod clients;
mod command;
mod connections;
mod contact;
mod get;
mod kill;
mod listing;
mod log;
mod metrics_text;
mod reload;
mod request;
mod server;
mod status;
mod table;
mod top;
mod turned_away;

pub use self::log::{LogLines, set_log_level};
pub use audit_answer::Audit;
pub use clients::Clients;
pub use connections::Connections;
pub use contact::Contact;
pub use kill::KillOrder;
pub use listing::{ListSort, Listing, PeerFilter};
pub use reload::{Reload, Reloaded};
pub use request::Failure;
pub use server::{Ordered, ServerOrder};
pub use status::Status;
pub use top::{Action, Key, Keys, Line, Look, Order, Top};
