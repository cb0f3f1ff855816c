//! Services: their rules, their counters, and the queue of connections that wait for a server.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::balance::Balance;
use super::byte_rate::Bandwidth;
use super::counters::{Counter, Histogram};
use super::health::HealthRules;
use super::metric::{Metric, Publish};
use super::outgoing::Outgoing;
use super::past::Passed;
use super::waiters::{Waiters, Waiting};

/// Upper bounds of the buckets of the time in the queue: from what nobody notices to the default
/// timeout and a multiple of it.
const QUEUE_BOUNDS: &[Duration; 8] = &[
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(120),
];

/// How a service treats its servers and connections, by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRules {
    /// How a server is chosen for a connection.
    pub balance: Balance,
    /// What takes a server down and brings it up.
    pub health: HealthRules,
    /// How many more attempts follow a failed one; `None` for one at each other server.
    pub retries: Option<u32>,
    /// Whether connections are refused while every server is down. If not, servers are tried
    /// although they are down.
    pub refuses_when_down: bool,
    /// Whether a server's open connections are closed when it goes down.
    pub closes_on_down: bool,
    /// How many connections may wait for a server with room.
    pub queue: usize,
    /// How long a connection may wait for a server with room.
    pub queue_timeout: Duration,
    /// The time over which a returning server's share grows.
    pub slow_start: Duration,
    /// How fast all its connections together may be.
    pub bandwidth: Bandwidth,
}

impl Default for ServiceRules {
    /// Rules under which servers take turns and never go down.
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            health: HealthRules {
                max_fails: 0,
                fail_window: Duration::from_secs(10),
                rise: 1,
                fall: 1,
            },
            retries: None,
            refuses_when_down: false,
            closes_on_down: false,
            queue: 0,
            queue_timeout: Duration::ZERO,
            slow_start: Duration::ZERO,
            bandwidth: Bandwidth::default(),
        }
    }
}

/// A group of interchangeable servers. Its routes hold the list of servers.
#[derive(Debug)]
pub struct Service {
    /// The service's name in the configuration.
    pub name: Arc<str>,
    /// The counters.
    pub counters: ServiceCounters,
    rules: Cell<ServiceRules>,
    /// How connections to its servers leave, in words; `None` if that is left to the kernel.
    outgoing: RefCell<Option<Arc<str>>>,
    /// The connections that wait for a server with room.
    queue: Waiters,
    /// What has passed at servers that it no longer has.
    pub(super) past: Cell<Passed>,
}

/// The counters of one service.
#[derive(Clone, Debug)]
pub struct ServiceCounters {
    /// Attempts to connect that followed a failed one of the same connection.
    pub retries: Counter,
    /// How long each connection that was queued waited.
    pub queue_duration: Histogram<8>,
}

impl Service {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            counters: ServiceCounters {
                retries: Counter::default(),
                queue_duration: Histogram::new(QUEUE_BOUNDS),
            },
            rules: Cell::default(),
            outgoing: RefCell::default(),
            queue: Waiters::default(),
            past: Cell::default(),
        }
    }

    /// Returns the rules in force.
    #[must_use]
    pub fn rules(&self) -> ServiceRules {
        self.rules.get()
    }

    /// Sets the rules of a configuration that comes into force.
    pub fn set_rules(&self, rules: ServiceRules) {
        if self.rules.replace(rules) != rules {
            self.offer();
        }
    }

    /// Sets how connections to its servers leave, to be shown.
    pub fn set_outgoing(&self, outgoing: &Outgoing) {
        let words = (!outgoing.is_default()).then(|| outgoing.to_string().into());
        self.outgoing.replace(words);
    }

    /// Returns how many connections wait for a server with room.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Creates a handle for a connection that is about to wait for a server with room.
    #[must_use]
    pub fn queue(&self) -> Waiting<'_> {
        self.queue.waiting()
    }

    /// Wakes the connection that has waited the longest, because there may be room or no server left
    /// to wait for. It wakes the next one if it has no use for the room or leaves some.
    pub fn offer(&self) {
        if !self.queue.is_empty() {
            self.queue.wake_one();
        }
    }

    /// Wakes the connection that is the first in the queue now, because the one that was has left.
    pub fn tell_first(&self) {
        self.queue.wake_first();
    }

    /// Returns a copy of the service's numbers. `open` and `passed` are those of its servers.
    pub(super) fn numbers(&self, open: u64, passed: Passed) -> ServiceNumbers {
        ServiceNumbers {
            name: self.name.clone(),
            open,
            passed,
            queued: self.queue.len() as u64,
            balance: self.rules.get().balance,
            outgoing: self.outgoing.borrow().clone(),
            counters: self.counters.clone(),
        }
    }
}

/// The numbers of one service at one moment.
#[derive(Debug)]
pub struct ServiceNumbers {
    /// The service's name.
    pub name: Arc<str>,
    /// The open connections that are connected to one of its servers.
    pub open: u64,
    /// What has passed at its servers, those that it no longer has included.
    pub passed: Passed,
    /// The number of connections that wait for a server with room.
    pub queued: u64,
    /// How a server is chosen for a connection.
    pub balance: Balance,
    /// How connections to its servers leave, in words; `None` if that is left to the kernel.
    pub outgoing: Option<Arc<str>>,
    /// The counters.
    pub counters: ServiceCounters,
}

impl Publish for ServiceNumbers {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_queue_length",
            "Connections that wait for a server with room.",
            |it, out| out.value(it.queued),
        ),
        Metric::histogram(
            "coracle_queue_duration_seconds",
            "How long each connection that was queued waited for a server with room, in seconds.",
            |it, out| out.observed(&it.counters.queue_duration),
        ),
        Metric::counter(
            "coracle_retries_total",
            "Attempts to connect to a server that followed a failed one of the same connection.",
            |it, out| out.value(it.counters.retries.value()),
        ),
    ];

    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str)) {
        add("service", &self.name);
    }
}
