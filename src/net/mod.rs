//! Asynchronous I/O without policy: readiness, streams, listeners, dialling, names and the relay.
//!
//! Everything above speaks of [`Stream`], [`Listener`], [`Names`], [`dial_tcp`] and [`relay()`]; how readiness is learnt, and how bytes
//! get from one socket to the other, is known only here.

mod connect;
mod dial;
mod flow;
mod inherited;
mod keepalive;
mod line;
mod linger;
mod listener;
mod memory;
mod names;
mod opening;
mod origin;
mod pipes;
mod place;
mod reactor;
mod ready;
mod relay;
mod share;
mod sleep;
mod source;
mod spill;
mod stream;
mod timers;
mod unix_socket;
mod wake;

pub use dial::{Dial, Lack, dial_tcp};
pub use flow::{Broken, Meter, Side};
pub use inherited::Inherited;
pub use keepalive::Keepalive;
pub use line::{Line, Turn};
pub use listener::{Listener, TcpOptions};
pub use memory::{Allowance, MemoryLimits};
pub use names::{Names, Resolver};
pub use opening::{Opening, Read};
pub use origin::is_here;
pub use reactor::Reactor;
pub use relay::{Relay, relay};
pub use sleep::Sleep;
pub use stream::Stream;
pub use unix_socket::{FileId, UnixSocket};
