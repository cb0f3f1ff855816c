//! The page at `/`: the state as plain tables, which its script keeps up to date.
//!
//! The script reads the API, so the page shows nothing that the API does not.

use std::fmt::{self, Display, Formatter, Write};

use smol::future::yield_now;

use super::body::Body;
use super::texts;
use crate::state::{AdminState, Entries, EntrypointNumbers, Snapshot};

/// The page may load nothing, and talk to nobody but the endpoint that it came from.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                                 img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                 frame-ancestors 'none'";

/// The cells with the plots and rates of the last hour, which the script fills.
const PAST: &str = "<td class=plot><td><td><td class=plot>";
/// Their heads.
const PAST_HEADS: &str = "<th class=plot>Last hour<th class='number rate'>To server<th class='number rate'>To client<th class=plot>Last hour";
/// How many connections the page shows without its script.
const CONNECTIONS: usize = 50;
/// After this many rows, other work of the thread gets its turn.
const PIECE: usize = 32;

/// Writes the page with the state in its tables, or with empty tables.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(super) async fn write(body: &mut Body, state: Option<&(Snapshot, Entries)>) -> fmt::Result {
    let texts = texts::page();
    let mut texts = texts.split('\0');
    let mut part = || texts.next().unwrap_or_default();
    let (mut rest, style, script) = (part(), part(), part());
    while let Some((before, after)) = rest.split_once('{') {
        body.write_str(before)?;
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        rest = after;
        match (name, state) {
            ("page.css", _) => body.write_str(style)?,
            ("script", _) => body.write_str(script)?,
            ("past", _) => body.write_str(PAST_HEADS)?,
            ("version", _) => body.write_str(env!("CARGO_PKG_VERSION"))?,
            ("open", Some((snapshot, _))) => {
                let open: u64 = snapshot.entrypoints.iter().map(|it| it.open).sum();
                write!(body, "{open}")?;
            }
            ("entrypoints", Some((snapshot, _))) => write_entrypoints(body, snapshot).await?,
            ("services", Some((snapshot, _))) => write_services(body, snapshot).await?,
            ("servers", Some((snapshot, _))) => write_servers(body, snapshot).await?,
            ("connections", Some((_, entries))) => write_connections(body, entries)?,
            ("open", None) => body.write_str("–")?,
            ("entrypoints" | "services" | "servers" | "connections", None) => {}
            _ => write!(body, "{{{name}}}")?,
        }
    }
    body.write_str(rest)
}

async fn write_entrypoints(body: &mut Body, snapshot: &Snapshot) -> fmt::Result {
    let mut entrypoints: Vec<_> = snapshot.entrypoints.iter().collect();
    entrypoints.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
    for (n, it) in entrypoints.into_iter().enumerate() {
        let listening = it.listens_on().join(", ");
        let (name, listening) = (Html(&it.identity.name), Html(listening));
        let service = Html(services(it));
        let (open, refused) = (Full(it.open, it.limit.most), Refused(it.turned_away()));
        write!(
            body,
            "<tr><td>{name}<td class=number>{open}{PAST}<td>{listening}<td>{service}<td>{refused}"
        )?;
        pause(n).await;
    }
    Ok(())
}

/// Says where an entrypoint's connections go, and with rules, how many each has decided about.
fn services(it: &EntrypointNumbers) -> String {
    let routes = it.routes.iter();
    let routes: Vec<_> = routes
        .map(|it| format!("{} → {}: {}", it.label, it.service, it.connections))
        .collect();
    match (routes.is_empty(), &it.service) {
        (false, _) => routes.join(", "),
        (true, Some(service)) => service.to_string(),
        (true, None) => "removed".to_owned(),
    }
}

async fn write_services(body: &mut Body, snapshot: &Snapshot) -> fmt::Result {
    for (n, it) in snapshot.services.iter().enumerate() {
        write!(
            body,
            "<tr><td>{}<td class=number>{}{PAST}<td class=number>{}<td class=number>{}<td>{}",
            Html(&it.name),
            it.open,
            it.queued,
            it.counters.retries.value(),
            it.balance.word()
        )?;
        if let Some(outgoing) = it.outgoing.as_deref() {
            write!(body, ", {}", Html(outgoing))?;
        }
        pause(n).await;
    }
    Ok(())
}

async fn write_servers(body: &mut Body, snapshot: &Snapshot) -> fmt::Result {
    for (n, it) in snapshot.servers.iter().enumerate() {
        let (service, name) = (Html(&it.identity.service), Html(&it.identity.name));
        // The script shows the same, so that nothing moves when it begins.
        let why = it.why_down.as_deref().unwrap_or("no reason known");
        let state = Html(match (it.admin, it.is_up) {
            (AdminState::Drain, _) => "draining".to_owned(),
            (AdminState::Down, _) => "down by hand".to_owned(),
            (AdminState::Ready, false) => format!("down: {why}"),
            (AdminState::Ready, true) if it.share.is_backup => "up, backup".to_owned(),
            (AdminState::Ready, true) => "up".to_owned(),
        });
        let (weight, check) = (it.share.weight, it.last_check.as_ref());
        let errors: u64 = it.counters.connect_errors.iter().map(|(_, n)| n).sum();
        let check = Html(match check.map(|it| it.failure.as_deref()) {
            None => "none",
            Some(None) => "succeeded",
            Some(Some(failure)) => failure,
        });
        let open = Full(it.open, it.share.max_connections);
        write!(
            body,
            "<tr><td>{name}<td class=number>{open}<td>{state}{PAST}<td>{service}<td class=number>{weight}\
             <td class=number>{errors}<td>{check}"
        )?;
        pause(n).await;
    }
    Ok(())
}

/// The oldest connections.
fn write_connections(body: &mut Body, entries: &Entries) -> fmt::Result {
    let mut oldest: Vec<_> = entries.list.iter().collect();
    if oldest.len() > CONNECTIONS {
        oldest.select_nth_unstable_by_key(CONNECTIONS, |it| it.id);
        oldest.truncate(CONNECTIONS);
    }
    oldest.sort_unstable_by_key(|it| it.id);
    for it in oldest {
        let entrypoint = entries.entrypoint_name(it.entrypoint);
        let entrypoint = Html(match &it.route {
            None => entrypoint.to_owned(),
            Some(route) => format!("{entrypoint} (route {route})"),
        });
        let server = Html(it.server.map_or("", |id| entries.server_name(id)));
        let age = entries.at.saturating_duration_since(it.opened).as_secs();
        let peer = match it.socket_peer {
            None => it.peer.to_string(),
            Some(socket) => format!("{} via {socket}", it.peer),
        };
        let (to_server, to_client) = (it.to_server_bytes, it.to_client_bytes);
        write!(
            body,
            "<tr><td>{}<td>{server}<td class=number>{age} s<td class=number>{to_server} B<td>\
             <td class=number>{to_client} B<td><td>{}<td>{entrypoint}<td class=number>{}",
            Html(peer),
            it.phase,
            it.id
        )?;
    }
    Ok(())
}

async fn pause(n: usize) {
    if n % PIECE == PIECE - 1 {
        yield_now().await;
    }
}

/// Displays a number, and its limit if it has one.
struct Full(u64, Option<usize>);

impl Display for Full {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(most) => write!(f, "{} of {most}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Displays how many were turned away, and why, as the script does.
struct Refused(Vec<(&'static str, u64)>);

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let all: u64 = self.0.iter().map(|(_, n)| n).sum();
        write!(f, "{all}")?;
        let some = self.0.iter().filter(|(_, n)| *n > 0);
        some.enumerate().try_for_each(|(n, (reason, times))| {
            let before = if n == 0 { ": " } else { ", " };
            write!(f, "{before}{reason} {times}")
        })
    }
}

/// Displays text in HTML.
struct Html<T>(T);

impl<T: Display> Display for Html<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            _ => self.0.write_char(c),
        })
    }
}
