//! What is known and decided, without I/O: the sets of connections, the registry, the counters, the
//! choice of a server.
//!
//! [`Conns`] is the set of all open connections, and each [`Entrypoint`] and [`Server`] has the set
//! of its own ([`Members`]). A [`Guard`] puts a connection into them and takes it out. The
//! [`Registry`] finds entrypoints and servers that live. What is published of each stands beside it
//! ([`Publish`]).
//!
//! One thread owns and changes all of it, so whoever reads it between two awaits sees one consistent moment. Nothing here
//! opens a socket or asks a clock: times come in as arguments.

mod addresses;
mod backoff;
mod config_loads;
mod conns;
mod counters;
mod entrypoint;
mod held;
mod identity;
mod lookups;
mod members;
mod metric;
mod pauses;
mod peer;
mod reason;
mod registry;
mod service;
mod snapshot;
mod throttle;
mod waiters;

use std::cell::Cell;
use std::rc::Rc;

pub use addresses::Addresses;
pub use backoff::Backoff;
pub use config_loads::ConfigLoads;
pub use conns::{Conn, Conns, Guard, Hook, Left, Phase, Starving};
pub use counters::{Counter, CounterBy, Histogram, Label};
pub use entrypoint::{
    AcceptError, Direction, Entrypoint, EntrypointCounters, EntrypointIdentity, EntrypointNumbers,
    Local, Protocol, Timeouts,
};
pub use held::{Held, HeldBytes, HeldIn, Reservation};
pub use identity::{ConnId, EntrypointId, ServerId};
pub use lookups::Lookups;
pub use members::Members;
pub use metric::{Kind, Metric, Observed, Publish, Samples};
pub use pauses::Pauses;
pub use peer::Peer;
pub use reason::{CloseReason, ConnectError};
pub use registry::Registry;
pub use service::{Server, ServerCounters, ServerIdentity, ServerNumbers, Service};
pub use snapshot::{Entries, Entry, Snapshot};
pub use throttle::Throttle;
pub use waiters::{Until, Waiters, Waiting};

/// Everything the running program knows, passed around as `Rc<Shared>`; there are no globals.
#[derive(Debug, Default)]
pub struct Shared {
    /// The set of open connections: the gauge is its length.
    pub conns: Rc<Conns>,
    /// The entrypoints, services and servers that live.
    pub registry: Registry,
    /// The configurations that have come into force.
    pub config_loads: ConfigLoads,
    /// Whether what Traefik publishes too is published under its names as well.
    pub traefik_names: Cell<bool>,
    /// What is held for blocked receivers.
    pub held: Rc<Held>,
    draining: Cell<bool>,
}

impl Shared {
    /// A state with no connections yet, and with what a loop holds for blocked receivers.
    #[must_use]
    pub fn with_held(held: Rc<Held>) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }

    /// True once the program has been asked to stop: it accepts no more, and `/readyz` says so.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Marks the start of the drain. There is no way back.
    pub fn start_draining(&self) {
        self.draining.set(true);
    }
}
