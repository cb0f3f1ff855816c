//! Asynchronous I/O without policy: readiness, streams, listeners, dialling, names and the relay.
//!
//! Code above this module uses [`Stream`], [`Listener`], [`Names`], [`dial_tcp`] and [`relay()`].
//! Only this module knows how readiness is detected and how bytes get from one socket to the other.
//!
//! Inside, imports also point down only: `probe` uses `dial`; `relay` and `dial` use `socket`, which
//! uses `reactor`, which uses `buffers`.

mod buffers;
mod dial;
mod probe;
mod reactor;
mod relay;
mod socket;

pub use buffers::{Allowance, MemoryLimits};
pub use dial::{Dial, Lack, Line, Name, Names, Offer, Resolver, Turn, dial_tcp, is_here};
pub use probe::{Check, Expect, Expression, Failure, Leaving, Limit, Probed, To, probe};
pub use reactor::{Directories, Reactor, Sleep};
pub use relay::{Broken, Meter, Relay, Side, relay};
pub use socket::{
    EarlyData, FileId, Inherited, Keepalive, Listener, Read, Refused, Stream, TcpOptions, UnixPath,
    UnixSocket, try_outgoing,
};
