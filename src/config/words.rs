//! Formats settings for [`Changes`](super::Changes). Does no I/O.

use std::net::SocketAddr;
use std::time::Duration;

use log::LevelFilter;

use super::address::Listen;
use super::diagnostic::printable;
use super::model::{ControlSocket, OnRemoved, Server};

/// Describes what happens to the open connections of a removed entrypoint.
pub(super) fn fate(on_removed: OnRemoved, drain_timeout: Duration) -> String {
    match on_removed {
        OnRemoved::Keep => "its open connections go on".to_owned(),
        OnRemoved::Drain => {
            let within = duration(&drain_timeout);
            format!("its open connections end within {within} (drain_timeout)")
        }
        OnRemoved::Close => "its open connections are closed".to_owned(),
    }
}

pub(super) fn on_removed(on_removed: &OnRemoved) -> String {
    let word = match on_removed {
        OnRemoved::Keep => "keep",
        OnRemoved::Drain => "drain",
        OnRemoved::Close => "close",
    };
    word.to_owned()
}

pub(super) fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

pub(super) fn level(level: &LevelFilter) -> String {
    level.to_string().to_lowercase()
}

pub(super) fn control_socket(socket: &ControlSocket) -> String {
    match socket {
        ControlSocket::Default => "the default".to_owned(),
        ControlSocket::Off => "off".to_owned(),
        ControlSocket::At(path) => printable(&path.to_string_lossy()),
    }
}

pub(super) fn mode(mode: &Option<u32>) -> String {
    mode.map_or("the umask's".to_owned(), |mode| format!("{mode:04o}"))
}

pub(super) fn group(group: &Option<String>) -> String {
    let group = group.as_deref();
    group.map_or("the process's".to_owned(), printable)
}

/// Formats an address to listen on: `[::]` takes IPv6 only, `*` takes IPv4 too.
pub(super) fn listen(listen: &Listen) -> String {
    match listen {
        Listen::Tcp {
            address: SocketAddr::V6(address),
            v6only: false,
        } if address.ip().is_unspecified() => format!("*:{}", address.port()),
        _ => printable(&listen.to_string()),
    }
}

pub(super) fn server(server: &Server) -> String {
    printable(&server.label())
}

pub(super) fn duration(duration: &Duration) -> String {
    humantime::format_duration(*duration).to_string()
}

pub(super) fn duration_or_none(timeout: &Option<Duration>) -> String {
    timeout.as_ref().map_or("none".to_owned(), duration)
}

/// Formats a list as `A`, `A and B`, `A, B and C`, or its first few items and how many more.
pub(super) fn list<T>(items: &[T], words: impl Fn(&T) -> String) -> String {
    const MOST: usize = 8;
    let mut named: Vec<_> = items.iter().take(MOST).map(words).collect();
    if items.len() > MOST {
        named.push(format!("{} more", items.len() - MOST));
    }
    match named.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => named.concat(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::value;
    use super::*;

    proptest! {
        #[test]
        fn duration_is_read_back_as_it_was(
            seconds in prop_oneof![0..100_u64, 0..366 * 24 * 60 * 60_u64],
            nanos in prop_oneof![Just(0), (0..1_000_u32).prop_map(|ms| ms * 1_000_000), 0..1_000_000_000_u32],
        ) {
            let written = Duration::new(seconds, nanos);
            let read = value::drain_timeout(&duration(&written)).map_err(|it| format!("{it:?}"));
            prop_assert_eq!(read, Ok(written));
        }
    }
}
