//! Asynchronous I/O without policy: readiness, streams, listeners, dialling, names and the relay.
//!
//! Everything above speaks of [`Stream`], [`Listener`], [`Names`], [`dial_tcp`] and [`relay()`]; how readiness is learnt, and how bytes
//! get from one socket to the other, is known only here.
//!
//! It has floors, and imports point down there too: `relay` and `dial` stand on `socket`, that on `reactor`, that on `buffers`.

mod buffers;
mod dial;
mod reactor;
mod relay;
mod socket;

pub use buffers::{Allowance, MemoryLimits};
pub use dial::{Dial, Lack, Line, Name, Names, Resolver, Turn, dial_tcp, is_here};
pub use reactor::{Directories, Reactor, Sleep};
pub use relay::{Broken, Meter, Relay, Side, relay};
pub use socket::{
    EarlyData, FileId, Inherited, Keepalive, Listener, Read, Stream, TcpOptions, UnixPath,
    UnixSocket,
};
