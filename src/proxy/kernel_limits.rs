//! Warns where a setting of the kernel keeps listeners from doing what the configuration says.

use std::fs;

use crate::config::{Entrypoint, Listening};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const FAST_OPEN: &str = "/proc/sys/net/ipv4/tcp_fastopen";
/// Of net.ipv4.tcp_fastopen: listeners may accept data with the first packet (ip-sysctl).
const FOR_SERVERS: u32 = 2;

/// Warns about what `before` did not have.
pub(super) fn warn(entrypoint: &Entrypoint, before: &Listening) {
    let Listening {
        interface: _,
        backlog,
        fast_open,
    } = entrypoint.listening;
    let name = entrypoint.name.as_str();
    if backlog != before.backlog
        && let Some(most) = read(SOMAXCONN).filter(|most| *most < backlog)
    {
        log::warn!(target: "setup", entrypoint = name;
            "the kernel caps the backlog of {backlog} at {most}; raise it (sysctl -w net.core.somaxconn={backlog}), then restart coracle");
    }
    if fast_open
        && !before.fast_open
        && let Some(flags) = read(FAST_OPEN).filter(|flags| flags & FOR_SERVERS == 0)
    {
        let flags = flags | FOR_SERVERS;
        log::warn!(target: "setup", entrypoint = name;
            "fast_open has no effect, because the kernel does not let listeners use TCP Fast Open; allow it (sysctl -w net.ipv4.tcp_fastopen={flags})");
    }
}

/// Reads a setting of the kernel, if it says that.
fn read(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
