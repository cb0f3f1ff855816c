//! Reads the servers of a service: addresses, or tables with an address and settings.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

use crate::config::address::Address;
use crate::config::advice::advice;
use crate::config::diagnostic::{Span, shown};
use crate::config::model::{Server, Service};
use crate::config::origin::Origin;
use crate::config::toml_reader::{Reader, Value, name_mistake};

const KEYS: &[&str] = &["address", "weight", "backup", "max_connections", "name"];

impl Reader<'_, '_> {
    /// Returns the servers and where each was written.
    pub(super) fn servers(&mut self, list: &Value<'_>) -> (Vec<Server>, Vec<Origin>) {
        let DeValue::Array(array) = list.get_ref() else {
            let advice = match list.get_ref() {
                DeValue::Table(_) => "; write it in [ ], or below [[services.NAME.servers]]",
                _ => "; write it in [ ]",
            };
            self.wrong_type(list, "an array of strings", advice);
            return (Vec::new(), Vec::new());
        };
        let most = Service::MAX_SERVERS;
        if array.is_empty() {
            let why = "the list is empty; write at least one server";
            self.out.report(Some(list.span()), why);
        } else if array.len() > most {
            let n = array.len();
            let why = format!("the list has {n} servers; the limit is {most}");
            self.out.report(Some(list.span()), why);
        }
        let (mut servers, mut origins) = (Vec::new(), Vec::new());
        let mut labels = HashMap::new();
        for value in array.iter().take(most) {
            let Some(server) = self.server(value) else {
                continue;
            };
            match labels.get(&server.label()) {
                None => drop(labels.insert(server.label(), server.clone())),
                Some(other) => self.same_label(value, &server, other),
            }
            servers.push(server);
            origins.push(Origin::File(value.span()));
        }
        // An entry that could not be read may be the one that matters.
        if servers.len() == array.len() {
            self.useless_servers(list.span(), &servers);
        }
        (servers, origins)
    }

    /// Reports a server with the label of another one.
    fn same_label(&mut self, value: &Value<'_>, server: &Server, other: &Server) {
        let label = match (&server.name, value.get_ref()) {
            (None, DeValue::String(text)) => shown(text),
            _ => shown(&server.label()),
        };
        let remedy = match server.address == other.address {
            true => "remove one",
            false => "give one another `name`",
        };
        let why = format!("server `{label}` is in the list twice; {remedy}");
        self.out.report(Some(value.span()), why);
    }

    /// Warns about servers among which there is none to use.
    fn useless_servers(&mut self, list: Span, servers: &[Server]) {
        if servers.is_empty() {
            return;
        }
        if servers.iter().all(|server| server.weight == 0) {
            let why = "every server has weight 0, so none gets a connection; give one a weight of at least 1";
            self.out.warn(Some(list.clone()), why);
        }
        if servers.iter().all(|server| server.backup) {
            let why = "every server is a backup, as if none were; remove `backup` from the one to use first";
            self.out.warn(Some(list), why);
        }
    }

    fn server(&mut self, value: &Value<'_>) -> Option<Server> {
        match value.get_ref() {
            DeValue::String(text) => self.ok(value, text.parse::<Address>()).map(Server::at),
            DeValue::Table(table) => self.server_table(value, table),
            other => {
                let advice = advice("servers", other);
                self.wrong_type(value, "a string or a table", &advice);
                None
            }
        }
    }

    fn server_table(&mut self, value: &Value<'_>, table: &DeTable<'_>) -> Option<Server> {
        self.known(table, KEYS);
        if !table.contains_key("address") {
            let why = "the server has no `address`; add one, such as address = \"192.168.1.10:80\"";
            self.missing_in(value.span(), table, &["address"], why.to_owned());
        }
        let weight = self.integer(
            table,
            "weight",
            0..=Server::MAX_WEIGHT.into(),
            "write 0 for no new connections",
        );
        let name = table.get("name").and_then(|value| {
            let name = self.string(value, "name")?;
            if let Some(why) = name_mistake(name) {
                self.out.report(Some(value.span()), why);
            }
            Some(name.to_owned())
        });
        let backup = self.boolean(table, "backup").unwrap_or(false);
        let max_connections = self.max_connections(table);
        let address = self.parsed(table, "address", str::parse::<Address>)?;
        if let (Address::Srv(name), Some(1..), Some(value)) =
            (&address, weight, table.get("weight"))
        {
            let why = format!(
                "the records of `{}` have weights; remove `weight`, or write 0 for no new connections",
                shown(name)
            );
            self.out.report(Some(value.span()), why);
        }
        Some(Server {
            name,
            weight: weight.and_then(|it| it.try_into().ok()).unwrap_or(1),
            backup,
            max_connections,
            ..Server::at(address)
        })
    }
}
