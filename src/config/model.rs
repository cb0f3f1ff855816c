//! A configuration that is valid by its type.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Address, Listen};
use super::diagnostic::Diagnostics;

/// A valid configuration: names are unique and not empty, every reference leads somewhere, no address is listened on twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long open connections may go on after the request to stop.
    pub drain_timeout: Duration,
    /// Whether a change of the file takes effect without being asked for.
    pub watch: bool,
    /// The admin endpoint.
    pub admin: Admin,
    /// The names that the admin endpoint answers to beside the machine's own.
    pub admin_hosts: Vec<String>,
    /// What is logged.
    pub log: Log,
    /// What is published beside the metrics of its own.
    pub metrics: Metrics,
    /// Where connections come in, at least one.
    pub entrypoints: Vec<Entrypoint>,
    /// Where connections go.
    pub services: Vec<Service>,
    /// What is allowed, but probably not meant; `None` if there is nothing of the kind.
    pub warnings: Option<Diagnostics>,
}

/// The admin endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The address that serves `/metrics`, `/healthz` and `/readyz`; `None` when it is switched off.
    pub listen: Option<std::net::SocketAddr>,
    /// The Unix socket that takes commands.
    pub socket: ControlSocket,
}

/// Where the Unix socket is that takes commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ControlSocket {
    /// At [`defaults::CONTROL_SOCKET`] if it can be made there, else nowhere.
    #[default]
    Default,
    /// Nowhere.
    Off,
    /// At this path, which is absolute and fits into an address.
    At(PathBuf),
}

impl ControlSocket {
    /// The path that it has or would have; `None` when it is switched off.
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
    /// The least important level that is written.
    pub level: log::LevelFilter,
    /// Whether each closed connection gets a line.
    pub access: bool,
}

/// What is published beside the metrics of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Whether what Traefik v3 publishes too is there under Traefik's names as well.
    pub traefik: bool,
}

/// Where connections come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrypoint {
    /// Its name: the `entrypoint` label of the metrics.
    pub name: String,
    /// What it listens on, at least one.
    pub listen: Vec<Listen>,
    /// Whether another process of the same user may listen on its addresses too (SO_REUSEPORT). Never with a Unix socket.
    pub reuse_port: bool,
    /// Who may connect to its Unix sockets.
    pub socket: SocketAccess,
    /// The position of its service in [`Config::services`].
    pub service: usize,
    /// How long nothing may pass in either direction; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long nothing may pass after one side has finished sending and the other has not; `None`: for ever.
    pub half_close_timeout: Option<Duration>,
    /// How long a connection is silent before the kernel probes whether its peers still exist; `None`: never.
    pub keepalive: Option<Duration>,
    /// What becomes of its open connections when a reload removes it.
    pub on_removed: OnRemoved,
}

/// What becomes of an entrypoint's open connections when a reload removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRemoved {
    /// They go on until they end by themselves.
    #[default]
    Keep,
    /// They go on for [`Config::drain_timeout`] at most; then they are reset.
    Drain,
    /// They are reset at once.
    Close,
}

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permission bits of its file; `None`: what the process's umask leaves of 0777.
    pub mode: Option<u32>,
    /// The name or number of the group that its file belongs to; `None`: the process's own.
    pub group: Option<String>,
}

/// A group of servers that offer the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name: the `service` label of the metrics.
    pub name: String,
    /// Its servers, at least one and at most [`Service::MAX_SERVERS`].
    pub servers: Vec<Address>,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How long it may take until one of the servers has taken a connection. A shorter one than `connect_timeout` counts as that.
    pub dial_timeout: Duration,
}

impl Service {
    /// The most servers that a service may have.
    pub const MAX_SERVERS: usize = 1024;
}

/// Defaults, right on a Raspberry Pi.
pub mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;

    /// The admin endpoint: this machine only.
    pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2672);
    /// The control socket, where the systemd unit may make one.
    pub const CONTROL_SOCKET: &str = "/run/coracle/control.sock";
    /// `level` of the log.
    pub const LOG_LEVEL: log::LevelFilter = log::LevelFilter::Info;
    /// `drain_timeout`: a second less than `docker stop` waits before it kills.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(9);
    /// `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// `dial_timeout`: two servers may be silent before the client has given up, as browsers do after a while.
    pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
    /// `keepalive`: with the four probes 15 s apart that follow, a vanished peer is found within two minutes.
    pub const KEEPALIVE: Duration = Duration::from_secs(60);
}
