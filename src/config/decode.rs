//! Reads every known value from the parsed TOML and reports anything else as an error.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::{Address, Listen};
use super::diagnostic::{Collector, Span, nearest, shown};
use super::host::host_name;
use super::model::{
    Admin, ControlSocket, Log, Metrics, OnRemoved, Server, Service, SocketAccess, defaults,
};
use super::origin::Origin;
use super::toml_reader::{Key, Reader, Value};
use super::value::{self, AdminListen};

/// The configuration as written, before names are resolved and addresses compared.
pub(super) struct Draft {
    pub(super) drain_timeout: Duration,
    pub(super) watch: bool,
    pub(super) admin: Admin,
    pub(super) admin_at: Origin,
    pub(super) admin_socket_at: Origin,
    pub(super) admin_hosts: Vec<String>,
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
    pub(super) socket: SocketAccess,
    pub(super) target: Target,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) half_close_timeout: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    pub(super) on_removed: OnRemoved,
}

pub(super) struct DraftListen {
    pub(super) listen: Listen,
    /// Whether it was written as `*` or without a host, for both IPv4 and IPv6.
    pub(super) dual: bool,
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
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            drain_timeout: defaults::DRAIN_TIMEOUT,
            watch: false,
            admin: Admin {
                listen: Some(defaults::ADMIN),
                socket: ControlSocket::default(),
            },
            admin_at: Origin::Default,
            admin_socket_at: Origin::Default,
            admin_hosts: Vec::new(),
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

/// Reads `root`. `whole` says that the syntax is free of errors, so a missing key was not written.
pub(super) fn decode(root: &DeTable<'_>, whole: bool, out: &mut Collector<'_>) -> Draft {
    let mut reader = Reader { whole, out };
    let mut draft = Draft::default();
    reader.known(
        root,
        &[
            "drain_timeout",
            "watch",
            "admin",
            "log",
            "metrics",
            "entrypoints",
            "services",
        ],
    );
    if let Some(timeout) = reader.parsed(root, "drain_timeout", value::drain_timeout) {
        draft.drain_timeout = timeout;
    }
    draft.watch = reader.boolean(root, "watch").unwrap_or(false);
    if let Some(admin) = reader.table(root, "admin") {
        reader.known(admin, &["listen", "socket", "hosts"]);
        draft.admin_hosts = reader.host_names(admin, "hosts");
        let origin = |key| {
            let span = admin.get(key).map(Spanned::span);
            span.map_or(Origin::Default, Origin::File)
        };
        let listen = admin.get("listen").and_then(|value| {
            let text = reader.string(value, "admin.listen")?;
            reader.ok(value, text.parse::<AdminListen>())
        });
        if let Some(AdminListen(listen)) = listen {
            draft.admin.listen = listen;
            draft.admin_at = origin("listen");
        }
        if let Some(socket) = reader.parsed(admin, "socket", value::control_socket) {
            draft.admin.socket = socket;
            draft.admin_socket_at = origin("socket");
        }
    }
    if let Some(log) = reader.table(root, "log") {
        reader.known(log, &["level", "access"]);
        if let Some(level) = reader.parsed(log, "level", value::level) {
            draft.log.level = level;
        }
        draft.log.access = reader.boolean(log, "access").unwrap_or(false);
    }
    if let Some(metrics) = reader.table(root, "metrics") {
        draft.metrics = reader.metrics(metrics);
    }
    for (name, table) in reader.named_tables(root, "services") {
        draft.services.push(reader.service(name, table));
    }
    for (name, table) in reader.named_tables(root, "entrypoints") {
        draft.entrypoints.push(reader.entrypoint(name, table));
    }
    draft.meant_entrypoints = root.iter().any(|(key, value)| {
        let is_empty = value.get_ref().as_table().is_some_and(DeTable::is_empty);
        let is_near = nearest(key.get_ref(), ["entrypoints"]).is_some();
        (key.get_ref() == "entrypoints" || is_near) && !is_empty
    });
    draft
}

impl Reader<'_, '_> {
    fn host_names(&mut self, table: &DeTable<'_>, key: &str) -> Vec<String> {
        let array = match table.get(key).map(|value| (value, value.get_ref())) {
            None => return Vec::new(),
            Some((_, DeValue::Array(array))) => array,
            Some((value, _)) => {
                self.wrong_type(value, "an array of strings", "; write it in [ ]");
                return Vec::new();
            }
        };
        let read = |value| {
            let name = self.string(value, key)?;
            self.ok(value, host_name(name))
        };
        array.iter().filter_map(read).collect()
    }

    fn metrics(&mut self, table: &DeTable<'_>) -> Metrics {
        self.known(table, &["compat"]);
        let mut metrics = Metrics::default();
        let array = match table.get("compat").map(|value| (value, value.get_ref())) {
            None => return metrics,
            Some((_, DeValue::Array(array))) => array,
            Some((value, _)) => {
                self.wrong_type(value, "an array of strings", "; write it in [ ]");
                return metrics;
            }
        };
        for value in array {
            let name = self.string(value, "compat");
            let Some(value::Compat::Traefik) =
                name.and_then(|name| self.ok(value, value::compat(name)))
            else {
                continue;
            };
            if metrics.traefik {
                let why = "`traefik` is in the list twice; remove one";
                self.out.report(Some(value.span()), why);
            }
            metrics.traefik = true;
        }
        metrics
    }

    fn entrypoint(&mut self, key: Key<'_>, table: &DeTable<'_>) -> DraftEntrypoint {
        self.known(
            table,
            &[
                "listen",
                "to",
                "service",
                "connect_timeout",
                "dial_timeout",
                "idle_timeout",
                "half_close_timeout",
                "keepalive",
                "on_removed",
                "reuse_port",
                "socket_mode",
                "socket_group",
            ],
        );
        let name = shown(key.get_ref());
        let listen = match table.get("listen") {
            Some(value) => self.listen(value),
            None => {
                let example = "listen = \"0.0.0.0:8080\"";
                self.missing(
                    key,
                    table,
                    &["listen"],
                    format!("entrypoint `{name}` has no `listen`; add one, such as {example}"),
                );
                Vec::new()
            }
        };
        let connect_timeout = self.parsed(table, "connect_timeout", value::dialling_timeout);
        let dial_timeout = self.parsed(table, "dial_timeout", value::dialling_timeout);
        let to = self.parsed(table, "to", str::parse::<Address>);
        let service = table.get("service").and_then(|value| {
            let name = self.string(value, "service")?;
            Some((name.to_owned(), value.span()))
        });
        let target = match (table.get_key_value("to"), table.get_key_value("service")) {
            (Some((to, _)), Some((service, _))) => {
                let second = to.span().start.max(service.span().start);
                let second = if second == to.span().start {
                    to
                } else {
                    service
                };
                self.out.report(
                    Some(second.span()),
                    format!("entrypoint `{name}` has both `to` and `service`; keep one of them"),
                );
                Target::Unread
            }
            (Some((at, value)), None) => to.map_or(Target::Unread, |to| {
                let service = Service {
                    connect_timeout: connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
                    dial_timeout: dial_timeout.unwrap_or(defaults::DIAL_TIMEOUT),
                    ..Service::new(key.get_ref().to_string(), vec![Server::at(to)])
                };
                Target::Own(Box::new(DraftService {
                    service,
                    origin: Origin::File(at.span()),
                    servers: vec![Origin::File(value.span())],
                }))
            }),
            (None, Some(_)) => {
                for key in ["connect_timeout", "dial_timeout"] {
                    if let Some((at, _)) = table.get_key_value(key) {
                        let why = format!(
                            "`{key}` goes with `to`; with `service`, set it in the service's table"
                        );
                        self.out.report(Some(at.span()), why);
                    }
                }
                service.map_or(Target::Unread, |(name, at)| Target::Named(name, at))
            }
            (None, None) => {
                self.missing(
                    key,
                    table,
                    &["to", "service"],
                    format!("entrypoint `{name}` has neither `to` nor `service`; add one, such as to = \"192.168.1.10:80\""),
                );
                Target::Unread
            }
        };
        let reuse_port = self.boolean(table, "reuse_port").unwrap_or(false);
        let unix = listen
            .iter()
            .find(|it| matches!(it.listen, Listen::Unix(_)));
        if let (true, Some(unix), Some(at)) = (reuse_port, unix, table.get("reuse_port")) {
            let why = format!(
                "only TCP ports can be shared, and entrypoint `{name}` listens on `{}`; give that an entrypoint of its own, or remove `reuse_port`",
                shown(&unix.listen.to_string())
            );
            self.out.report(Some(at.span()), why);
        }
        DraftEntrypoint {
            name: key.get_ref().to_string(),
            listen,
            reuse_port,
            socket: self.socket_access(&name, table),
            target,
            idle_timeout: self
                .parsed(table, "idle_timeout", value::timeout_or_off)
                .flatten(),
            half_close_timeout: self
                .parsed(table, "half_close_timeout", value::timeout_or_off)
                .flatten(),
            keepalive: self
                .parsed(table, "keepalive", value::keepalive)
                .unwrap_or(Some(defaults::KEEPALIVE)),
            on_removed: self
                .parsed(table, "on_removed", value::on_removed)
                .unwrap_or_default(),
        }
    }

    fn listen(&mut self, value: &Value<'_>) -> Vec<DraftListen> {
        let values: Vec<_> = match value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                let why = "the list is empty; write at least one address";
                self.out.report(Some(value.span()), why);
                return Vec::new();
            }
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let read = |value: &Value<'_>| {
            let text = self.string(value, "listen")?;
            Some(DraftListen {
                listen: self.ok(value, text.parse())?,
                dual: text.starts_with(['*', ':']),
                origin: Origin::File(value.span()),
            })
        };
        values.into_iter().filter_map(read).collect()
    }

    fn service(&mut self, key: Key<'_>, table: &DeTable<'_>) -> DraftService {
        self.known(table, &["servers", "connect_timeout", "dial_timeout"]);
        let name = shown(key.get_ref());
        let (servers, origins) = match table.get("servers") {
            Some(value) => self.servers(value),
            None => {
                let example = "servers = [\"192.168.1.10:80\"]";
                self.missing(
                    key,
                    table,
                    &["servers"],
                    format!("service `{name}` has no `servers`; add some, such as {example}"),
                );
                (Vec::new(), Vec::new())
            }
        };
        let connect_timeout = self.parsed(table, "connect_timeout", value::dialling_timeout);
        let dial_timeout = self.parsed(table, "dial_timeout", value::dialling_timeout);
        DraftService {
            service: Service {
                connect_timeout: connect_timeout.unwrap_or(defaults::CONNECT_TIMEOUT),
                dial_timeout: dial_timeout.unwrap_or(defaults::DIAL_TIMEOUT),
                ..Service::new(key.get_ref().to_string(), servers)
            },
            origin: Origin::File(key.span()),
            servers: origins,
        }
    }

    /// Returns the servers and where each was written.
    fn servers(&mut self, value: &Value<'_>) -> (Vec<Server>, Vec<Origin>) {
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(value, "an array of strings", "; write it in [ ]");
            return (Vec::new(), Vec::new());
        };
        let most = Service::MAX_SERVERS;
        if array.is_empty() {
            let why = "the list is empty; write at least one server";
            self.out.report(Some(value.span()), why);
        } else if array.len() > most {
            let n = array.len();
            let why = format!("the list has {n} servers; the limit is {most}");
            self.out.report(Some(value.span()), why);
        }
        let (mut servers, mut origins) = (Vec::new(), Vec::new());
        for value in array.iter().take(most) {
            let Some(text) = self.string(value, "servers") else {
                continue;
            };
            let Some(address) = self.ok(value, text.parse::<Address>()) else {
                continue;
            };
            let server = Server::at(address);
            if servers.contains(&server) {
                let why = format!("server `{}` is in the list twice; remove one", shown(text));
                self.out.report(Some(value.span()), why);
            }
            servers.push(server);
            origins.push(Origin::File(value.span()));
        }
        (servers, origins)
    }
}
