//! Acts on a server that went up or down: logs it, and ends its connections if the configuration
//! says so.

use std::time::Instant;

use crate::state::{Change, CloseReason, Conns, Server};

/// Reports that `server` went up or down. Must not be called by a connection of the server.
pub fn report(conns: &Conns, server: &Server, change: Change, now: Instant) {
    let Change { is_up, why } = change;
    let (service, name) = (&*server.service.name, server.name());
    if is_up {
        log::info!(service, server = name; "server is up: {why}");
        return;
    }
    log::warn!(service, server = name; "server is down: {why}");
    if server.service.rules().closes_on_down {
        for id in server.open.ids() {
            conns.kill(id, CloseReason::ServerDown, now);
        }
    }
}
