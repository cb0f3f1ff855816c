//! `coracle top`: what it asks a running coracle, what its keys do, and its screen as lines of text.
//! Only [`Look::ask`] and [`Order::give`] do I/O; `commands/top.rs` has the terminal.

mod columns;
mod filter;
mod keys;
mod look;
mod mode;
mod press;
mod screen;
mod short;
mod state;
mod style;
#[cfg(test)]
mod tests;

pub use keys::{Key, Keys};
pub use look::Look;
pub use mode::Order;
pub use press::Action;
pub use state::Top;
pub use style::Line;
