//! One entrypoint's name and counters.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::counters::{Counter, CounterBy, Histogram, label};
use super::reason::CloseReason;

label! {
    /// The transport protocol of an entrypoint.
    Protocol {
        /// Connections over TCP, or streams over a Unix socket.
        Tcp = "TCP",
    }
}

label! {
    /// Which way bytes pass.
    Direction {
        /// From the client to the server.
        ToServer = "to_server",
        /// From the server to the client.
        ToClient = "to_client",
    }
}

label! {
    /// Why accepting a connection failed. None of these ends a listener.
    AcceptError {
        /// The client had gone before it was accepted.
        Aborted = "aborted",
        /// The process has no descriptor left (EMFILE).
        ProcessDescriptors = "process_descriptors",
        /// The system has no descriptor left (ENFILE).
        SystemDescriptors = "system_descriptors",
        /// The kernel has no memory for it (ENOMEM, ENOBUFS).
        Memory = "memory",
        /// Any other error; the log has its text.
        Other = "other",
    }
}

/// Upper bounds of the connection duration's buckets: 10 ms to 1 day, about a factor of 6 apart, so that both a web request
/// and a day-long SSH session can be told from their neighbours with few series.
const DURATION_BOUNDS: &[Duration; 9] = &[
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
    Duration::from_secs(21_600),
    Duration::from_secs(86_400),
];

/// What is counted for one entrypoint. How many connections are open is not here: that is the length of the set.
#[derive(Debug)]
pub struct Entrypoint {
    /// Its position in [`Shared::entrypoints`](super::Shared::entrypoints).
    pub index: usize,
    /// Its name in the configuration.
    pub name: String,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Connections that have entered the set.
    pub opened: Counter,
    /// Connections that have left the set.
    pub closed: CounterBy<CloseReason>,
    /// Payload bytes that were passed on.
    pub bytes: CounterBy<Direction>,
    /// How long the connections that have left the set were in it.
    pub duration: Histogram<9>,
    /// Failed attempts to accept a connection.
    pub accept_errors: CounterBy<AcceptError>,
    listening: OnceCell<Vec<Local>>,
}

/// What an entrypoint really listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// An IP address, perhaps that of all interfaces, and the real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Entrypoint {
    /// An entrypoint of which nothing has been counted yet.
    #[must_use]
    pub fn new(index: usize, name: &str, protocol: Protocol) -> Self {
        Self {
            index,
            name: name.to_owned(),
            protocol,
            opened: Counter::default(),
            closed: CounterBy::default(),
            bytes: CounterBy::default(),
            duration: Histogram::new(DURATION_BOUNDS),
            accept_errors: CounterBy::default(),
            listening: OnceCell::new(),
        }
    }

    /// Notes what it listens on, once.
    pub fn listens_on(&self, locals: Vec<Local>) {
        let _ = self.listening.set(locals);
    }

    /// What it listens on; nothing before it does.
    #[must_use]
    pub fn listening(&self) -> &[Local] {
        self.listening.get().map_or(&[], Vec::as_slice)
    }
}
