//! How the TCP sockets of an entrypoint listen.

use crate::config;
use crate::net::{Keepalive, TcpOptions};

/// Returns how to listen on a TCP address of an entrypoint.
pub(super) fn options(configured: &config::Entrypoint, v6only: bool) -> TcpOptions {
    let config::Listening {
        interface,
        backlog,
        fast_open,
    } = &configured.listening;
    TcpOptions {
        v6only,
        reuse_port: configured.reuse_port,
        keepalive: configured.keepalive.map(Keepalive::after),
        interface: interface.clone(),
        backlog: *backlog,
        fast_open: *fast_open,
    }
}
