//! `coracle audit`: asks a running coracle for its set and the kernel's socket table, and formats
//! both for people.

use std::time::Duration;

use serde_json::Value;

use super::contact::Contact;
use super::get::get;
use super::request::Failure;
use super::table::table;

/// One comparison of the set with the kernel's table, made by the running program.
#[derive(Debug)]
pub struct Audit(Value);

impl Audit {
    /// Asks the coracle at `contact`. This takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(contact: &Contact) -> Result<Self, Failure> {
        get(contact, "/api/v1/agreement").map(Self)
    }

    /// Returns `true` if the set and the kernel agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.0["agree"].as_bool().unwrap_or(false)
    }

    /// Returns the number of connections that only one side has.
    #[must_use]
    pub fn difference(&self) -> u64 {
        self.number("set_only") + self.number("kernel_only")
    }

    /// Returns the answer as received, in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        self.0.to_string()
    }

    /// Formats a table of all connections. `!` marks those that only one side has.
    #[must_use]
    pub fn table(&self) -> String {
        const TITLES: [&str; 8] = [
            "",
            "ID",
            "PEER",
            "ENTRYPOINT",
            "SERVER",
            "AGE",
            "SET",
            "KERNEL",
        ];
        let mut rows: Vec<[String; 8]> = self.connections().iter().map(row).collect();
        rows.sort_by_key(|row| (row[3].clone(), row[1].parse::<u64>().unwrap_or(u64::MAX)));
        table(TITLES, rows)
    }

    /// Returns the verdict in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let n = self.connections().len() as u64 - self.number("kernel_only");
        let waiting: u64 = self.0["listening"].as_array().map_or(0, |listening| {
            listening
                .iter()
                .filter_map(|row| row["backlog"].as_u64())
                .sum()
        });
        let source = self.0["source"].as_str().unwrap_or("?");
        let waiting = match waiting {
            0 => String::new(),
            n => format!(" {n} more wait in the kernel to be accepted."),
        };
        if self.agrees() {
            return format!("The set and the kernel agree: {n} open ({source}).{waiting}");
        }
        format!(
            "The set and the kernel do not agree: {} only in the set, {} only in the kernel, of {n} in the set ({source}).{waiting}",
            self.number("set_only"),
            self.number("kernel_only"),
        )
    }

    fn connections(&self) -> &[Value] {
        self.0["connections"].as_array().map_or(&[], Vec::as_slice)
    }

    fn number(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or(0)
    }
}

fn row(connection: &Value) -> [String; 8] {
    let text = |key: &str| connection[key].as_str().unwrap_or("-").to_owned();
    let differs = connection["differs"].as_bool().unwrap_or(false);
    let age = connection["age_seconds"].as_f64().map(age);
    [
        if differs { "!" } else { "" }.to_owned(),
        text("id"),
        text("peer"),
        text("entrypoint"),
        text("server"),
        age.unwrap_or_else(|| "-".to_owned()),
        text("state"),
        text("kernel"),
    ]
}

/// Formats an age in whole seconds, or in milliseconds below one second.
pub(super) fn age(seconds: f64) -> String {
    let age = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let age = match age.as_secs() {
        0 => Duration::from_millis(u64::from(age.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(age).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_marks_connections_that_only_one_side_has() {
        let audit = Audit(json!({
            "coracle": "0", "agree": false, "source": "proc", "set_only": 1, "kernel_only": 1,
            "listening": [{ "backlog": 2 }, { "backlog": null }],
            "connections": [
                { "id": "12", "peer": "10.0.0.1:5", "entrypoint": "a", "server": "b:1", "age_seconds": 61.2,
                  "state": "relaying", "kernel": "established", "differs": false },
                { "id": "3", "peer": "10.0.0.1:6", "entrypoint": "a", "server": null, "age_seconds": 0.25,
                  "state": "dialling", "kernel": null, "differs": true },
                { "id": null, "peer": "10.0.0.1:7", "entrypoint": "a", "server": null, "age_seconds": null,
                  "state": null, "kernel": "close-wait", "differs": true },
            ],
        }));
        let expected = [
            "   ID  PEER        ENTRYPOINT  SERVER  AGE    SET       KERNEL",
            "!  3   10.0.0.1:6  a           -       250ms  dialling  -",
            "   12  10.0.0.1:5  a           b:1     1m 1s  relaying  established",
            "!  -   10.0.0.1:7  a           -       -      -         close-wait",
        ];
        assert_eq!(audit.table().lines().collect::<Vec<_>>(), expected);
        assert_eq!(
            audit.sentence(),
            "The set and the kernel do not agree: 1 only in the set, 1 only in the kernel, of 2 in the set (proc). \
             2 more wait in the kernel to be accepted."
        );
    }
}
