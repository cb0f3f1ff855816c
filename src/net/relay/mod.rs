//! Passes bytes both ways between two streams until both have finished or one breaks.

mod duplex;
mod flow;
mod linger;

pub use duplex::{Relay, relay};
pub use flow::{Broken, Meter, Side};
