//! `coracle audit`: asks a running coracle for its set and the kernel's socket table, and formats
//! both for people.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::request::{self, Failure};
use super::table::table;
use crate::config::{AdminEndpoint, printable};

/// How long the running program may take to answer. It compares several times before it reports a
/// difference.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The server must know the name in this header. It always knows `localhost`, but may not know the
/// name by which it was reached.
const REQUEST: &str = "GET /audit HTTP/1.0\r\nHost: localhost\r\n\r\n";

/// One comparison of the set with the kernel's table, made by the running program.
#[derive(Debug)]
pub struct Audit(Value);

impl Audit {
    /// Asks the coracle whose admin endpoint is at `admin`. This takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, or another program does.
    pub fn ask(admin: &AdminEndpoint) -> Result<Self, Failure> {
        fetch(admin).map(Self)
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

/// Gets the response of `/audit` at `admin`.
///
/// # Errors
/// If nothing answers there, or another program does.
pub(super) fn fetch(admin: &AdminEndpoint) -> Result<Value, Failure> {
    let request = REQUEST.as_bytes().to_vec();
    let answer = request::exchange(admin, request, TIMEOUT);
    let answer = answer.map_err(|error| Failure(explain(admin, &error)))?;
    let stranger = || {
        Failure(format!(
            "the program that listens at {admin} is not coracle, or is an older version; `ss -ltnp` shows its name; give the address of coracle's admin endpoint with --admin ADDRESS"
        ))
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(stranger)?;
    let Ok(value) = serde_json::from_str::<Value>(body) else {
        return Err(refusal(admin, head, body).unwrap_or_else(stranger));
    };
    if value["coracle"].as_str().is_none() {
        return Err(stranger());
    }
    match value["error"].as_str() {
        Some(error) => Err(Failure(error.to_owned())),
        None => Ok(value),
    }
}

/// Says why there was no answer, and what to do.
fn explain(admin: &AdminEndpoint, error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
    match error.kind() {
        ConnectionRefused | NotFound => format!(
            "no coracle is running at {admin}: nothing listens there; start one, or give the address of its admin endpoint with --admin ADDRESS"
        ),
        TimedOut => format!(
            "the program that listens at {admin} does not answer within {} s; give the address of coracle's admin endpoint with --admin ADDRESS",
            TIMEOUT.as_secs()
        ),
        PermissionDenied => {
            format!(
                "cannot connect to {admin}: permission denied; use sudo, or join the group of that file"
            )
        }
        _ => format!("cannot ask {admin}: {error}"),
    }
}

/// Returns what coracle responds instead of an audit: that it does not answer to this host's name,
/// or not now.
fn refusal(admin: &AdminEndpoint, head: &str, body: &str) -> Option<Failure> {
    let (_, status) = head.lines().next()?.split_once(' ')?;
    let is_refusal = ["421", "429", "503"]
        .iter()
        .any(|code| status.starts_with(code));
    let why = printable(body.lines().next().unwrap_or_default());
    is_refusal.then(|| Failure(format!("{admin} answers {}: {why}", printable(status))))
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
        text("set"),
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
                  "set": "relaying", "kernel": "established", "differs": false },
                { "id": "3", "peer": "10.0.0.1:6", "entrypoint": "a", "server": null, "age_seconds": 0.25,
                  "set": "dialling", "kernel": null, "differs": true },
                { "id": null, "peer": "10.0.0.1:7", "entrypoint": "a", "server": null, "age_seconds": null,
                  "set": null, "kernel": "close-wait", "differs": true },
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
