//! Reads what an entrypoint expects before a server is chosen.

use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::config::address::Listen;
use crate::config::diagnostic::Mistake;
use crate::config::draft::{DraftListen, DraftRoute, Prologue};
use crate::config::model::defaults;
use crate::config::toml_reader::{Reader, Value};
use crate::config::{value, words};
use crate::state::{Network, most_bytes};

/// Returns whether a rule reads what clients send.
fn reads_bytes(routes: &[DraftRoute]) -> bool {
    routes
        .iter()
        .any(|it| most_bytes(std::slice::from_ref(&it.rule)) > 0)
}

const EXAMPLE: &str = "trusted = [\"192.168.1.5\"]";

impl Reader<'_, '_> {
    /// `name` is the entrypoint's, and `listen` are the addresses that it listens on.
    pub(super) fn prologue(
        &mut self,
        name: &str,
        table: &DeTable<'_>,
        listen: &[DraftListen],
        routes: &[DraftRoute],
    ) -> Prologue {
        let accept_proxy = self.boolean(table, "accept_proxy").unwrap_or(false);
        let timeout = self.parsed(table, "prologue_timeout", value::dialling_timeout);
        let trusted = self.trusted(table);
        let over_tcp = listen
            .iter()
            .any(|it| matches!(it.listen, Listen::Tcp { .. }));
        match (table.get_key_value("accept_proxy"), table.get("trusted")) {
            (Some((at, _)), None) if accept_proxy && over_tcp => {
                let why = format!(
                    "entrypoint `{name}` has `accept_proxy`, but no `trusted`: anybody could claim to be another client; add the addresses or networks of the proxies before it, such as {EXAMPLE}"
                );
                self.out.report(Some(at.span()), why);
            }
            (_, Some(at)) if !accept_proxy => {
                let why =
                    "`trusted` has no effect without accept_proxy = true; add that, or remove it";
                self.out.warn(Some(at.span()), why);
            }
            _ => {}
        }
        let reads = accept_proxy || reads_bytes(routes);
        if let (Some((at, _)), false) = (table.get_key_value("prologue_timeout"), reads) {
            let why = "`prologue_timeout` has no effect without accept_proxy = true or `routes` that read what clients send; add one of them, or remove it";
            self.out.warn(Some(at.span()), why);
        }
        Prologue {
            accept_proxy,
            trusted,
            timeout: timeout.unwrap_or(defaults::PROLOGUE_TIMEOUT),
        }
    }

    /// Reads the time after which silent clients wait no longer.
    pub(super) fn default_after(
        &mut self,
        table: &DeTable<'_>,
        routes: &[DraftRoute],
        timeout: Duration,
    ) -> Option<Duration> {
        let after = self.parsed(table, "default_after", value::dialling_timeout);
        let (at, value) = table.get_key_value("default_after")?;
        if !reads_bytes(routes) {
            let why = "`default_after` has no effect without `routes` that read what clients send; add one, or remove it";
            self.out.warn(Some(at.span()), why);
        } else if after.is_some_and(|after| after >= timeout) {
            let timeout = words::duration(&timeout);
            let why = format!(
                "`default_after` is not shorter than `prologue_timeout`, which closes silent connections after {timeout}; write a shorter time, or a longer `prologue_timeout`"
            );
            self.out.report(Some(value.span()), why);
        }
        after
    }

    /// Reads a network, or a list of networks.
    fn trusted(&mut self, table: &DeTable<'_>) -> Vec<Network> {
        let Some(value) = table.get("trusted") else {
            return Vec::new();
        };
        let values: Vec<_> = match value.get_ref() {
            DeValue::Array(array) if array.is_empty() => {
                let why = format!(
                    "the list is empty, so every connection would be closed; write {EXAMPLE}"
                );
                self.out.report(Some(value.span()), why);
                return Vec::new();
            }
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let read = |value: &Value<'_>| {
            let text = self.string(value, "trusted")?;
            self.ok(value, text.parse::<Network>().map_err(Mistake))
        };
        values.into_iter().filter_map(read).collect()
    }
}
