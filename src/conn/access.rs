//! Logs the access line of a closed connection.

use crate::state::{CloseReason, Conn, Direction};

/// Writes the access line.
///
/// Passed to [`Conns::tell_leaving`](crate::state::Conns::tell_leaving).
pub fn log_access(conn: &Conn, reason: CloseReason) {
    let server = conn.server();
    if conn.proxied().is_some() {
        log::info!(
            target: "access",
            entrypoint = conn.entrypoint.name(), peer:% = conn.peer(), socket_peer:% = conn.socket_peer(),
            service = conn.service().map(|it| &*it.name), route = conn.route().map(|it| &**it), server = server.map_or("-", |server| server.name()),
            reason:% = reason,
            to_server_bytes = conn.bytes(Direction::ToServer), to_client_bytes = conn.bytes(Direction::ToClient),
            seconds:% = format_args!("{:.3}", conn.active_for().as_secs_f64()); "closed");
        return;
    }
    log::info!(
        target: "access",
        entrypoint = conn.entrypoint.name(), peer:% = conn.peer(),
        service = conn.service().map(|it| &*it.name), route = conn.route().map(|it| &**it), server = server.map_or("-", |server| server.name()),
        reason:% = reason,
        to_server_bytes = conn.bytes(Direction::ToServer), to_client_bytes = conn.bytes(Direction::ToClient),
        seconds:% = format_args!("{:.3}", conn.active_for().as_secs_f64()); "closed");
}

/// Writes a line at level debug, where there are no access lines.
pub fn log_closed(conn: &Conn, reason: CloseReason) {
    let server = conn.server();
    log::debug!(
        entrypoint = conn.entrypoint.name(), peer:% = conn.peer(), id:% = conn.id,
        server = server.map_or("-", |server| server.name()), reason:% = reason; "closed");
}
