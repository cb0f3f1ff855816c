//! What is known and decided, without I/O: the set of connections, the counters, the choice of a server.
//!
//! One thread owns and changes all of it, so whoever reads it between two awaits sees one consistent moment. Nothing here
//! opens a socket or asks a clock: times come in as arguments.

pub mod agreement;
mod conns;
mod counters;
mod entrypoint;
mod reason;
mod service;
mod throttle;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

pub use conns::{Below, Conn, ConnId, Conns, Guard, Peer, Phase};
pub use counters::{Counter, CounterBy, Histogram, Label};
pub use entrypoint::{AcceptError, Direction, Entrypoint, Local, Protocol};
pub use reason::{CloseReason, ConnectError};
pub use service::{Server, ServerId, Service};
pub use throttle::Throttle;

/// Everything the running program knows, passed around as `Rc<Shared>`; there are no globals.
#[derive(Debug)]
pub struct Shared {
    /// The set of open connections: the gauge is its length.
    pub conns: Rc<Conns>,
    /// The entrypoints, in the order of the configuration.
    pub entrypoints: Vec<Rc<Entrypoint>>,
    /// The services, in the order of the configuration.
    pub services: Vec<Rc<Service>>,
    /// When the program started.
    pub started: Instant,
    draining: Cell<bool>,
}

impl Shared {
    /// A state with no connections yet.
    #[must_use]
    pub fn new(
        entrypoints: Vec<Rc<Entrypoint>>,
        services: Vec<Rc<Service>>,
        started: Instant,
    ) -> Self {
        Self {
            conns: Rc::default(),
            entrypoints,
            services,
            started,
            draining: Cell::new(false),
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
