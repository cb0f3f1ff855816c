//! The readiness loop: which descriptors are ready, which timers are due, and which tasks to wake.

mod core;
mod directories;
mod ready;
mod registration;
mod sleep;
mod source;
mod timers;
mod wake;

pub use core::Reactor;
pub use directories::Directories;
pub use sleep::Sleep;

pub(super) use core::SCRATCH_BYTES;
pub(super) use ready::Ready;
pub(super) use source::Source;
