//! Asynchronous I/O without policy: readiness, streams, listeners, dialling, names and the relay.
//!
//! Everything above speaks of [`Stream`], [`Listener`], [`Names`], [`dial_tcp`] and [`relay()`]; how readiness is learnt, and how bytes
//! get from one socket to the other, is known only here.

mod dial;
mod listener;
mod names;
mod reactor;
mod ready;
mod relay;
mod source;
mod stream;

pub use dial::{Dial, dial_tcp, dial_unix};
pub use listener::{Listener, TcpOptions};
pub use names::Names;
pub use reactor::{Reactor, Sleep};
pub use relay::{Broken, Meter, Side, relay};
pub use stream::{Keepalive, Stream};
