//! The published metrics, and their formats.

mod metric_family;
mod negotiate;
mod openmetrics;
mod output;
mod published;
mod traefik;

pub(super) use negotiate::Format;
pub(super) use output::Output;
pub(super) use published::write;
