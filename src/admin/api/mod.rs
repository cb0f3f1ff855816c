//! The API under `/api/v1/`: what a request asks for, and the answer in JSON.

mod accounts;
mod connections;
mod events;
mod feed;
mod history;
mod logs;
mod query;
mod status;

pub(super) use accounts::write as write_accounts;
pub(super) use connections::write as write_connections;
pub(super) use feed::{Feed, Reader};
pub(super) use history::write as write_history;
pub(super) use logs::{LogQuery, level, write as write_logs};
pub(super) use query::{Invalid, List, Query, no_parameters};
pub(super) use status::{Part, write as write_status};
