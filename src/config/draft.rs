//! The configuration as written, before names are resolved and addresses compared.

use std::num::NonZeroU32;
use std::time::Duration;

use super::access::DraftAccess;
use super::address::Listen;
use super::diagnostic::Span;
use super::model::{
    Accounting, Admin, AtLimit, ClientLimits, ControlSocket, Limits, Listening, Log, Metrics,
    OnRemoved, Service, SocketAccess, defaults,
};
use super::origin::Origin;
use crate::state::{AtRefuse, Bandwidth, Network, Rate, Rule};

/// The configuration as written, before names are resolved and addresses compared.
pub(super) struct Draft {
    pub(super) drain_timeout: Duration,
    pub(super) watch: bool,
    pub(super) admin: Admin,
    pub(super) admin_at: Origin,
    pub(super) admin_socket_at: Origin,
    pub(super) admin_hosts: Vec<String>,
    pub(super) limits: Limits,
    pub(super) accounting: Option<Accounting>,
    pub(super) log: Log,
    pub(super) metrics: Metrics,
    pub(super) entrypoints: Vec<DraftEntrypoint>,
    pub(super) services: Vec<DraftService>,
    /// Whether the text tries to define entrypoints. If so, errors in them are already reported.
    pub(super) meant_entrypoints: bool,
}

pub(super) struct DraftEntrypoint {
    pub(super) name: String,
    pub(super) listen: Vec<DraftListen>,
    pub(super) reuse_port: bool,
    pub(super) listening: Listening,
    pub(super) socket: SocketAccess,
    pub(super) target: Target,
    pub(super) routes: Vec<DraftRoute>,
    pub(super) default_after: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) half_close_timeout: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    pub(super) on_removed: OnRemoved,
    pub(super) max_connections: Option<NonZeroU32>,
    pub(super) at_limit: AtLimit,
    pub(super) access: DraftAccess,
    pub(super) per_client: ClientLimits,
    pub(super) bandwidth_per_connection: Bandwidth,
    pub(super) rate: Option<Rate>,
    pub(super) at_refuse: AtRefuse,
    pub(super) prologue: Prologue,
}

/// What an entrypoint reads before a server is chosen.
pub(super) struct Prologue {
    pub(super) accept_proxy: bool,
    pub(super) trusted: Vec<Network>,
    pub(super) timeout: Duration,
}

impl Default for Prologue {
    fn default() -> Self {
        Self {
            accept_proxy: false,
            trusted: Vec::new(),
            timeout: defaults::PROLOGUE_TIMEOUT,
        }
    }
}

/// A rule that decides where connections go.
pub(super) struct DraftRoute {
    pub(super) name: Option<String>,
    pub(super) rule: Rule,
    /// The name of its service, if that is readable.
    pub(super) service: Option<(String, Span)>,
}

pub(super) struct DraftListen {
    pub(super) listen: Listen,
    /// Whether it was written as `*` or without a host, for both IPv4 and IPv6.
    pub(super) dual: bool,
    /// Whether it must take both because of only_v6 = false.
    pub(super) takes_both: bool,
    pub(super) origin: Origin,
}

pub(super) struct DraftService {
    pub(super) service: Service,
    /// Where its name was written, or the key or flag that creates it.
    pub(super) origin: Origin,
    /// Where each of its servers was written.
    pub(super) servers: Vec<Origin>,
}

pub(super) enum Target {
    /// A service of its own, created by `to`.
    Own(Box<DraftService>),
    /// The name of a service.
    Named(String, Span),
    /// Missing or unreadable; already reported.
    Unread,
    /// Missing, because the rules decide about every connection.
    None,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            drain_timeout: defaults::DRAIN_TIMEOUT,
            watch: false,
            admin: Admin {
                listen: Some(defaults::ADMIN),
                open: false,
                token_file: None,
                socket: ControlSocket::default(),
            },
            admin_at: Origin::Default,
            admin_socket_at: Origin::Default,
            admin_hosts: Vec::new(),
            limits: Limits::default(),
            accounting: None,
            log: Log {
                level: defaults::LOG_LEVEL,
                access: false,
            },
            metrics: Metrics::default(),
            entrypoints: Vec::new(),
            services: Vec::new(),
            meant_entrypoints: false,
        }
    }
}
