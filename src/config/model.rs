//! The configuration as types that hold only valid values.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::address::{Address, Listen};
use super::diagnostic::Diagnostics;
use crate::state::{AccessList, AtRefuse, Bandwidth, Network, Outgoing, Rate, Rule};

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
    /// How much the whole program may take.
    pub limits: Limits,
    /// Whether and how the use of each client is counted.
    pub accounting: Option<Accounting>,
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
    /// Whether that address may be one that other machines can reach.
    pub open: bool,
    /// The file with the token that clients over TCP need to give orders; `None` if they give none.
    /// An absolute path.
    pub token_file: Option<PathBuf>,
    /// The Unix socket that accepts commands.
    pub socket: ControlSocket,
}

impl Admin {
    /// Returns whether other machines may be able to reach the address.
    #[must_use]
    pub fn is_beyond_loopback(&self) -> bool {
        self.listen
            .is_some_and(|address| !address.ip().to_canonical().is_loopback())
    }
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

/// How much the whole program may take. `None` leaves it to the limits of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of open connections.
    pub max_connections: Option<NonZeroU32>,
    /// The memory ceiling in bytes.
    pub memory: Option<u64>,
}

/// How the use of each client is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounting {
    /// How many clients are known at most.
    pub clients: u32,
    /// How many bits of an IPv4 address tell one client from another.
    pub ipv4_prefix: u8,
    /// The same for IPv6.
    pub ipv6_prefix: u8,
    /// How much each client may use.
    pub quota: Option<Quota>,
    /// What happens to a client that has used its quota.
    pub at_quota: AtQuota,
    /// How many bytes per second a client gets that is slowed; always set with
    /// [`AtQuota::Slow`].
    pub quota_rate: Option<u64>,
    /// Where it is saved; an absolute path.
    pub file: Option<PathBuf>,
    /// How often it is saved.
    pub save_interval: Duration,
}

impl Accounting {
    /// The most clients.
    pub const MAX_CLIENTS: u32 = 65_536;
}

impl Default for Accounting {
    fn default() -> Self {
        Self {
            clients: defaults::CLIENTS,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            quota: None,
            at_quota: AtQuota::default(),
            quota_rate: None,
            file: None,
            save_interval: defaults::SAVE_INTERVAL,
        }
    }
}

/// How much a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The bytes of both directions together.
    pub bytes: u64,
    /// In which time.
    pub period: QuotaPeriod,
}

/// The time in which a quota may be used; each begins at midnight UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaPeriod {
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month of the calendar.
    Month,
}

/// What happens to a client that has used its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtQuota {
    /// It is logged.
    #[default]
    Log,
    /// Its connections together get [`Accounting::quota_rate`].
    Slow,
    /// Its connections are reset, and new ones as well.
    Refuse,
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
    /// How its sockets listen.
    pub listening: Listening,
    /// Who may connect to its Unix sockets.
    pub socket: SocketAccess,
    /// The position in [`Config::services`] of the service for connections that no rule fits;
    /// `None` if these are closed, and then there are rules.
    pub service: Option<usize>,
    /// The rules that decide where connections go.
    pub routes: Vec<Route>,
    /// After which time a client that has sent nothing no longer waits for a decision; `None` for
    /// never. Shorter than `prologue_timeout`.
    pub default_after: Option<Duration>,
    /// How long a connection may be idle in both directions; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may be idle after one side, but not the other, has finished sending;
    /// `None` for no limit.
    pub half_close_timeout: Option<Duration>,
    /// How long a connection is silent before the kernel probes its peers; `None` for no probes.
    pub keepalive: Option<Duration>,
    /// What happens to its open connections when a reload removes it.
    pub on_removed: OnRemoved,
    /// The maximum number of its open connections; `None` for no limit of its own.
    pub max_connections: Option<NonZeroU32>,
    /// What happens to new connections once it has `max_connections`.
    pub at_limit: AtLimit,
    /// Who may connect over TCP; `None` for everybody.
    pub access: Option<Arc<Access>>,
    /// What each client may have.
    pub per_client: ClientLimits,
    /// How fast each connection may be.
    pub bandwidth_per_connection: Bandwidth,
    /// How often clients may connect, all together; `None` for no limit.
    pub rate: Option<Rate>,
    /// How it refuses connections.
    pub at_refuse: AtRefuse,
    /// Whether connections begin with the header of the PROXY protocol.
    pub accept_proxy: bool,
    /// The networks of the proxies whose header is believed. Not empty if `accept_proxy` is set and
    /// it listens on a TCP address.
    pub trusted: Vec<Network>,
    /// How long it may take until the bytes that decide about a connection have arrived.
    pub prologue_timeout: Duration,
}

impl Entrypoint {
    /// Iterates over the positions of its services, those of its rules last. One may come twice.
    pub fn services(&self) -> impl Iterator<Item = usize> {
        let ruled = self.routes.iter().map(|route| route.service);
        self.service.into_iter().chain(ruled)
    }
}

/// A rule that decides where connections go.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name, which no other rule of the entrypoint has.
    pub name: Option<String>,
    /// Its conditions; at least one.
    pub rule: Rule,
    /// The position of its service in [`Config::services`].
    pub service: usize,
}

impl Route {
    /// Returns the label of the rule at this position: its name, or else its number.
    #[must_use]
    pub fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| (index + 1).to_string())
    }
}

/// How the sockets of an entrypoint listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The network interface that clients must come in by (SO_BINDTODEVICE); `None` for any. Only
    /// for TCP.
    pub interface: Option<String>,
    /// How many clients may wait to be accepted; at least 1 and at most
    /// [`Listening::MAX_BACKLOG`].
    pub backlog: u32,
    /// Whether a client may send its first bytes with its first packet (TCP Fast Open). Only for
    /// TCP.
    pub fast_open: bool,
}

impl Listening {
    /// The longest backlog: older kernels store it in 16 bits.
    pub const MAX_BACKLOG: u32 = 65_535;
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            interface: None,
            backlog: defaults::BACKLOG,
            fast_open: false,
        }
    }
}

/// What each client of an entrypoint may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientLimits {
    /// The maximum number of its open connections; `None` for no limit.
    pub max_connections: Option<NonZeroU32>,
    /// How often it may connect; `None` for no limit.
    pub rate: Option<Rate>,
    /// How fast all its connections together may be.
    pub bandwidth: Bandwidth,
    /// How many leading bits of an IPv6 address make a client; at least 1 and at most 128.
    pub ipv6_prefix: u8,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_connections: None,
            rate: None,
            bandwidth: Bandwidth::default(),
            ipv6_prefix: defaults::CLIENT_IPV6_PREFIX,
        }
    }
}

/// Who may connect to an entrypoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// The networks that the configuration allows, if it lists any.
    pub allow: Option<Vec<Network>>,
    /// The networks that the configuration denies, if it lists any.
    pub deny: Option<Vec<Network>>,
    /// The file with more networks to allow.
    pub allow_file: Option<PathBuf>,
    /// The file with more networks to deny.
    pub deny_file: Option<PathBuf>,
    /// The verdict on each address, after all of these.
    pub list: Arc<AccessList>,
}

impl Access {
    /// Iterates over the files that the list is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.allow_file.iter().chain(&self.deny_file);
        files.map(PathBuf::as_path)
    }
}

/// What happens to new connections of an entrypoint at its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtLimit {
    /// They wait in the kernel's backlog.
    #[default]
    Wait,
    /// They are accepted and reset.
    Refuse,
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
    /// Its servers, with unique labels; at least one and at most [`Service::MAX_SERVERS`].
    pub servers: Vec<Server>,
    /// How a server is chosen for a connection.
    pub balance: Balance,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How long it may take until one of the servers accepts a connection. A value below
    /// `connect_timeout` counts as `connect_timeout`.
    pub dial_timeout: Duration,
    /// How many more attempts follow a failed one; `None` for one at each other server.
    pub retries: Option<u32>,
    /// How many failed attempts within `fail_window` take a server out; 0 for never.
    pub max_fails: u32,
    /// The time within which `max_fails` counts.
    pub fail_window: Duration,
    /// What happens to connections while every server is down.
    pub when_down: WhenDown,
    /// What happens to a server's open connections when it goes down.
    pub on_down: OnDown,
    /// How many connections may wait for a server with room; 0 for none.
    pub queue: u32,
    /// How long a connection may wait for a server with room.
    pub queue_timeout: Duration,
    /// How servers are checked; `None` if they are not.
    pub health: Option<Health>,
    /// The time over which a returning server's share grows to its full size; zero for at once.
    pub slow_start: Duration,
    /// What a server's name stands for.
    pub resolve: Resolve,
    /// How long an answer for a server's name is used before it is looked up again.
    pub resolve_interval: Duration,
    /// The header that each connection to a server begins with; `None` for none.
    pub send_proxy: Option<SendProxy>,
    /// How fast all connections to it together may be.
    pub bandwidth: Bandwidth,
    /// How connections to its servers leave this machine.
    pub outgoing: Outgoing,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Its address.
    pub address: Address,
    /// The name that stands for the address in metrics, logs and commands.
    pub name: Option<String>,
    /// Its share of new connections in proportion to that of others, at most
    /// [`Server::MAX_WEIGHT`]; 0 for none.
    pub weight: u16,
    /// Whether it is used only while no other server is up.
    pub backup: bool,
    /// The maximum number of its open connections; `None` for no limit.
    pub max_connections: Option<NonZeroU32>,
}

impl Server {
    /// The largest weight: that of HAProxy.
    pub const MAX_WEIGHT: u16 = 256;

    /// Creates a server with default settings.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            address,
            name: None,
            weight: 1,
            backup: false,
            max_connections: None,
        }
    }

    /// Returns the `server` label of the metrics: its name, or its address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.address.to_string())
    }
}

/// How a server is chosen for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, in proportion to the weights.
    #[default]
    RoundRobin,
    /// The one with the fewest open connections in proportion to its weight.
    LeastConnections,
    /// The less loaded of two that are picked at random.
    Random,
    /// By the client's address: the same client gets the same server.
    Source,
}

/// What happens to connections while every server is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// Servers are tried although they are down.
    #[default]
    Try,
    /// Connections are reset.
    Refuse,
}

/// What happens to a server's open connections when it goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They continue.
    #[default]
    Keep,
    /// They are reset.
    Close,
}

/// What a server's name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolve {
    /// One server, at the first of its addresses that answers.
    #[default]
    First,
    /// A server at each of its addresses.
    All,
}

/// The version of the PROXY protocol whose header servers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxy {
    /// Version 1, a line of text.
    V1,
    /// Version 2, which is binary.
    V2,
}

/// How servers are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What a check does once it is connected.
    pub kind: HealthKind,
    /// The time from the start of one check to the start of the next.
    pub interval: Duration,
    /// How much earlier than `interval` a check may start at random, so that checks spread out. At
    /// most `interval`.
    pub jitter: Duration,
    /// How long a check may take. At most half of `interval`.
    pub timeout: Duration,
    /// How many successful checks in a row bring a server up.
    pub rise: NonZeroU32,
    /// How many failed checks in a row take a server down.
    pub fall: NonZeroU32,
    /// The port to check; `None` for the server's own.
    pub port: Option<NonZeroU16>,
}

/// What a check does once it is connected.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthKind {
    /// Sends bytes, if any, and waits for an answer, if one is expected.
    Tcp {
        /// The bytes to send; empty for none.
        send: Vec<u8>,
        /// What the answer must contain; `None` if no answer is expected.
        expect: Option<Expect>,
    },
    /// Sends an HTTP/1.1 request `GET` and checks the answer's status.
    Http {
        /// The request's path; it begins with `/`.
        path: String,
        /// The request's `Host`; `None` for the server's host.
        host: Option<String>,
        /// The lowest and the highest status that is good.
        status: (u16, u16),
    },
}

/// What an answer must contain within its first [`Expect::MAX_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A match of this regular expression, which is valid.
    Regex(String),
}

impl Expect {
    /// How many bytes of an answer are read.
    pub const MAX_BYTES: usize = 4096;
}

impl Service {
    /// The maximum number of servers in a service.
    pub const MAX_SERVERS: usize = 1024;

    /// Creates a service with default settings.
    #[must_use]
    pub fn new(name: String, servers: Vec<Server>) -> Self {
        Self {
            name,
            servers,
            balance: Balance::default(),
            connect_timeout: defaults::CONNECT_TIMEOUT,
            dial_timeout: defaults::DIAL_TIMEOUT,
            retries: None,
            max_fails: defaults::MAX_FAILS,
            fail_window: defaults::FAIL_WINDOW,
            when_down: WhenDown::default(),
            on_down: OnDown::default(),
            queue: defaults::QUEUE,
            queue_timeout: defaults::QUEUE_TIMEOUT,
            health: None,
            slow_start: Duration::ZERO,
            resolve: Resolve::default(),
            resolve_interval: defaults::RESOLVE_INTERVAL,
            send_proxy: None,
            bandwidth: Bandwidth::default(),
            outgoing: Outgoing::default(),
        }
    }
}

/// Default values, chosen for a Raspberry Pi.
pub mod defaults {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::num::NonZeroU32;
    use std::time::Duration;

    /// The admin endpoint, which only this machine can reach.
    pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2672);
    /// The control socket, in the directory where the systemd unit may create it.
    pub const CONTROL_SOCKET: &str = "/run/coracle/control.sock";
    /// `log.level`.
    pub const LOG_LEVEL: log::LevelFilter = log::LevelFilter::Info;
    /// `drain_timeout`: one second less than `docker stop` waits before it kills.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(9);
    /// `accounting.clients`: about half a megabyte.
    pub const CLIENTS: u32 = 4096;
    /// `accounting.save_interval`: a compromise between what a power cut loses and what an SD card
    /// endures.
    pub const SAVE_INTERVAL: Duration = Duration::from_secs(300);
    /// `connect_timeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// `dial_timeout`: long enough to try two silent servers before the client, such as a browser,
    /// gives up.
    pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
    /// `prologue_timeout`: proxies send their header at once, so this is the time for two lost
    /// packets.
    pub const PROLOGUE_TIMEOUT: Duration = Duration::from_secs(5);
    /// `max_fails`.
    pub const MAX_FAILS: u32 = 3;
    /// `fail_window`.
    pub const FAIL_WINDOW: Duration = Duration::from_secs(10);
    /// `queue`.
    pub const QUEUE: u32 = 1024;
    /// `queue_timeout`: as long as most clients are patient.
    pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);
    /// `resolve_interval`.
    pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
    /// `health.interval`.
    pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
    /// `health.timeout`, or half of the interval if that is shorter.
    pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
    /// `health.rise`: a server that flaps is not trusted at its first answer.
    pub const RISE: NonZeroU32 = NonZeroU32::new(2).unwrap();
    /// `health.fall`: one lost packet takes no server down.
    pub const FALL: NonZeroU32 = NonZeroU32::new(3).unwrap();
    /// `health.status`: an answer that is not an error, as most browsers see it.
    pub const STATUS: (u16, u16) = (200, 399);
    /// `client_ipv6_prefix`: what providers give one household at least.
    pub const CLIENT_IPV6_PREFIX: u8 = 64;
    /// `backlog`: a burst of clients that a browser or a script opens. Kernels before Linux 5.4 cap
    /// it at 128.
    pub const BACKLOG: u32 = 1024;
    /// `keepalive`: four probes follow, 15 s apart, so a peer that has vanished is detected within
    /// two minutes.
    pub const KEEPALIVE: Duration = Duration::from_secs(60);
}
