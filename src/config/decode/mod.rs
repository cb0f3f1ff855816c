//! Reads every known value from the parsed TOML and reports anything else as an error.

mod accounting;
mod bandwidth;
mod entrypoint;
mod health;
mod limits;
mod listening;
mod outgoing;
mod prologue;
mod routes;
mod server;
mod service;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Collector, nearest};
use super::draft::Draft;
use super::host::host_name;
use super::model::Metrics;
use super::origin::Origin;
use super::toml_reader::Reader;
use super::value::{self, AdminListen};

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
            "limits",
            "accounting",
            "entrypoints",
            "services",
        ],
    );
    if let Some(timeout) = reader.parsed(root, "drain_timeout", value::drain_timeout) {
        draft.drain_timeout = timeout;
    }
    draft.watch = reader.boolean(root, "watch").unwrap_or(false);
    if let Some(admin) = reader.table(root, "admin") {
        reader.known(admin, &["listen", "open", "token_file", "socket", "hosts"]);
        draft.admin.open = reader.boolean(admin, "open").unwrap_or(false);
        draft.admin.token_file = reader.parsed(admin, "token_file", value::token_file);
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
    draft.limits = reader.limits(root);
    draft.accounting = reader.accounting(root);
    for (name, table) in reader.named_tables(root, "services", &["health", "servers"]) {
        draft.services.push(reader.service(name, table));
    }
    for (name, table) in reader.named_tables(root, "entrypoints", &[]) {
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
}
