//! `coracle list`: asks a running coracle for its open connections, and formats them for people.

use serde_json::{Value, json};

use super::audit_answer::age;
use super::contact::Contact;
use super::get::get;
use super::listing::{ListSort, Listing};
use super::request::Failure;
use super::table::table;
use crate::config::printable;

/// Open connections of a running coracle.
#[derive(Debug)]
pub struct Connections(Vec<Value>);

impl Connections {
    /// Asks the coracle at `contact`. Each request takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(contact: &Contact, listing: &Listing) -> Result<Self, Failure> {
        let is_of_one_moment = listing.is_of_one_moment();
        let mut connections = match is_of_one_moment {
            true => of_audit(get(contact, "/api/v1/agreement")?),
            false => listing.read(|path| get(contact, path))?,
        };
        // Ages of several answers are of several moments. Those come in the order of age.
        if is_of_one_moment || listing.sort == ListSort::Bytes {
            sort(&mut connections, listing.sort);
        }
        connections.truncate(listing.limit.unwrap_or(usize::MAX));
        Ok(Self(connections))
    }

    /// Returns the connections in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let connections = self.0.iter().map(|connection| {
            json!({
                "id": connection["id"],
                "peer": connection["peer"],
                "socket_peer": connection["socket_peer"],
                "entrypoint": connection["entrypoint"],
                "service": connection["service"],
                "route": connection["route"],
                "server": connection["server"],
                "state": connection["state"],
                "age_seconds": connection["age_seconds"],
                "to_server_bytes": connection["to_server_bytes"],
                "to_client_bytes": connection["to_client_bytes"],
            })
        });
        json!({ "connections": connections.collect::<Vec<_>>() }).to_string()
    }

    /// Formats the connections as a table with a heading.
    #[must_use]
    pub fn table(&self) -> String {
        const TITLES: [&str; 9] = [
            "ID",
            "PEER",
            "ENTRYPOINT",
            "SERVICE",
            "SERVER",
            "AGE",
            "TO SERVER",
            "TO CLIENT",
            "STATE",
        ];
        let rows = self.0.iter().map(row).collect();
        table(TITLES, rows).trim_end().to_owned()
    }
}

/// Takes the connections of an audit, without what only the kernel has.
fn of_audit(mut audit: Value) -> Vec<Value> {
    let connections = audit["connections"].as_array_mut().map(std::mem::take);
    let mut connections = connections.unwrap_or_default();
    connections.retain(|connection| connection["id"].is_string());
    connections
}

/// Puts the oldest first, or those that carried the most.
fn sort(connections: &mut [Value], by: ListSort) {
    let number = |connection: &Value, key: &str| connection[key].as_f64().unwrap_or(0.0);
    let key = |connection: &Value| match by {
        ListSort::Age => number(connection, "age_seconds"),
        ListSort::Bytes => {
            number(connection, "to_server_bytes") + number(connection, "to_client_bytes")
        }
    };
    connections.sort_by(|a, b| key(b).total_cmp(&key(a)));
}

fn row(connection: &Value) -> [String; 9] {
    let text = |key: &str| printable(connection[key].as_str().unwrap_or("-"));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        text("id"),
        match connection["socket_peer"].as_str() {
            None => text("peer"),
            Some(socket) => format!("{} via {}", text("peer"), printable(socket)),
        },
        text("entrypoint"),
        match connection["route"].as_str() {
            None => text("service"),
            Some(route) => format!("{} (route {})", text("service"), printable(route)),
        },
        text("server"),
        or_dash(connection["age_seconds"].as_f64().map(age)),
        or_dash(connection["to_server_bytes"].as_u64().map(size)),
        or_dash(connection["to_client_bytes"].as_u64().map(size)),
        text("state"),
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

    fn connections(by: ListSort) -> Connections {
        let mut connections = of_audit(json!({ "connections": [
            { "id": "3", "peer": "10.0.0.1:6", "entrypoint": "a", "service": "s", "server": null,
              "state": "dialling", "age_seconds": 0.25, "to_server_bytes": 0, "to_client_bytes": 0 },
            { "id": "12", "peer": "10.0.0.1:5", "entrypoint": "a", "service": "s", "server": "b:1",
              "state": "relaying", "age_seconds": 61.2, "to_server_bytes": 1536, "to_client_bytes": 0 },
            { "id": null, "peer": "10.0.0.1:7", "entrypoint": "a", "server": null, "state": null },
            { "id": "15", "peer": "10.0.0.1:8", "entrypoint": "a", "service": "s", "server": "b:1",
              "state": "relaying", "age_seconds": 7.0, "to_server_bytes": 0, "to_client_bytes": 5_u64 << 30 },
            { "id": "2", "peer": "\u{1b}[31m", "entrypoint": "a", "server": null, "state": "relaying" },
        ] }));
        sort(&mut connections, by);
        Connections(connections)
    }

    #[test]
    fn table_lists_the_oldest_first() {
        let expected = [
            "ID  PEER        ENTRYPOINT  SERVICE  SERVER  AGE    TO SERVER  TO CLIENT  STATE",
            "12  10.0.0.1:5  a           s        b:1     1m 1s  1.5 KiB    0 B        relaying",
            "15  10.0.0.1:8  a           s        b:1     7s     0 B        5.0 GiB    relaying",
            "3   10.0.0.1:6  a           s        -       250ms  0 B        0 B        dialling",
            "2   \\u{1b}[31m  a           -        -       -      -          -          relaying",
        ];
        let table = connections(ListSort::Age).table();
        assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_has_exact_numbers_in_the_order_of_the_table() {
        let json = connections(ListSort::Bytes).json();
        let json: Value = serde_json::from_str(&json).unwrap_or_default();
        let ids = json["connections"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let ids: Vec<_> = ids.iter().map(|it| it["id"].as_str()).collect();
        assert_eq!(ids, ["15", "12", "3", "2"].map(Some));
        let second = &json["connections"][1];
        assert_eq!(second["service"], "s");
        assert_eq!(second["state"], "relaying");
        assert_eq!(second["to_server_bytes"], 1536);
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
