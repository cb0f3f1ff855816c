//! What has changed between two copies of the state, as server-sent events. No I/O.

use std::fmt::{self, Display, Write};
use std::sync::Arc;
use std::time::Instant;

use super::logs::write_line;
use super::status::{write_entrypoint, write_server};
use crate::admin::json::{Json, OrNull, Separator};
use crate::state::{EntrypointNumbers, LogLine, ServerNumbers, Snapshot};

/// The events that a reader begins with: from here on, it gets everything that changes.
///
/// # Errors
/// Never fails: writing to a string cannot fail.
pub(super) fn hello(now: &Snapshot) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let version = Json(env!("CARGO_PKG_VERSION"));
    // How long a browser waits before it connects again.
    writeln!(out, "retry: 2000")?;
    event(&mut out, "hello", format_args!("{{\"coracle\":{version}}}"))?;
    totals(&mut out, now)?;
    Ok(out)
}

/// The events that lead from one copy of the state to a later one.
///
/// # Errors
/// Never fails: writing to a string cannot fail.
pub(super) fn changes(
    before: &Snapshot,
    after: &Snapshot,
    now: Instant,
) -> Result<String, fmt::Error> {
    let mut out = String::new();
    loads(&mut out, before, after)?;
    for it in &after.entrypoints {
        let id = |other: &&EntrypointNumbers| other.identity.id == it.identity.id;
        let same = before.entrypoints.iter().find(id);
        if same.is_none_or(|same| is_different(same, it)) {
            let mut json = String::new();
            write_entrypoint(&mut json, it)?;
            event(&mut out, "entrypoint", json)?;
        }
    }
    for it in &before.entrypoints {
        let id = |other: &EntrypointNumbers| other.identity.id == it.identity.id;
        if !after.entrypoints.iter().any(id) {
            let name = Json(&it.identity.name);
            event(
                &mut out,
                "entrypoint_gone",
                format_args!("{{\"name\":{name}}}"),
            )?;
        }
    }
    servers(&mut out, &before.servers, &after.servers, now)?;
    if before.connections != after.connections {
        totals(&mut out, after)?;
    }
    Ok(out)
}

/// Servers are sorted by name in each copy, and by their identity here: there may be thousands.
fn servers(
    out: &mut String,
    before: &[ServerNumbers],
    after: &[ServerNumbers],
    now: Instant,
) -> fmt::Result {
    let sorted = |servers: &[ServerNumbers]| {
        let mut ids: Vec<_> = (0..servers.len()).collect();
        ids.sort_unstable_by_key(|at| servers[*at].identity.id);
        ids
    };
    let (old, new) = (sorted(before), sorted(after));
    let find = |ids: &[usize], servers: &[ServerNumbers], it: &ServerNumbers| {
        let found = ids.binary_search_by_key(&it.identity.id, |at| servers[*at].identity.id);
        found.ok().map(|at| ids[at])
    };
    for it in after {
        // `since` also shows that it went down and came up in between.
        let state = |it: &ServerNumbers| (it.is_up, it.admin, it.since);
        let same = find(&old, before, it).map(|at| &before[at]);
        if same.is_none_or(|same| state(same) != state(it)) {
            let mut json = String::new();
            write_server(&mut json, it, now)?;
            event(out, "server", json)?;
        }
    }
    for it in before {
        if find(&new, after, it).is_none() {
            let (service, name) = (Json(&it.identity.service), Json(&it.identity.name));
            let json = format!("{{\"service\":{service},\"name\":{name}}}");
            event(out, "server_gone", json)?;
        }
    }
    Ok(())
}

fn is_different(before: &EntrypointNumbers, after: &EntrypointNumbers) -> bool {
    before.listening != after.listening
        || before.service != after.service
        || leads(before).ne(leads(after))
        || before.limit != after.limit
}

/// Where an entrypoint's rules lead.
fn leads(it: &EntrypointNumbers) -> impl Iterator<Item = (&str, &str)> {
    it.routes.iter().map(|it| (&*it.label, &*it.service))
}

fn loads(out: &mut String, before: &Snapshot, after: &Snapshot) -> fmt::Result {
    let (before, after) = (&before.config_loads, &after.config_loads);
    let succeeded = (after.count() > before.count()).then_some(true);
    let failed = (after.failures() > before.failures()).then_some(false);
    // The last one comes last.
    let mut both = [succeeded, failed];
    if after.is_last_good() {
        both.reverse();
    }
    for succeeded in both.into_iter().flatten() {
        let text = match succeeded {
            true => after.changes(),
            false => after.reason(),
        };
        let reason = OrNull((!succeeded).then_some(Json(&text)));
        let mut json = format!("{{\"succeeded\":{succeeded},\"reason\":{reason},\"changes\":[");
        let mut comma = Separator::default();
        for change in text.lines().filter(|_| succeeded) {
            write!(json, "{comma}{}", Json(change))?;
            comma.next();
        }
        event(out, "reload", json + "]}")?;
    }
    Ok(())
}

/// Adds the events for these log lines.
///
/// # Errors
/// Never fails: writing to a string cannot fail.
pub(super) fn log(out: &mut String, lines: &[Arc<LogLine>]) -> fmt::Result {
    for line in lines {
        let mut json = String::new();
        write_line(&mut json, line)?;
        event(out, "log", json)?;
    }
    Ok(())
}

fn totals(out: &mut String, now: &Snapshot) -> fmt::Result {
    let (opened, open) = (now.connections.opened, now.connections.open);
    let closed = opened - open;
    let json = format!("{{\"open\":{open},\"opened\":{opened},\"closed\":{closed}}}");
    event(out, "connections", json)
}

/// Adds one event. JSON has no line breaks.
fn event(out: &mut String, name: &str, json: impl Display) -> fmt::Result {
    write!(out, "event: {name}\ndata: {json}\n\n")
}
