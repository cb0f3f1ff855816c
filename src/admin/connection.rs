//! One open connection in JSON, as every answer shows it.

use std::fmt::{self, Write};

use super::body::Body;
use super::json::{Json, OrNull};
use crate::state::{Entries, Entry};

/// Writes the members of a connection's object, without the braces around them.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(super) fn write_members(body: &mut Body, entries: &Entries, entry: &Entry) -> fmt::Result {
    let server = entry.server.map(|id| Json(entries.server_name(id)));
    let age = entries.at.saturating_duration_since(entry.opened);
    write!(
        body,
        "\"id\":\"{}\",\"peer\":\"{}\",\"socket_peer\":{},\"entrypoint\":{},\"service\":{},\"route\":{},\"server\":{},\"state\":\"{}\",\
         \"age_seconds\":{},\"to_server_bytes\":{},\"to_client_bytes\":{}",
        entry.id,
        entry.peer,
        OrNull(entry.socket_peer.map(|peer| format!("\"{peer}\""))),
        Json(entries.entrypoint_name(entry.entrypoint)),
        OrNull(entry.service.as_deref().map(Json)),
        OrNull(entry.route.as_deref().map(Json)),
        OrNull(server),
        entry.phase,
        age.as_secs_f64(),
        entry.to_server_bytes,
        entry.to_client_bytes,
    )
}
