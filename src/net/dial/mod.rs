//! From a server's name to a stream: its addresses, the attempts to reach them, and the line of
//! connections that wait for room.

mod dns;
mod happy_eyeballs;
mod line;
mod name;
mod names;
mod offers;
mod origin;
mod resolv_conf;
mod srv;

pub use happy_eyeballs::{Dial, Lack, dial_tcp};
pub use line::{Line, Turn};
pub use name::Name;
pub use names::{Names, Resolver};
pub use offers::Offer;
pub use origin::is_here;
