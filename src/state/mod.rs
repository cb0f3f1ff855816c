//! What is known and decided, without I/O: the set of connections, the counters, the choice of a server.
//!
//! One thread owns and changes all of it, so whoever reads it between two awaits sees one consistent moment. Nothing here
//! opens a socket or asks a clock: times come in as arguments.

mod backoff;
mod config_loads;
mod conns;
mod counters;
mod entrypoint;
mod held;
mod lookups;
mod pauses;
mod reason;
mod service;
mod snapshot;
mod throttle;
mod waiters;

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

pub use backoff::Backoff;
pub use config_loads::ConfigLoads;
pub use conns::{Below, Conn, ConnId, Conns, Guard, Left, Peer, Phase, Starving};
pub use counters::{Counter, CounterBy, Histogram, Label};
pub use entrypoint::{AcceptError, Direction, Entrypoint, Local, Protocol};
pub use held::{Held, HeldIn, Reservation};
pub use lookups::Lookups;
pub use pauses::Pauses;
pub use reason::{CloseReason, ConnectError};
pub use service::{Server, ServerId, Service};
pub use snapshot::{Catalogue, Entries, Entry, EntrypointNumbers, ServerNumbers, Snapshot};
pub use throttle::Throttle;
pub use waiters::{Waiters, Waiting};

/// Everything the running program knows, passed around as `Rc<Shared>`; there are no globals.
#[derive(Debug)]
pub struct Shared {
    /// The set of open connections: the gauge is its length.
    pub conns: Rc<Conns>,
    /// The entrypoints, in the order of the configuration.
    pub entrypoints: Vec<Rc<Entrypoint>>,
    /// The services, in the order of the configuration.
    pub services: Vec<Rc<Service>>,
    /// The configurations that have come into force.
    pub config_loads: ConfigLoads,
    /// Whether what Traefik publishes too is published under its names as well.
    pub traefik_names: bool,
    /// What is held for blocked receivers.
    pub held: Rc<Held>,
    draining: Cell<bool>,
    catalogue: OnceCell<Arc<Catalogue>>,
}

impl Shared {
    /// A state with no connections yet.
    #[must_use]
    pub fn new(entrypoints: Vec<Rc<Entrypoint>>, services: Vec<Rc<Service>>) -> Self {
        Self {
            conns: Rc::default(),
            entrypoints,
            services,
            config_loads: ConfigLoads::default(),
            traefik_names: false,
            held: Rc::default(),
            draining: Cell::new(false),
            catalogue: OnceCell::new(),
        }
    }

    /// The same with Traefik's names as well, or without them.
    #[must_use]
    pub fn with_traefik_names(self, traefik_names: bool) -> Self {
        Self {
            traefik_names,
            ..self
        }
    }

    /// The same with what a loop holds for blocked receivers.
    #[must_use]
    pub fn with_held(self, held: Rc<Held>) -> Self {
        Self { held, ..self }
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
