//! The last hour in JSON.

use std::fmt::{self, Write};
use std::time::SystemTime;

use smol::future::yield_now;

use crate::admin::body::Body;
use crate::admin::json::{Json, OrNull, Separator};
use crate::state::{History, Sample, Subject, Track};
use crate::sys::clock;

/// Writes the samples of everything that lives. Intervals without a sample are `null`.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(crate) async fn write(body: &mut Body, history: &History) -> fmt::Result {
    let interval = History::INTERVAL.as_secs();
    write!(
        body,
        "{{\"coracle\":{},\"interval_seconds\":{interval},\"end\":{}",
        Json(env!("CARGO_PKG_VERSION")),
        OrNull(end(history)),
    )?;
    let mut entrypoints: Vec<_> = history.tracks().iter().collect();
    entrypoints.retain(|it| matches!(it.subject, Subject::Entrypoint(_)));
    entrypoints.sort_by_key(|it| name(it));
    let tracks = history.tracks().iter();
    let services = tracks.filter(|it| matches!(it.subject, Subject::Service(_)));
    list(body, "entrypoints", entrypoints.into_iter()).await?;
    list(body, "services", services).await?;
    let tracks = history.tracks().iter();
    let servers = tracks.filter(|it| matches!(it.subject, Subject::Server(_)));
    list(body, "servers", servers).await?;
    body.write_str("}")
}

/// Returns when the last interval ended, in seconds since 1970 by the clock as it is set now.
fn end(history: &History) -> Option<u64> {
    let ago = clock::since_boot().saturating_sub(history.end()?);
    let end = SystemTime::now().checked_sub(ago)?;
    let since = end.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64().round() as u64)
}

fn name(track: &Track) -> &str {
    match &track.subject {
        Subject::Entrypoint(it) => &it.name,
        Subject::Service(name) => name,
        Subject::Server(it) => &it.name,
    }
}

async fn list<'a>(
    body: &mut Body,
    title: &str,
    tracks: impl Iterator<Item = &'a Track>,
) -> fmt::Result {
    write!(body, ",\"{title}\":[")?;
    let mut comma = Separator::default();
    for track in tracks {
        write!(body, "{comma}{{")?;
        comma.next();
        if let Subject::Server(it) = &track.subject {
            write!(body, "\"service\":{},", Json(&it.service))?;
        }
        write!(body, "\"name\":{}", Json(name(track)))?;
        numbers(body, "open", track, |it| it.open)?;
        numbers(body, "opened", track, |it| it.passed.opened)?;
        numbers(body, "to_server_bytes", track, |it| it.passed.bytes[0])?;
        numbers(body, "to_client_bytes", track, |it| it.passed.bytes[1])?;
        body.write_str("}")?;
        // Other work of the thread gets its turn.
        yield_now().await;
    }
    body.write_str("]")
}

fn numbers(body: &mut Body, title: &str, track: &Track, of: fn(Sample) -> u64) -> fmt::Result {
    write!(body, ",\"{title}\":[")?;
    let mut comma = Separator::default();
    for sample in track.samples.iter() {
        write!(body, "{comma}{}", OrNull(sample.map(of)))?;
        comma.next();
    }
    body.write_str("]")
}
