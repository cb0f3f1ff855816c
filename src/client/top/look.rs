//! One look at a running coracle: what is asked, and the answers with what follows from them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::client::contact::Contact;
use crate::client::get::{get, get_text};
use crate::client::metrics_text::{mismatch, sum};
use crate::client::request::Failure;

/// What a running coracle answered.
#[derive(Debug, Default)]
pub struct Look {
    pub(super) at: Option<Instant>,
    /// The answer about entrypoints, services and servers.
    pub(super) status: Value,
    /// The answer about connections.
    pub(super) page: Value,
    /// For how many seconds the process has run, by the clock of this machine.
    pub(super) uptime: Option<f64>,
    pub(super) opened: f64,
    pub(super) closed: f64,
    pub(super) open: f64,
    /// By how many connections the kernel's table and the set differ, if it can be read.
    pub(super) mismatch: Option<f64>,
}

/// The keys of the bytes to servers and to clients so far, and of those per second.
pub(super) const BYTES: [&str; 2] = ["to_server_bytes", "to_client_bytes"];
pub(super) const RATES: [&str; 2] = ["to_server_rate", "to_client_rate"];

/// The lists of what has bytes.
const LISTS: [&str; 4] = ["entrypoints", "services", "servers", "connections"];

/// What has bytes, and how many to servers and to clients.
pub(super) type Carried = (String, [f64; 2]);

impl Look {
    /// Asks the coracle at `contact`, and for the connections at `path` of its API. Each of three
    /// requests takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(contact: &Contact, path: &str) -> Result<Self, Failure> {
        let status = get(contact, "/api/v1/status")?;
        let metrics = get_text(contact, "/metrics")?;
        let page = get(contact, path)?;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock = clock.unwrap_or_default().as_secs_f64();
        Ok(Self::of(status, &metrics, page, Instant::now(), clock))
    }

    /// Reads the three answers. `clock` is in seconds since 1970.
    pub(super) fn of(status: Value, metrics: &str, page: Value, at: Instant, clock: f64) -> Self {
        let total = |name| sum(metrics, name).unwrap_or(0.0);
        let started = sum(metrics, "process_start_time_seconds");
        Self {
            at: Some(at),
            status,
            page,
            uptime: started.map(|started| (clock - started).max(0.0)),
            opened: total("coracle_connections_opened_total"),
            closed: total("coracle_connections_closed_total"),
            open: total("coracle_open_connections"),
            mismatch: mismatch(metrics),
        }
    }

    fn answer(&self, list: &str) -> &Value {
        match list {
            "connections" => &self.page,
            _ => &self.status,
        }
    }

    pub(super) fn entrypoints(&self) -> &[Value] {
        list(&self.status, "entrypoints")
    }

    pub(super) fn services(&self) -> &[Value] {
        list(&self.status, "services")
    }

    pub(super) fn servers(&self) -> &[Value] {
        list(&self.status, "servers")
    }

    pub(super) fn connections(&self) -> &[Value] {
        list(&self.page, "connections")
    }

    /// Returns how many connections fit the filter.
    pub(super) fn total(&self) -> usize {
        self.page["total"].as_u64().unwrap_or(0) as usize
    }

    /// Returns how many of them come before those here.
    pub(super) fn offset(&self) -> usize {
        self.page["offset"].as_u64().unwrap_or(0) as usize
    }

    /// Returns what has bytes, and last the sum of all entrypoints.
    pub(super) fn carried(&self) -> Vec<Carried> {
        let mut all = Vec::new();
        for name in LISTS {
            let own = list(self.answer(name), name).iter();
            all.extend(own.map(|it| (key(name, it), bytes(it))));
        }
        let mut sum = [0.0; 2];
        for it in self.entrypoints() {
            let own = bytes(it);
            sum = [sum[0] + own[0], sum[1] + own[1]];
        }
        all.push((String::new(), sum));
        all
    }

    /// Adds the bytes per second since `before`, which was `seconds` ago.
    pub(super) fn add_rates(&mut self, before: &[Carried], seconds: f64) {
        for name in LISTS {
            let answer = match name {
                "connections" => &mut self.page,
                _ => &mut self.status,
            };
            for it in list_mut(answer, name) {
                let rates = rates(before, &key(name, it), bytes(it), seconds);
                if let Some(rates) = rates.filter(|_| it[BYTES[0]].is_number()) {
                    it[RATES[0]] = rates[0].into();
                    it[RATES[1]] = rates[1].into();
                }
            }
        }
    }
}

/// Returns the bytes per second since `before`, unless there are fewer bytes now.
pub(super) fn rates(
    before: &[Carried],
    key: &str,
    now: [f64; 2],
    seconds: f64,
) -> Option<[f64; 2]> {
    let (_, before) = before.iter().find(|(own, _)| own == key)?;
    let rates = [now[0] - before[0], now[1] - before[1]];
    (rates[0] >= 0.0 && rates[1] >= 0.0).then(|| rates.map(|it| it / seconds))
}

fn list<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

fn list_mut<'v>(answer: &'v mut Value, name: &str) -> &'v mut [Value] {
    let list = answer.get_mut(name).and_then(Value::as_array_mut);
    list.map_or(&mut [], Vec::as_mut_slice)
}

/// Returns what distinguishes an object of a list from all others, in other lists too.
fn key(list: &str, it: &Value) -> String {
    let [id, service, name] =
        ["id", "service", "name"].map(|key| it[key].as_str().unwrap_or_default());
    [list, id, service, name].join("\n")
}

fn bytes(it: &Value) -> [f64; 2] {
    BYTES.map(|key| it[key].as_f64().unwrap_or(0.0))
}
