//! The set beside the kernel's table, connection by connection, as JSON.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_io::Timer;
use serde_json::{Value, json};

use super::kernel::{Kernel, entrypoint_of};
use crate::state::{Conn, ConnId, Peer, Phase, Shared};
use crate::sys::sockets::{Accepted, Name, Table};

/// A difference must show in this many readings in a row.
const READINGS: u32 = 3;
/// The time from one of them to the next.
const BETWEEN_READINGS: Duration = Duration::from_millis(100);

/// Compares until both agree, or what is left of the differences has lasted.
///
/// An entry counts as missing in the kernel if it was in the set both before and after the kernel's table was read and has no
/// socket in it; a socket counts as missing in the set if it belongs to no entry of either moment.
pub async fn audit(shared: &Shared, kernel: &Kernel) -> Value {
    let mut lasting: Option<Differences> = None;
    for reading in 1..=READINGS {
        let before = entries(shared);
        let Some((source, table, took)) = kernel.read(shared, reading > 1).await else {
            return json!({ "coracle": env!("CARGO_PKG_VERSION"), "error":
                "the kernel's table of sockets cannot be read: neither sock_diag nor /proc is to be had" });
        };
        let comparison = Comparison::new(shared, &before, &table);
        let found = match &lasting {
            Some(earlier) => comparison.differences.shared_with(earlier),
            None => comparison.differences.clone(),
        };
        let is_last = found.is_empty() || reading == READINGS;
        lasting = Some(found);
        if is_last {
            let differences = lasting.unwrap_or_default();
            return report(
                shared,
                &comparison,
                &differences,
                &table,
                source.to_string(),
                took,
            );
        }
        Timer::after(BETWEEN_READINGS).await;
    }
    Value::Null
}

/// What ties an entry to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    entrypoint: usize,
    /// The client's address; Unix clients have none, and are told from each other by their number alone.
    peer: Option<SocketAddr>,
}

fn key(conn: &Conn) -> Key {
    Key {
        entrypoint: conn.entrypoint.index,
        peer: match conn.peer {
            Peer::Tcp(address) => {
                Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            Peer::Unix => None,
        },
    }
}

fn entries(shared: &Shared) -> HashMap<ConnId, Key> {
    let mut entries = HashMap::with_capacity(shared.conns.len());
    shared.conns.for_each(|conn| {
        entries.insert(conn.id, key(conn));
    });
    entries
}

/// What is in one only.
#[derive(Clone, Debug, Default)]
struct Differences {
    /// Entries without a socket.
    set_only: BTreeSet<ConnId>,
    /// Inodes of sockets without an entry.
    kernel_only: BTreeSet<u64>,
}

impl Differences {
    fn is_empty(&self) -> bool {
        self.set_only.is_empty() && self.kernel_only.is_empty()
    }

    fn shared_with(&self, earlier: &Self) -> Self {
        Self {
            set_only: &self.set_only & &earlier.set_only,
            kernel_only: &self.kernel_only & &earlier.kernel_only,
        }
    }
}

/// One reading of the kernel's table, matched with the entries around it.
struct Comparison {
    /// The state in the kernel of each entry that has a socket.
    states: HashMap<ConnId, String>,
    differences: Differences,
}

impl Comparison {
    fn new(shared: &Shared, before: &HashMap<ConnId, Key>, table: &Table) -> Self {
        let mut sockets: HashMap<Key, Vec<&Accepted>> = HashMap::new();
        for row in &table.accepted {
            if let Some(entrypoint) = entrypoint_of(shared, &row.local) {
                let peer = row.peer;
                sockets
                    .entry(Key { entrypoint, peer })
                    .or_default()
                    .push(row);
            }
        }
        let mut states = HashMap::new();
        let mut set_only = BTreeSet::new();
        let after = entries(shared);
        // Those that lasted come first: they must have a socket, the others may.
        let (lasted, came): (Vec<_>, Vec<_>) =
            after.iter().partition(|(id, _)| before.contains_key(id));
        for (id, key) in lasted.into_iter().chain(came) {
            match sockets.get_mut(key).and_then(Vec::pop) {
                Some(row) => drop(states.insert(*id, row.state.to_string())),
                None if before.contains_key(id) => drop(set_only.insert(*id)),
                None => {}
            }
        }
        // And the sockets of those that went while the table was read.
        for (_, key) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
            sockets.get_mut(key).and_then(Vec::pop);
        }
        let kernel_only = sockets
            .into_values()
            .flatten()
            .map(|row| row.inode)
            .collect();
        Self {
            states,
            differences: Differences {
                set_only,
                kernel_only,
            },
        }
    }
}

fn report(
    shared: &Shared,
    comparison: &Comparison,
    differences: &Differences,
    table: &Table,
    source: String,
    took: Duration,
) -> Value {
    let now = Instant::now();
    let mut connections = Vec::with_capacity(shared.conns.len());
    shared.conns.for_each(|conn| {
        connections.push(json!({
            "id": conn.id.to_string(),
            "peer": conn.peer.to_string(),
            "entrypoint": conn.entrypoint.name,
            "server": conn.server().map(|id| &conn.service.server(id).name),
            "age_seconds": now.saturating_duration_since(conn.opened).as_secs_f64(),
            "set": phase(conn.phase()),
            "kernel": comparison.states.get(&conn.id),
            "differs": differences.set_only.contains(&conn.id),
        }));
    });
    for row in table
        .accepted
        .iter()
        .filter(|row| differences.kernel_only.contains(&row.inode))
    {
        let entrypoint =
            entrypoint_of(shared, &row.local).map(|index| &shared.entrypoints[index].name);
        let peer = row
            .peer
            .map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
        connections.push(json!({
            "id": null, "peer": peer, "entrypoint": entrypoint, "server": null, "age_seconds": null,
            "set": null, "kernel": row.state.to_string(), "differs": true,
        }));
    }
    json!({
        "coracle": env!("CARGO_PKG_VERSION"),
        "agree": differences.is_empty(),
        "source": source,
        "reading_seconds": took.as_secs_f64(),
        "set_only": differences.set_only.len(),
        "kernel_only": differences.kernel_only.len(),
        "listening": listening(shared, table),
        "connections": connections,
    })
}

fn listening(shared: &Shared, table: &Table) -> Vec<Value> {
    let rows = table.listening.iter().filter_map(|row| {
        let entrypoint = &shared.entrypoints[entrypoint_of(shared, &row.local)?].name;
        let address = match &row.local {
            Name::Tcp(address) => address.to_string(),
            Name::Unix(path) => format!("unix:{}", path.display()),
        };
        Some(json!({ "entrypoint": entrypoint, "address": address, "backlog": row.backlog }))
    });
    rows.collect()
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Dialling => "dialling",
        Phase::Relaying => "relaying",
        Phase::HalfClosed => "half-closed",
    }
}
