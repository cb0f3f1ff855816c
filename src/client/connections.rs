//! `coracle list`: asks a running coracle for its open connections, and formats them for people.

use serde_json::{Value, json};

use super::audit_answer::age;
use super::contact::Contact;
use super::get::get;
use super::request::Failure;
use super::table::table;
use crate::config::printable;

/// The open connections of a running coracle, at one moment.
#[derive(Debug)]
pub struct Connections(Vec<Value>);

impl Connections {
    /// Asks the coracle at `contact`. This takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(contact: &Contact) -> Result<Self, Failure> {
        Ok(Self::of(get(contact, "/api/v1/agreement")?))
    }

    /// Takes the connections of an audit, the oldest first, without what only the kernel has.
    fn of(mut audit: Value) -> Self {
        let connections = audit["connections"].as_array_mut().map(std::mem::take);
        let mut connections = connections.unwrap_or_default();
        connections.retain(|connection| connection["id"].is_string());
        let age = |connection: &Value| connection["age_seconds"].as_f64().unwrap_or(0.0);
        connections.sort_by(|a, b| age(b).total_cmp(&age(a)));
        Self(connections)
    }

    /// Returns the connections in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let connections = self.0.iter().map(|connection| {
            json!({
                "id": connection["id"],
                "peer": connection["peer"],
                "entrypoint": connection["entrypoint"],
                "server": connection["server"],
                "state": connection["state"],
                "age_seconds": connection["age_seconds"],
                "to_server_bytes": connection["to_server_bytes"],
                "to_client_bytes": connection["to_client_bytes"],
            })
        });
        json!({ "connections": connections.collect::<Vec<_>>() }).to_string()
    }

    /// Formats the connections as a table with a heading, the oldest first.
    #[must_use]
    pub fn table(&self) -> String {
        const TITLES: [&str; 8] = [
            "ID",
            "PEER",
            "ENTRYPOINT",
            "SERVER",
            "STATE",
            "AGE",
            "TO SERVER",
            "TO CLIENT",
        ];
        let rows = self.0.iter().map(row).collect();
        table(TITLES, rows).trim_end().to_owned()
    }
}

fn row(connection: &Value) -> [String; 8] {
    let text = |key: &str| printable(connection[key].as_str().unwrap_or("-"));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        text("id"),
        text("peer"),
        text("entrypoint"),
        text("server"),
        text("state"),
        or_dash(connection["age_seconds"].as_f64().map(age)),
        or_dash(connection["to_server_bytes"].as_u64().map(size)),
        or_dash(connection["to_client_bytes"].as_u64().map(size)),
    ]
}

/// Formats a number of bytes in the largest unit that leaves a whole number before the point.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, bits)| bytes >> bits > 0);
    match unit {
        Some((unit, bits)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << bits) as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connections() -> Connections {
        Connections::of(json!({ "connections": [
            { "id": "3", "peer": "10.0.0.1:6", "entrypoint": "a", "server": null, "state": "dialling",
              "age_seconds": 0.25, "to_server_bytes": 0, "to_client_bytes": 0, "kernel": null },
            { "id": "12", "peer": "10.0.0.1:5", "entrypoint": "a", "server": "b:1", "state": "relaying",
              "age_seconds": 61.2, "to_server_bytes": 1536, "to_client_bytes": 5_u64 << 30 },
            { "id": null, "peer": "10.0.0.1:7", "entrypoint": "a", "server": null, "state": null },
            { "id": "2", "peer": "\u{1b}[31m", "entrypoint": "a", "server": null, "state": "relaying" },
        ] }))
    }

    #[test]
    fn table_lists_the_oldest_first() {
        let expected = [
            "ID  PEER        ENTRYPOINT  SERVER  STATE     AGE    TO SERVER  TO CLIENT",
            "12  10.0.0.1:5  a           b:1     relaying  1m 1s  1.5 KiB    5.0 GiB",
            "3   10.0.0.1:6  a           -       dialling  250ms  0 B        0 B",
            "2   \\u{1b}[31m  a           -       relaying  -      -          -",
        ];
        let table = connections().table();
        assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_has_exact_numbers() {
        let json: Value = serde_json::from_str(&connections().json()).unwrap_or_default();
        let first = &json["connections"][0];
        assert_eq!(first["id"], "12");
        assert_eq!(first["state"], "relaying");
        assert_eq!(first["to_server_bytes"], 1536);
        assert_eq!(json["connections"].as_array().map(Vec::len), Some(3));
    }

    /// Returns the bytes that a size stands for.
    fn read_back(size: &str) -> f64 {
        let (number, unit) = size.split_once(' ').unwrap_or_default();
        let bits = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            unit => panic!("{unit}"),
        };
        number.parse().unwrap_or(f64::NAN) * f64::from(bits).exp2()
    }

    proptest! {
        #[test]
        fn sizes_are_near_and_keep_their_order(
            (a, b) in prop_oneof![any::<(u64, u64)>(), (any::<u64>(), 0..64_u32).prop_map(|(n, shift)| {
                let near = n >> shift;
                (near, near.saturating_add(1))
            })],
        ) {
            let [small, large] = [a.min(b), a.max(b)].map(|it| (it as f64, read_back(&size(it))));
            prop_assert!(small.1 <= large.1, "{small:?}, {large:?}");
            for (exact, shown) in [small, large] {
                // One digit after the point, of a number that is at least 1.
                prop_assert!((shown - exact).abs() <= 0.051 * exact, "{exact}: {shown}");
            }
        }
    }

    #[test]
    fn sizes_are_in_binary_units() {
        let sizes = [0, 1023, 1024, 1 << 20, u64::MAX].map(size);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "16777216.0 TiB"];
        assert_eq!(sizes, expected);
    }
}
