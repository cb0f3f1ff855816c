//! Whether the set and the kernel agree: their counts at each scrape, and their connections one by
//! one in an audit.

mod audit;
mod comparison;
mod json;
mod kernel;
mod report;

pub(super) use audit::audit;
pub(super) use kernel::{Count, Kernel};
