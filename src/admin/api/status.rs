//! The entrypoints, services and servers at one moment, in JSON.

use std::fmt::{self, Display, Formatter, Write};
use std::time::Instant;

use log::LevelFilter;
use smol::future::yield_now;

use super::logs::name;
use crate::admin::body::Body;
use crate::admin::json::{Json, OrNull, Separator};
use crate::state::{
    AccountSize, ConnectError, EntrypointNumbers, LastCheck, ServerNumbers, ServiceNumbers,
    Snapshot,
};

/// After this many lines, other work of the thread gets its turn.
const PIECE: usize = 32;

/// What an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    Entrypoints,
    Services,
    Servers,
}

/// Writes this part of the status, and in all of it the level that is logged. Ages are up to `now`.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(crate) async fn write(
    body: &mut Body,
    part: Part,
    snapshot: &Snapshot,
    level: LevelFilter,
    now: Instant,
) -> fmt::Result {
    let has = |own: Part| part == Part::All || part == own;
    write!(body, "{{\"coracle\":{}", Json(env!("CARGO_PKG_VERSION")))?;
    if part == Part::All {
        write!(body, ",\"log_level\":\"{}\"", name(level))?;
    }
    if has(Part::Entrypoints) {
        body.write_str(",\"entrypoints\":[")?;
        let mut entrypoints: Vec<_> = snapshot.entrypoints.iter().collect();
        entrypoints.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
        each(body, entrypoints, write_entrypoint).await?;
    }
    if has(Part::Services) {
        body.write_str(",\"services\":[")?;
        each(body, &snapshot.services, write_service).await?;
    }
    if has(Part::Servers) {
        body.write_str(",\"servers\":[")?;
        let write = |body: &mut Body, server: &ServerNumbers| write_server(body, server, now);
        each(body, &snapshot.servers, write).await?;
    }
    if part == Part::All {
        body.write_str(",\"accounting\":")?;
        match snapshot.accounts {
            None => body.write_str("null")?,
            Some(AccountSize {
                clients,
                most,
                forgotten,
                over,
            }) => write!(
                body,
                "{{\"clients\":{clients},\"clients_at_most\":{most},\"forgotten\":{forgotten},\"over_quota\":{over}}}"
            )?,
        }
    }
    body.write_str("}")
}

/// Writes the elements of a list and its end.
async fn each<T>(
    body: &mut Body,
    all: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Body, T) -> fmt::Result,
) -> fmt::Result {
    let mut comma = Separator::default();
    for (n, it) in all.into_iter().enumerate() {
        write!(body, "{comma}")?;
        comma.next();
        write(body, it)?;
        if n % PIECE == PIECE - 1 {
            yield_now().await;
        }
    }
    body.write_str("]")
}

pub(super) fn write_entrypoint(body: &mut impl Write, it: &EntrypointNumbers) -> fmt::Result {
    let name = Json(&it.identity.name);
    write!(body, "{{\"name\":{name},\"listening\":[")?;
    let mut comma = Separator::default();
    for listens in it.listens_on() {
        write!(body, "{comma}{}", Json(&listens))?;
        comma.next();
    }
    let service = OrNull(it.service.as_deref().map(Json));
    let (open, most) = (it.open, OrNull(it.limit.most));
    let (refused_by, bytes) = (it.turned_away(), Bytes(it.counters.bytes.both()));
    let refused: u64 = refused_by.iter().map(|(_, n)| n).sum();
    write!(
        body,
        "],\"service\":{service},\"open\":{open},\"max_connections\":{most},{bytes},\"refused\":{refused},\"refused_by\":{{"
    )?;
    let mut comma = Separator::default();
    for (reason, n) in refused_by {
        write!(body, "{comma}\"{reason}\":{n}")?;
        comma.next();
    }
    body.write_str("},\"bandwidth_limited_seconds\":{")?;
    let mut comma = Separator::default();
    for (limit, nanos) in it.counters.limited.iter() {
        write!(body, "{comma}\"{limit}\":{}", nanos as f64 / 1e9)?;
        comma.next();
    }
    body.write_str("},\"routes\":[")?;
    let mut comma = Separator::default();
    for route in &it.routes {
        let (label, service) = (Json(&route.label), Json(&route.service));
        let n = route.connections;
        write!(
            body,
            "{comma}{{\"route\":{label},\"service\":{service},\"connections\":{n}}}"
        )?;
        comma.next();
    }
    body.write_str("]}")
}

fn write_service(body: &mut impl Write, it: &ServiceNumbers) -> fmt::Result {
    let (name, balance) = (Json(&it.name), it.balance.word());
    let (open, queued, bytes) = (it.open, it.queued, Bytes(it.passed.bytes));
    let retries = it.counters.retries.value();
    let outgoing = OrNull(it.outgoing.as_deref().map(Json));
    write!(
        body,
        "{{\"name\":{name},\"balance\":\"{balance}\",\"outgoing\":{outgoing},\"open\":{open},\"queued\":{queued},\"retries\":{retries},{bytes}}}"
    )
}

/// Bytes to servers and to clients.
struct Bytes([u64; 2]);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [to_server, to_client] = self.0;
        write!(
            f,
            "\"to_server_bytes\":{to_server},\"to_client_bytes\":{to_client}"
        )
    }
}

pub(super) fn write_server(body: &mut impl Write, it: &ServerNumbers, now: Instant) -> fmt::Result {
    let (service, name) = (Json(&it.identity.service), Json(&it.identity.name));
    let (up, admin) = (it.is_up, it.admin);
    let why = OrNull(it.why_down.as_deref().map(Json));
    let age = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
    let since = OrNull(it.since.map(age));
    let (weight, backup) = (it.share.weight, it.share.is_backup);
    let most = OrNull(it.share.max_connections);
    let (open, dialling) = (it.open, it.dialling);
    let bytes = Bytes(it.counters.bytes.both());
    let errors: u64 = it
        .counters
        .connect_errors
        .iter()
        .map(|(_, n): (ConnectError, u64)| n)
        .sum();
    write!(
        body,
        "{{\"service\":{service},\"name\":{name},\"up\":{up},\"admin\":\"{admin}\",\"why_down\":{why},\
         \"state_seconds\":{since},\"weight\":{weight},\"backup\":{backup},\"max_connections\":{most},\
         \"open\":{open},\"dialling\":{dialling},\"connect_errors\":{errors},{bytes},\"last_check\":"
    )?;
    match &it.last_check {
        None => body.write_str("null}"),
        Some(LastCheck {
            failure,
            took,
            ended,
        }) => {
            let (is_good, took, ago) = (failure.is_none(), took.as_secs_f64(), age(*ended));
            let failure = OrNull(failure.as_deref().map(Json));
            write!(
                body,
                "{{\"succeeded\":{is_good},\"failure\":{failure},\"seconds\":{took},\"age_seconds\":{ago}}}}}"
            )
        }
    }
}
