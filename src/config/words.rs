//! Formats settings for [`Changes`](super::Changes). Does no I/O.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::address::Listen;
use super::diagnostic::{printable, shown};
use super::keyword::{CheckKind, word};
use super::model::{Access, ControlSocket, Expect, Health, OnRemoved, SendProxy, Server};
use super::size::size_words;
use crate::state::{Bind, Network, Rate};

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

pub(super) fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

pub(super) fn access(access: &Access) -> String {
    format!("for some: {} networks in its lists", access.list.rules())
}

/// Formats a list of networks, or how many there are if there are many.
pub(super) fn networks(networks: &Option<Vec<Network>>) -> String {
    const MAX_TOLD: usize = 20;
    match networks.as_deref() {
        None => "none".to_owned(),
        Some([]) => "an empty list".to_owned(),
        Some(all) if all.len() > MAX_TOLD => format!("{} networks", all.len()),
        Some(all) => list(all, Network::to_string),
    }
}

pub(super) fn rate_or_none(rate: &Option<Rate>) -> String {
    rate.map_or("none".to_owned(), |rate| rate.to_string())
}

pub(super) fn file_or_none(path: &Option<PathBuf>) -> String {
    let path = path.as_ref();
    path.map_or("none".to_owned(), |path| printable(&path.to_string_lossy()))
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

pub(super) fn path_or_none(path: &Option<PathBuf>) -> String {
    let path = path.as_ref();
    path.map_or("none".to_owned(), |path| printable(&path.to_string_lossy()))
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
            ..
        } if address.ip().is_unspecified() => listen.to_string().replacen("[::]", "*", 1),
        _ => printable(&listen.to_string()),
    }
}

pub(super) fn interface(interface: &Option<String>) -> String {
    let interface = interface.as_deref();
    interface.map_or("any".to_owned(), printable)
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

pub(super) fn number_or_none(number: &Option<NonZeroU32>) -> String {
    number.map_or("none".to_owned(), |number| number.to_string())
}

pub(super) fn size_or_none(bytes: &Option<u64>) -> String {
    bytes.map_or("none".to_owned(), size_words)
}

pub(super) fn send_proxy(version: &Option<SendProxy>) -> String {
    version.as_ref().map_or("none".to_owned(), word)
}

pub(super) fn bind(bind: &Option<Bind>) -> String {
    let bind = bind.as_ref();
    bind.map_or("none".to_owned(), |bind| printable(&bind.to_string()))
}

pub(super) fn dscp(dscp: &Option<u8>) -> String {
    dscp.map_or("none".to_owned(), |dscp| dscp.to_string())
}

pub(super) fn trusted(networks: &[Network]) -> String {
    match networks {
        [] => "none".to_owned(),
        networks => list(networks, Network::to_string),
    }
}

pub(super) fn text_or_none(text: &Option<String>) -> String {
    text.as_deref().map_or("none".to_owned(), printable)
}

pub(super) fn retries(retries: &Option<u32>) -> String {
    let each = || "one for each other server".to_owned();
    retries.map_or_else(each, |retries| retries.to_string())
}

/// Describes the settings of a server that are not the default: ` (weight 2, backup)`.
pub(super) fn settings(server: &Server) -> String {
    let Server {
        address,
        name,
        weight,
        backup,
        max_connections,
    } = server;
    let named = name.as_ref().map(|_| printable(&address.to_string()));
    let weight = (*weight != 1).then(|| format!("weight {weight}"));
    let backup = backup.then(|| "backup".to_owned());
    let most = max_connections.map(|most| format!("max_connections {most}"));
    let settings: Vec<_> = [named, weight, backup, most]
        .into_iter()
        .flatten()
        .collect();
    match settings.is_empty() {
        true => String::new(),
        false => format!(" ({})", settings.join(", ")),
    }
}

/// Describes a health check in short: `http, every 10s`.
pub(super) fn health(health: &Health) -> String {
    let kind = word(&CheckKind::of(&health.kind));
    format!("{kind}, every {}", duration(&health.interval))
}

/// Formats bytes as the text that they are, or as digits.
pub(super) fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "nothing".to_owned(),
        Ok(text) => format!("\"{}\"", shown(text)),
        Err(_) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("hex:{}", shown(&digits))
        }
    }
}

pub(super) fn expect(expect: &Option<Expect>) -> String {
    match expect {
        None => "nothing".to_owned(),
        Some(Expect::Bytes(expected)) => bytes(expected),
        Some(Expect::Regex(pattern)) => format!("a match of {}", shown(pattern)),
    }
}

/// Formats a range of statuses: `200`, or `200-399`.
pub(super) fn status((low, high): &(u16, u16)) -> String {
    match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
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
