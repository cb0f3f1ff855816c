//! Reads an entrypoint: a table [entrypoints.NAME].

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::service;
use crate::config::access::{self, DraftAccess, Written};
use crate::config::address::{Address, Listen};
use crate::config::diagnostic::{Span, shown};
use crate::config::draft::{DraftEntrypoint, DraftListen, DraftService, Target};
use crate::config::keyword::keyword;
use crate::config::model::{AtLimit, Server, Service, defaults};
use crate::config::origin::Origin;
use crate::config::toml_reader::{Key, Reader, Value};
use crate::config::value;

const KEYS: &[&str] = &[
    "listen",
    "to",
    "service",
    "routes",
    "default_after",
    "connect_timeout",
    "dial_timeout",
    "idle_timeout",
    "half_close_timeout",
    "keepalive",
    "on_removed",
    "max_connections",
    "at_limit",
    "allow",
    "deny",
    "allow_file",
    "deny_file",
    "max_connections_per_client",
    "client_ipv6_prefix",
    "connection_rate_per_client",
    "connection_burst_per_client",
    "connection_rate",
    "connection_burst",
    "bandwidth_per_connection",
    "bandwidth_per_client",
    "at_refuse",
    "accept_proxy",
    "trusted",
    "prologue_timeout",
    "reuse_port",
    "only_v6",
    "interface",
    "backlog",
    "fast_open",
    "socket_mode",
    "socket_group",
];

impl Reader<'_, '_> {
    pub(super) fn entrypoint(&mut self, key: Key<'_>, table: &DeTable<'_>) -> DraftEntrypoint {
        let elsewhere = "belongs to a service; write it in a table [services.NAME], and here service = \"NAME\"";
        self.known_here(table, KEYS, (service::KEYS, elsewhere));
        let name = shown(key.get_ref());
        let mut listen = match table.get("listen") {
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
            (None, None) if table.contains_key("routes") => Target::None,
            (None, None) => {
                self.missing(
                    key,
                    table,
                    &["to", "service", "routes"],
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
        self.only_v6(table, &mut listen);
        let listening = self.listening(&name, table, &listen);
        let max_connections = self.max_connections(table);
        if let (Some((at, _)), None) = (
            table.get_key_value("at_limit"),
            table.get("max_connections"),
        ) {
            let why = "`at_limit` has no effect without `max_connections`; add that, or remove it";
            self.out.warn(Some(at.span()), why);
        }
        let at_limit = self.parsed(table, "at_limit", keyword).unwrap_or_default();
        let refuses = [
            "allow",
            "deny",
            "allow_file",
            "deny_file",
            "max_connections_per_client",
            "connection_rate_per_client",
            "connection_rate",
        ];
        let refuses = refuses.iter().any(|key| table.contains_key(*key));
        if let Some((at, _)) = table.get_key_value("at_refuse")
            && !refuses
            && at_limit != AtLimit::Refuse
        {
            let why = "`at_refuse` has no effect, because nothing refuses connections here; add `deny` or another key that does, or remove it";
            self.out.warn(Some(at.span()), why);
        }
        let routes = self.routes(table);
        let prologue = self.prologue(&name, table, &listen, &routes);
        let default_after = self.default_after(table, &routes, prologue.timeout);
        DraftEntrypoint {
            name: key.get_ref().to_string(),
            listen,
            reuse_port,
            listening,
            socket: self.socket_access(&name, table),
            target,
            routes,
            default_after,
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
                .parsed(table, "on_removed", keyword)
                .unwrap_or_default(),
            max_connections,
            at_limit,
            access: DraftAccess {
                allow: self.networks(table, "allow"),
                deny: self.networks(table, "deny"),
                allow_file: self.list_file(table, "allow_file"),
                deny_file: self.list_file(table, "deny_file"),
            },
            per_client: self.client_limits(table),
            bandwidth_per_connection: self.bandwidth(table, "bandwidth_per_connection"),
            rate: self.rate(table, "connection_rate", "connection_burst"),
            at_refuse: self.parsed(table, "at_refuse", keyword).unwrap_or_default(),
            prologue,
        }
    }

    /// Reads a network, or a list of networks.
    fn networks(&mut self, table: &DeTable<'_>, key: &str) -> Option<(Vec<Written>, Span)> {
        let value = table.get(key)?;
        let values: Vec<_> = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let read = |value: &Value<'_>| {
            let text = self.string(value, key)?;
            Some((self.ok(value, access::network(text))?, value.span()))
        };
        Some((values.into_iter().filter_map(read).collect(), value.span()))
    }

    fn list_file(&mut self, table: &DeTable<'_>, key: &str) -> Option<(PathBuf, Span)> {
        let path = self.parsed(table, key, access::list_path)?;
        Some((path, table.get(key)?.span()))
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
                takes_both: false,
                origin: Origin::File(value.span()),
            })
        };
        values.into_iter().filter_map(read).collect()
    }
}
