//! Whether the set and the kernel agree: their counts at each scrape, and their connections one by
//! one in an audit.

mod comparison;
mod full_comparison;
mod kernel;
mod report;

pub(super) use full_comparison::audit;
pub(super) use kernel::{Count, Kernel};
pub(super) use report::Listed;
