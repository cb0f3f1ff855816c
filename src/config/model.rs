//! The configuration as types that hold only valid values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Address, Listen};
use super::diagnostic::Diagnostics;

/// A valid configuration: names are unique and not empty, every reference resolves, and no two
/// listeners share an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long open connections may continue after a request to stop.
    pub drain_timeout: Duration,
    /// Whether coracle reloads the file when it changes.
    pub watch: bool,
    /// The admin endpoint.
    pub admin: Admin,
    /// The host names that the admin endpoint answers to, in addition to the machine's own.
    pub admin_hosts: Vec<String>,
    /// What is logged.
    pub log: Log,
    /// The metrics published in addition to coracle's own.
    pub metrics: Metrics,
    /// Where connections come in; at least one.
    pub entrypoints: Vec<Entrypoint>,
    /// Where connections go.
    pub services: Vec<Service>,
    /// Settings that are valid but probably unintended; `None` if there are none.
    pub warnings: Option<Diagnostics>,
}

/// The admin endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The address that serves `/metrics`, `/healthz` and `/readyz`; `None` if switched off.
    pub listen: Option<std::net::SocketAddr>,
    /// The Unix socket that accepts commands.
    pub socket: ControlSocket,
}

/// Where the Unix socket that accepts commands is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ControlSocket {
    /// At [`defaults::CONTROL_SOCKET`] if it can be created there, otherwise nowhere.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// At this path, which is absolute and short enough for a socket address.
    At(PathBuf),
}

impl ControlSocket {
    /// Returns the socket's path, even if creating it fails; `None` if switched off.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Default => Some(Path::new(defaults::CONTROL_SOCKET)),
            Self::Off => None,
            Self::At(path) => Some(path),
        }
    }
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: log::LevelFilter,
    /// Whether closed connections are logged, one line each.
    pub access: bool,
}

/// The metrics published in addition to coracle's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Whether metrics that Traefik v3 has too are also published under Traefik's names.
    pub traefik: bool,
}

/// Where connections come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrypoint {
    /// Its name: the `entrypoint` label of the metrics.
    pub name: String,
    /// The addresses that it listens on; at least one.
    pub listen: Vec<Listen>,
    /// Whether other processes of the same user may listen on its addresses too (SO_REUSEPORT).
    /// Never set for an entrypoint with a Unix socket.
    pub reuse_port: bool,
    /// Who may connect to its Unix sockets.
    pub socket: SocketAccess,
    /// The position of its service in [`Config::services`].
    pub service: usize,
    /// How long a connection may be idle in both directions; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may be idle after one side, but not the other, has finished sending;
    /// `None` for no limit.
    pub half_close_timeout: Option<Duration>,
    /// How long a connection is silent before the kernel probes its peers; `None` for no probes.
    pub keepalive: Option<Duration>,
    /// What happens to its open connections when a reload removes it.
    pub on_removed: OnRemoved,
}

/// What happens to an entrypoint's open connections when a reload removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemoved {
    /// They continue until they end by themselves.
    #[default]
    Keep,
    /// They continue for at most [`Config::drain_timeout`]; then they are reset.
    Drain,
    /// They are reset immediately.
    Close,
}

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permission bits of the socket's file; `None` for 0777 less the process's umask.
    pub mode: Option<u32>,
    /// The group of the socket's file, by name or number; `None` for the process's own.
    pub group: Option<String>,
}

/// A group of interchangeable servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name: the `service` label of the metrics.
    pub name: String,
    /// Its servers; at least one and at most [`Service::MAX_SERVERS`].
    pub servers: Vec<Address>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How long it may take until one of the servers accepts a connection. A value below
    /// `connect_timeout` counts as `connect_timeout`.
    pub dial_timeout: Duration,
}

impl Service {
    /// The maximum number of servers in a service.
    pub const MAX_SERVERS: usize = 1024;
}

/// Default values, chosen for a Raspberry Pi.
pub mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    /// The admin endpoint, which only this machine can reach.
    pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2672);
    /// The control socket, in the directory where the systemd unit may create it.
    pub const CONTROL_SOCKET: &str = "/run/coracle/control.sock";
    /// `log.level`.
    pub const LOG_LEVEL: log::LevelFilter = log::LevelFilter::Info;
    /// `drain_timeout`: one second less than `docker stop` waits before it kills.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(9);
    /// `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// `dial_timeout`: long enough to try two silent servers before the client, such as a browser,
    /// gives up.
    pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
    /// `keepalive`: four probes follow, 15 s apart, so a peer that has vanished is detected within
    /// two minutes.
    pub const KEEPALIVE: Duration = Duration::from_secs(60);
}
