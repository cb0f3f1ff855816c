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
const DURATION_BOUNDS: &[Duration] = &[
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
    pub duration: Histogram,
    /// Failed attempts to accept a connection.
    pub accept_errors: CounterBy<AcceptError>,
    listening: OnceCell<Vec<Local>>,
}

/// What an entrypoint really listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// An IP address, perhaps that of all interfaces, and the real port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// How closely a socket fits what a listener listens on; the kernel gives a connection to the closest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The listener has just this address.
    Exact,
    /// The listener has all addresses of this family.
    AnyAddress,
}

impl Local {
    /// Whether a connection that was accepted here has `local` as its own end. An accepted socket has its listener's family: an
    /// IPv4 client of a listener for both has a mapped address, and none of a listener for IPv4.
    #[must_use]
    pub fn accepts(&self, local: &Self) -> Option<Fit> {
        let (own, local) = match (self, local) {
            (Self::Tcp(own), Self::Tcp(local)) if own.port() == local.port() => (own, local),
            (Self::Unix(own), Self::Unix(path)) => return (own == path).then_some(Fit::Exact),
            _ => return None,
        };
        if own.ip() == local.ip() {
            return Some(Fit::Exact);
        }
        let is_any = own.ip().is_unspecified() && own.is_ipv6() == local.is_ipv6();
        is_any.then_some(Fit::AnyAddress)
    }
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

    /// Whether a connection whose own end is `local` was accepted here, and how closely that fits.
    #[must_use]
    pub fn accepts(&self, local: &Local) -> Option<Fit> {
        self.listening()
            .iter()
            .filter_map(|own| own.accepts(local))
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, Local};

    #[test]
    fn a_socket_belongs_to_a_listener_of_its_own_family() {
        let local = |text: &str| Local::Tcp(text.parse().expect("an address"));
        let fit = |listener: &str, socket: &str| local(listener).accepts(&local(socket));
        assert_eq!(fit("0.0.0.0:80", "10.0.0.1:80"), Some(Fit::AnyAddress));
        assert_eq!(fit("[::]:80", "[fd00::1]:80"), Some(Fit::AnyAddress));
        assert_eq!(
            fit("[::]:80", "[::ffff:10.0.0.1]:80"),
            Some(Fit::AnyAddress)
        );
        assert_eq!(fit("10.0.0.1:80", "10.0.0.1:80"), Some(Fit::Exact));
        for (listener, socket) in [
            ("0.0.0.0:80", "[fd00::1]:80"),
            ("0.0.0.0:80", "[::ffff:10.0.0.1]:80"),
            ("[::]:80", "10.0.0.1:80"),
            ("[::]:80", "[fd00::1]:81"),
            ("10.0.0.1:80", "10.0.0.2:80"),
        ] {
            assert_eq!(fit(listener, socket), None, "{listener} {socket}");
        }
    }
}
