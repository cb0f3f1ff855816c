//! The level that is logged, changed while the program runs, and what depends on it.

use log::{Level, LevelFilter};

use super::ground::Ground;
use super::running::Running;
use crate::config;
use crate::state::{Left, Shared};
use crate::{conn, logging};

/// Logs from `level` on, until the next reload or another order. Returns what has changed.
pub(super) fn obey(
    ground: &Ground,
    running: &Running,
    level: LevelFilter,
    by: &'static str,
) -> String {
    let before = logging::set_level(level).unwrap_or(level);
    tell_leaving(&ground.shared, running.config.log);
    if before == level {
        return String::new();
    }
    let [now, before] = [level, before].map(|level| level.as_str().to_ascii_lowercase());
    let changed = format!("log: level {now} instead of {before}");
    log::warn!(target: "setup", by; "{changed} until the next reload");
    changed
}

/// Has a line written for each connection that leaves, if there is to be one: its access line, or
/// else one at level debug.
pub(super) fn tell_leaving(shared: &Shared, log: config::Log) {
    let left = match log.access {
        true => Some(conn::log_access as Left),
        false if log::log_enabled!(Level::Debug) => Some(conn::log_closed as Left),
        false => None,
    };
    shared.conns.tell_leaving(left);
}
