//! `coracle clients`: asks a running coracle what its clients have used, and formats it for people.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::connections::size;
use super::contact::Contact;
use super::get::get;
use super::request::Failure;
use super::table::table;
use crate::config::printable;

/// What the clients of a running coracle have used.
#[derive(Debug)]
pub struct Clients {
    /// The answer without its clients.
    rest: Value,
    /// Those who have used the most first.
    clients: Vec<Value>,
}

impl Clients {
    /// Asks a coracle. This takes at most 15 seconds for each
    /// thousand clients.
    ///
    /// # Errors
    /// If nothing answers there, or another program does, or nothing is counted there.
    pub fn ask(contact: &Contact) -> Result<Self, Failure> {
        const PAGE: usize = 1000;
        let (mut clients, mut seen, mut offset) = (Vec::new(), HashSet::new(), 0);
        loop {
            let path = format!("/api/v1/accounting?limit={PAGE}&offset={offset}");
            let mut rest = get(contact, &path)?;
            if rest["counts"] == false {
                return Err(Failure(format!(
                    "the coracle at {} does not count what clients use; add a table [accounting] to its configuration",
                    contact.admin
                )));
            }
            let page = rest["clients"].as_array_mut().map(std::mem::take);
            let page = page.unwrap_or_default();
            let is_last = page.len() < PAGE;
            offset += PAGE;
            // One that has moved meanwhile can be on two pages.
            let name = |it: &Value| it["client"].to_string();
            clients.extend(page.into_iter().filter(|it| seen.insert(name(it))));
            if is_last {
                return Ok(Self { rest, clients });
            }
        }
    }

    /// Returns everything in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let rest = &self.rest;
        json!({ "quota": rest["quota"], "others": rest["others"], "clients": self.clients })
            .to_string()
    }

    /// Formats the clients as a table with a heading.
    #[must_use]
    pub fn table(&self) -> String {
        const TITLES: [&str; 7] = [
            "CLIENT",
            "OPEN",
            "CONNECTIONS",
            "TO SERVER",
            "TO CLIENT",
            "SINCE",
            "QUOTA",
        ];
        let quota = self.rest["quota"]["bytes"].as_u64();
        let mut rows: Vec<_> = self.clients.iter().map(|it| row(it, quota)).collect();
        let others = &self.rest["others"];
        if others["connections"].as_u64().unwrap_or(0) > 0 {
            rows.push(row(&with_name(others), None));
        }
        table(TITLES, rows).trim_end().to_owned()
    }
}

fn with_name(others: &Value) -> Value {
    let mut others = others.clone();
    others["client"] = "others".into();
    others
}

fn row(it: &Value, quota: Option<u64>) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |key: &str| or_dash(it[key].as_u64().map(|n| n.to_string()));
    let bytes = |key: &str| or_dash(it[key].as_u64().map(size));
    let since = it["since_seconds"].as_u64().map(Duration::from_secs);
    let used = it["of_quota_bytes"].as_u64().zip(quota);
    [
        printable(it["client"].as_str().unwrap_or("-")),
        number("open"),
        number("connections"),
        bytes("to_server_bytes"),
        bytes("to_client_bytes"),
        or_dash(since.map(|it| humantime::format_duration(it).to_string())),
        or_dash(used.map(|(used, quota)| format!("{:.0}%", used as f64 * 100.0 / quota as f64))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_others_last() {
        let clients = Clients {
            rest: json!({
                "quota": { "bytes": 4096, "period": "day" },
                "others": { "forgotten": 1, "connections": 2, "to_server_bytes": 3, "to_client_bytes": 4 },
            }),
            clients: vec![json!({
                "client": "2001:db8::/64", "open": 1, "connections": 5, "to_server_bytes": 1024,
                "to_client_bytes": 2048, "since_seconds": 61, "of_quota_bytes": 3072,
            })],
        };
        let expected = [
            "CLIENT         OPEN  CONNECTIONS  TO SERVER  TO CLIENT  SINCE  QUOTA",
            "2001:db8::/64  1     5            1.0 KiB    2.0 KiB    1m 1s  75%",
            "others         -     2            3 B        4 B        -      -",
        ];
        assert_eq!(clients.table().lines().collect::<Vec<_>>(), expected);
    }
}
