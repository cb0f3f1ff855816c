//! The program's state and decisions, without I/O: the sets of connections, the registry, the
//! counters and the choice of a server.
//!
//! [`Conns`] is the set of all open connections, and each [`Entrypoint`] and [`Server`] has its own
//! set ([`Members`]). A [`Guard`] adds a connection to these sets and removes it. The [`Registry`]
//! finds live entrypoints and servers. The metrics of each type are declared beside it
//! ([`Publish`]).
//!
//! One thread owns and changes all of this, so code that reads it between two awaits sees one
//! consistent moment. Nothing here opens a socket or reads a clock: times are arguments.

mod access_list;
mod account_numbers;
mod accounts;
mod addresses;
mod backoff;
mod balance;
mod bandwidth;
mod branch;
mod bucket;
mod byte_rate;
mod ceiling;
mod choice;
mod client;
mod config_loads;
mod conns;
mod counters;
mod direction;
mod entrypoint;
mod filter;
mod gate;
mod health;
mod held;
mod history;
mod identity;
mod log_lines;
mod lookups;
mod loop_times;
mod members;
mod metric;
mod network;
mod outgoing;
mod past;
mod pauses;
mod peer;
mod quota;
mod rate;
mod reason;
mod record;
mod recorded;
mod registry;
mod routing;
mod saved;
mod schedule;
mod server;
mod service;
mod shaping;
mod slots;
mod snapshot;
mod sorted;
mod tally;
mod throttle;
mod waiters;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

pub use access_list::{AccessList, AccessRule, Idle, Verdict};
pub use account_numbers::{AccountNumbers, AccountSize, Checked, ClientNumbers};
pub use accounts::{AccountRules, Accounts, Slot as AccountSlot};
pub use addresses::Addresses;
pub use backoff::Backoff;
pub use balance::Balance;
pub use branch::{Branch, DEFAULT_ROUTE, RouteNumbers};
pub use bucket::Bucket;
pub use byte_rate::{Bandwidth, BandwidthRules, ByteRate, Limit};
pub use ceiling::{Ceiling, CeilingNumbers, Pressure};
pub use choice::Choice;
pub use client::{Client, Prefixes};
pub use config_loads::ConfigLoads;
pub use conns::{Conn, Conns, Guard, Hook, Left, Phase, Starving};
pub use counters::{Counter, CounterBy, Histogram, Label};
pub use direction::Direction;
pub use entrypoint::{
    AcceptError, AtRefuse, ConnectionLimit, Entrypoint, EntrypointCounters, EntrypointIdentity,
    EntrypointNumbers, Local, Protocol, Timeouts,
};
pub use filter::{Filter, Which};
pub use gate::GateRules;
pub use health::{Change, HealthRules};
pub use held::{Held, HeldBytes, HeldIn, Reservation};
pub use history::{History, Track};
pub use identity::{ConnId, EntrypointId, ServerId};
pub use log_lines::{KeptLines, LogLine, LogLines};
pub use lookups::Lookups;
pub use loop_times::{LoopNumbers, LoopTimes};
pub use members::Members;
pub use metric::{Kind, Metric, Observed, Publish, Samples};
pub use network::Network;
pub use outgoing::{Bind, Outgoing};
pub use past::Passed;
pub use pauses::Pauses;
pub use peer::{Peer, Proxied};
pub use quota::{OverQuota, Period, Quota};
pub use rate::Rate;
pub use reason::{CloseReason, ConnectError, RefuseReason};
pub use record::LastCheck;
pub use recorded::{Recorded, Sample};
pub use registry::Registry;
pub use routing::{NamePattern, Rule, decide, most_bytes};
pub use saved::{Damage, Saved};
pub use schedule::Schedule;
pub use server::{
    AdminState, Place, Server, ServerCounters, ServerIdentity, ServerNumbers, Share, StateChange,
};
pub use service::{Service, ServiceCounters, ServiceNumbers, ServiceRules};
pub use slots::{Slot, Slots};
pub use snapshot::{ConnectionTotals, Entries, Entry, Snapshot};
pub use sorted::Sorted;
pub use tally::{Subject, Tally};
pub use throttle::Throttle;
pub use waiters::{Until, Waiters, Waiting};

/// Everything the running program knows, passed around as `Rc<Shared>`; there are no globals.
#[derive(Debug, Default)]
pub struct Shared {
    /// The set of open connections. Its length is the gauge.
    pub conns: Rc<Conns>,
    /// The live entrypoints, services and servers.
    pub registry: Registry,
    /// The configurations that have come into force.
    pub config_loads: ConfigLoads,
    /// Whether metrics that Traefik also has are published under Traefik's names, too.
    pub traefik_names: Cell<bool>,
    /// The bytes held for blocked receivers.
    pub held: Rc<Held>,
    /// How long iterations of the event loop take.
    pub loop_times: Rc<LoopTimes>,
    /// How far the program is above its memory ceiling.
    pub ceiling: Ceiling,
    /// The last hour, if it is recorded.
    pub history: RefCell<History>,
    draining: Cell<bool>,
}

impl Shared {
    /// Creates a state without connections that shares these with an event loop.
    #[must_use]
    pub fn of_loop(held: Rc<Held>, loop_times: Rc<LoopTimes>) -> Self {
        Self {
            held,
            loop_times,
            ..Self::default()
        }
    }

    /// Returns `true` once the program was asked to stop: it accepts no more connections, and
    /// `/readyz` reports that.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Adds a sample to the history if one is due. `now` is the time since the machine was booted.
    pub fn sample(&self, now: Duration) {
        if self.history.borrow().is_due(now) {
            let tallies = self.tallies();
            self.history.borrow_mut().take(now, tallies);
        }
    }

    /// Marks the start of the drain, which cannot be undone.
    pub fn start_draining(&self) {
        self.draining.set(true);
    }
}
