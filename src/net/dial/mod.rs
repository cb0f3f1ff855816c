//! From a server's name to a stream: its addresses, the attempts to reach them, and the line of
//! connections that wait for room.

mod happy_eyeballs;
mod line;
mod names;
mod origin;

pub use happy_eyeballs::{Dial, Lack, dial_tcp};
pub use line::{Line, Turn};
pub use names::{Name, Names, Resolver};
pub use origin::is_here;
