//! Reads what an entrypoint expects before a server is chosen.

use toml::de::{DeTable, DeValue};

use crate::config::address::Listen;
use crate::config::diagnostic::Mistake;
use crate::config::draft::{DraftListen, Prologue};
use crate::config::model::defaults;
use crate::config::toml_reader::{Reader, Value};
use crate::config::value;
use crate::state::Network;

const EXAMPLE: &str = "trusted = [\"192.168.1.5\"]";

impl Reader<'_, '_> {
    /// `name` is the entrypoint's, and `listen` are the addresses that it listens on.
    pub(super) fn prologue(
        &mut self,
        name: &str,
        table: &DeTable<'_>,
        listen: &[DraftListen],
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
        if let (Some((at, _)), false) = (table.get_key_value("prologue_timeout"), accept_proxy) {
            let why = "`prologue_timeout` has no effect without accept_proxy = true; add that, or remove it";
            self.out.warn(Some(at.span()), why);
        }
        Prologue {
            accept_proxy,
            trusted,
            timeout: timeout.unwrap_or(defaults::PROLOGUE_TIMEOUT),
        }
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
