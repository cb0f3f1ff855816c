//! Checks one server once: connects, asks, and judges the answer.
//!
//! Whether and when to check, and what follows from it, is decided above.

mod answer;
mod check;
mod failure;
mod run;

pub use check::{Check, Expect, Expression};
pub use failure::Failure;
pub use run::{Leaving, Limit, Probed, To, probe};
