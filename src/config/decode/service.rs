//! Reads a service: a table [services.NAME].

use toml::de::{DeTable, DeValue};

use crate::config::address::Address;
use crate::config::diagnostic::shown;
use crate::config::draft::DraftService;
use crate::config::model::{Server, Service, defaults};
use crate::config::origin::Origin;
use crate::config::toml_reader::{Key, Reader, Value};
use crate::config::value;

impl Reader<'_, '_> {
    pub(super) fn service(&mut self, key: Key<'_>, table: &DeTable<'_>) -> DraftService {
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
