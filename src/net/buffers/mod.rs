//! What is held for blocked receivers, in memory and in pipes, and the limits on it.

mod memory;
mod pipes;
mod unsent;

pub use memory::{Allowance, MemoryLimits};

pub(super) use memory::Memory;
pub(super) use pipes::{LentPipe, Pipes};
pub(super) use unsent::Unsent;
