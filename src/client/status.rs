//! `coracle status`: asks a running coracle for its entrypoints, services and servers, and formats
//! them for people.

use serde_json::Value;

use super::audit_answer::age;
use super::contact::Contact;
use super::get::{get, get_text};
use super::metrics_text::mismatch;
use super::request::Failure;
use super::table::table;
use super::turned_away::refused;
use crate::config::printable;

/// The entrypoints, services and servers of a running coracle, at one moment.
#[derive(Debug)]
pub struct Status {
    answer: Value,
    /// By how many connections the set and the kernel differ, if the kernel's table can be read.
    mismatch: Option<f64>,
    log_level: String,
}

impl Status {
    /// Asks the coracle at `contact`. Each of three requests takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(contact: &Contact) -> Result<Self, Failure> {
        let answer = get(contact, "/api/v1/status")?;
        let metrics = get_text(contact, "/metrics")?;
        let logs = get(contact, "/api/v1/logs?limit=1")?;
        Ok(Self {
            answer,
            mismatch: mismatch(&metrics),
            log_level: cell(&logs["level"]),
        })
    }

    /// Returns the answer as received, in JSON.
    #[must_use]
    pub fn json(&self) -> String {
        self.answer.to_string()
    }

    /// Formats a line about all, and three tables, sorted by name.
    #[must_use]
    pub fn tables(&self) -> String {
        let list = |key: &str| self.answer[key].as_array().map_or(&[][..], Vec::as_slice);
        let rows = |key: &str| list(key).iter();
        let open: u64 = rows("entrypoints")
            .filter_map(|it| it["open"].as_u64())
            .sum();
        let agreement = match self.mismatch {
            None => "the kernel's table cannot be read".to_owned(),
            Some(0.0) => "the kernel agrees".to_owned(),
            Some(n) => format!("the kernel's count differs by {n}; see coracle audit"),
        };
        let version = cell(&self.answer["coracle"]);
        let entrypoints = table(
            [
                "ENTRYPOINT",
                "LISTENS ON",
                "SERVICE",
                "OPEN",
                "LIMIT",
                "REFUSED",
            ],
            rows("entrypoints").map(entrypoint).collect(),
        );
        let routes: Vec<_> = rows("entrypoints").flat_map(routes).collect();
        let routes = match routes.is_empty() {
            true => String::new(),
            false => {
                const TITLES: [&str; 4] = ["ENTRYPOINT", "ROUTE", "SERVICE", "CONNECTIONS"];
                format!("\n{}", table(TITLES, routes))
            }
        };
        let services = table(
            ["SERVICE", "BALANCE", "QUEUED", "RETRIES"],
            rows("services").map(service).collect(),
        );
        let servers = table(
            [
                "SERVICE",
                "SERVER",
                "OPEN",
                "DIALLING",
                "LIMIT",
                "WEIGHT",
                "ERRORS",
                "LAST CHECK",
                "SINCE",
                "STATE",
            ],
            rows("servers").map(server).collect(),
        );
        let accounting = match &self.answer["accounting"] {
            Value::Object(_) => {
                const TITLES: [&str; 4] = ["CLIENTS", "AT MOST", "FORGOTTEN", "OVER QUOTA"];
                const KEYS: [&str; 4] = ["clients", "clients_at_most", "forgotten", "over_quota"];
                let row = KEYS.map(|key| cell(&self.answer["accounting"][key]));
                format!("\n{}", table(TITLES, vec![row]))
            }
            _ => String::new(),
        };
        format!(
            "coracle {version}: {open} open, {agreement}, log level {}\n\n{entrypoints}{routes}\n{services}\n{servers}{accounting}",
            self.log_level
        )
        .trim_end()
        .to_owned()
    }
}

fn entrypoint(it: &Value) -> [String; 6] {
    let listening = it["listening"].as_array().map_or(&[][..], Vec::as_slice);
    let listening: Vec<_> = listening.iter().map(cell).collect();
    [
        cell(&it["name"]),
        match listening.is_empty() {
            true => "-".to_owned(),
            false => listening.join(", "),
        },
        cell(&it["service"]),
        cell(&it["open"]),
        cell(&it["max_connections"]),
        refused(it),
    ]
}

/// Formats where an entrypoint's rules lead.
fn routes(it: &Value) -> Vec<[String; 4]> {
    let routes = it["routes"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |route: &Value| {
        let [label, service, connections] =
            ["route", "service", "connections"].map(|key| cell(&route[key]));
        [cell(&it["name"]), label, service, connections]
    };
    routes.iter().map(row).collect()
}

fn service(it: &Value) -> [String; 4] {
    let mut row = ["name", "balance", "queued", "retries"].map(|key| cell(&it[key]));
    if it["outgoing"].is_string() {
        row[1] += &format!(", {}", cell(&it["outgoing"]));
    }
    row
}

fn server(it: &Value) -> [String; 10] {
    let backup = match it["backup"].as_bool() {
        Some(true) => ", backup",
        _ => "",
    };
    let check = &it["last_check"];
    let took = check["seconds"].as_f64();
    let took = took.map(|seconds| match seconds < 0.001 {
        true => "<1ms".to_owned(),
        false => age(seconds),
    });
    let last_check = match (check["succeeded"].as_bool(), took) {
        (Some(true), Some(took)) => format!("good, {took}"),
        (Some(false), Some(took)) => format!("failed, {took}"),
        _ => "-".to_owned(),
    };
    let since = it["state_seconds"].as_f64().map(age);
    [
        cell(&it["service"]),
        cell(&it["name"]),
        cell(&it["open"]),
        cell(&it["dialling"]),
        cell(&it["max_connections"]),
        cell(&it["weight"]) + backup,
        cell(&it["connect_errors"]),
        last_check,
        since.unwrap_or_else(|| "-".to_owned()),
        state(it),
    ]
}

/// Says whether a server gets connections, and if it is down, why.
fn state(server: &Value) -> String {
    let down = server["why_down"].as_str();
    let down = down.map(|why| format!("down: {}", printable(why)));
    match (server["admin"].as_str(), down) {
        (Some("drain"), None) => "drain".to_owned(),
        (Some("drain"), Some(down)) => format!("drain, {down}"),
        (_, Some(down)) => down,
        (_, None) => "up".to_owned(),
    }
}

/// Formats a text, a number, or nothing.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_in_words() {
        let server = |name: &str, admin: &str, why: Value| {
            json!({ "service": "web", "name": name, "up": why.is_null(), "admin": admin, "why_down": why,
                "state_seconds": 61.2, "weight": 1, "backup": false, "max_connections": null, "open": 3,
                "dialling": 0, "connect_errors": 0, "last_check": null })
        };
        let mut first = server("a", "ready", Value::Null);
        first["backup"] = true.into();
        first["state_seconds"] = Value::Null;
        first["last_check"] = json!({ "succeeded": true, "seconds": 0.0124 });
        let answer = json!({
            "coracle": "0.1.0",
            "entrypoints": [
                { "name": "web", "listening": ["127.0.0.1:80", "[::1]:80"], "service": "web", "open": 12,
                  "max_connections": 100, "refused": 7,
                  "refused_by": { "denied": 5, "limit": 0, "rate": 2 } },
                { "name": "gone", "listening": [], "service": null, "open": 1, "max_connections": null,
                  "refused": 0, "refused_by": { "denied": 0 } },
            ],
            "services": [{ "name": "web", "balance": "round_robin", "queued": 0, "retries": 7 }],
            "servers": [
                first,
                server("b", "drain", Value::Null),
                server("c", "drain", "3 connections in a row failed: \u{1b}".into()),
                server("d", "down", "ordered by an operator".into()),
            ],
        });
        let status = Status {
            answer,
            mismatch: Some(0.0),
            log_level: "info".to_owned(),
        };
        let expected = [
            "coracle 0.1.0: 13 open, the kernel agrees, log level info",
            "",
            "ENTRYPOINT  LISTENS ON              SERVICE  OPEN  LIMIT  REFUSED",
            "web         127.0.0.1:80, [::1]:80  web      12    100    7: denied 5, rate 2",
            "gone        -                       -        1     -      0",
            "",
            "SERVICE  BALANCE      QUEUED  RETRIES",
            "web      round_robin  0       7",
            "",
            "SERVICE  SERVER  OPEN  DIALLING  LIMIT  WEIGHT     ERRORS  LAST CHECK  SINCE  STATE",
            "web      a       3     0         -      1, backup  0       good, 12ms  -      up",
            "web      b       3     0         -      1          0       -           1m 1s  drain",
            "web      c       3     0         -      1          0       -           1m 1s  drain, down: 3 connections in a row failed: \\u{1b}",
            "web      d       3     0         -      1          0       -           1m 1s  down: ordered by an operator",
        ];
        assert_eq!(status.tables().lines().collect::<Vec<_>>(), expected);
    }
}
