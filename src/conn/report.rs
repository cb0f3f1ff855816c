//! Acts on a server that went up or down, or that an operator gave an order for: logs it, and ends
//! its connections if the configuration says so.

use std::time::Instant;

use crate::state::{AdminState, Change, CloseReason, Conns, Server};

/// Reports that `server` went up or down. Must not be called by a connection of the server.
pub fn report(conns: &Conns, server: &Server, change: Change, now: Instant) {
    let is_up = change.is_up;
    log_change(server, change);
    if !is_up {
        close(conns, server, now);
    }
}

/// Does what an operator orders for `server`. Returns how many connections that has closed. Must
/// not be called by a connection of the server.
pub fn order(conns: &Conns, server: &Server, state: AdminState, now: Instant) -> usize {
    if let Some(change) = server.order(state, now) {
        log_change(server, change);
    }
    match state {
        // Also if it was down before: connections may have tried it nevertheless.
        AdminState::Down => close(conns, server, now),
        AdminState::Ready | AdminState::Drain => 0,
    }
}

fn log_change(server: &Server, Change { is_up, why }: Change) {
    let (service, name) = (&*server.service.name, server.name());
    if is_up {
        log::info!(service, server = name; "server is up: {why}");
    } else {
        log::warn!(service, server = name; "server is down: {why}");
    }
}

/// Closes the connections of a server that is down, if the configuration says so.
fn close(conns: &Conns, server: &Server, now: Instant) -> usize {
    if !server.service.rules().closes_on_down {
        return 0;
    }
    let ids = server.open.ids().into_iter();
    ids.filter(|id| conns.kill(*id, CloseReason::ServerDown, now))
        .count()
}
