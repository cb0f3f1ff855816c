//! Parses single values: durations, `off`, keywords, and the names of other programs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use super::address::{Listen, socket_path};
use super::diagnostic::{Mistake, is_unprintable, nearest, shown, wrong};
use super::model::{ControlSocket, defaults};
use crate::state::Rate;

/// Longer than any sensible timeout, and short enough for every clock.
const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The kernel's limit for TCP_KEEPIDLE: MAX_TCP_KEEPIDLE in include/net/tcp.h.
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Parses a duration that may be zero.
pub(super) fn drain_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return wrong("`off` is not allowed here; write a duration such as \"9s\", or \"0s\"");
    }
    at_most(duration(text)?, MAX_TIMEOUT, "366 days")
}

/// Parses a duration that may be zero, which stands for off.
pub(super) fn duration_or_zero(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return wrong("`off` is not allowed here; write \"0s\"");
    }
    at_most(duration(text)?, MAX_TIMEOUT, "366 days")
}

/// Parses the time between two checks. More often, they would be most of a server's traffic.
pub(super) fn check_interval(text: &str) -> Result<Duration, Mistake> {
    interval(text, 10, "remove `health` for no checks")
}

/// Parses the time between two look-ups of a name. More often, they would burden the resolver.
pub(super) fn resolve_interval(text: &str) -> Result<Duration, Mistake> {
    interval(text, 100, "write a long duration, such as \"1d\"")
}

/// Parses the time between two saves of what clients have used. More often, the disk would be
/// written all the time.
pub(super) fn save_interval(text: &str) -> Result<Duration, Mistake> {
    interval(text, 100, "leave `file` out to save nothing")
}

/// Parses a duration of at least so many milliseconds. `off_advice` says what to write instead of
/// `off`.
fn interval(text: &str, least: u64, off_advice: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return wrong(format!("`off` is not allowed here; {off_advice}"));
    }
    let value = duration(text)?;
    if value < Duration::from_millis(least) {
        let says = shown(text);
        return wrong(format!(
            "`{says}` is too short; write \"{least}ms\" or more"
        ));
    }
    at_most(value, MAX_TIMEOUT, "366 days")
}

/// Parses the absolute path of a file.
pub(super) fn file(text: &str) -> Result<PathBuf, Mistake> {
    let path = PathBuf::from(text);
    match path.is_absolute() && path.file_name().is_some() && !text.ends_with('/') {
        true => Ok(path),
        false => wrong(format!(
            "`{}` is not the absolute path of a file; write one such as \"/var/lib/coracle/accounting\"",
            shown(text)
        )),
    }
}

/// Parses a duration of at least one millisecond.
pub(super) fn dialling_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return wrong("`off` is not allowed here; write a duration such as \"5s\"");
    }
    timeout(text, "write a longer one, such as \"5s\"")
}

/// Parses a duration of at least one millisecond within which failures count.
pub(super) fn fail_window(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return wrong("`off` is not allowed here; write max_fails = 0 to count no failures");
    }
    timeout(text, "write a longer one, such as \"10s\"")
}

/// Parses a duration of at least one millisecond for which connections wait.
pub(super) fn queue_timeout(text: &str) -> Result<Duration, Mistake> {
    if text == "off" {
        return wrong(
            "`off` is not allowed here; write a long duration, such as \"1h\", or queue = 0 to let no connection wait",
        );
    }
    timeout(
        text,
        "write a longer one, or queue = 0 to let no connection wait",
    )
}

/// Parses a duration of at least one millisecond, or `off`.
pub(super) fn timeout_or_off(text: &str) -> Result<Option<Duration>, Mistake> {
    match text {
        "off" => Ok(None),
        _ => timeout(text, "write a longer one, or \"off\"").map(Some),
    }
}

/// Parses a whole number of seconds, or `off`.
pub(super) fn keepalive(text: &str) -> Result<Option<Duration>, Mistake> {
    if text == "off" {
        return Ok(None);
    }
    let value = duration(text)?;
    if value.is_zero() || value.subsec_nanos() != 0 {
        return wrong("keepalive is in whole seconds, at least 1; write \"60s\", or \"off\"");
    }
    at_most(value, MAX_KEEPALIVE, "32767s, the kernel's limit").map(Some)
}

/// Parses a rate, such as `10/s`. Its burst is its number.
pub(super) fn rate(text: &str) -> Result<Rate, Mistake> {
    const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];
    let says = shown(text);
    if text == "off" {
        return wrong("`off` is not allowed here; leave it out for no limit");
    }
    let (number, unit) = text.split_once('/').unwrap_or((text, ""));
    let seconds = UNITS.iter().find(|(name, _)| *name == unit);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let (true, Some((_, seconds))) = (is_number, seconds) else {
        return wrong(format!(
            "`{says}` is not a rate; write a whole number for each second, minute or hour, such as \"10/s\", \"100/m\" or \"500/h\""
        ));
    };
    match number.parse::<u32>() {
        Ok(0) => wrong(format!("`{says}` lets nobody in; write at least \"1/h\"")),
        Ok(count) if count <= Rate::MOST => Ok(Rate {
            count,
            per: Duration::from_secs(*seconds),
            burst: count,
        }),
        _ => wrong(format!(
            "`{says}` is too often; the limit is {}/{unit}",
            Rate::MOST
        )),
    }
}

/// What to write instead of a text that is not a boolean.
pub(super) fn boolean_for(text: &str) -> &'static str {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => "true",
        "false" | "no" | "off" | "0" => "false",
        _ => "true or false",
    }
}

pub(super) fn level(text: &str) -> Result<LevelFilter, Mistake> {
    const LEVELS: [(&str, LevelFilter); 6] = [
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("trace", LevelFilter::Trace),
        ("off", LevelFilter::Off),
    ];
    if let Some((_, level)) = LEVELS.iter().find(|(name, _)| *name == text) {
        return Ok(*level);
    }
    let says = shown(text);
    match nearest(text, LEVELS.map(|(name, _)| name)) {
        Some(name) => wrong(format!("unknown level `{says}`; did you mean `{name}`?")),
        None => wrong(format!(
            "unknown level `{says}`; the levels are error, warn, info, debug, trace and off"
        )),
    }
}

/// A program whose metric names are published too.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compat {
    Traefik,
}

pub(super) fn compat(text: &str) -> Result<Compat, Mistake> {
    const KNOWN: &str = "traefik";
    if text == KNOWN {
        return Ok(Compat::Traefik);
    }
    let advice = match nearest(text, [KNOWN]) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; expected one of `{KNOWN}`"),
    };
    wrong(format!("unknown `compat` name `{}`{advice}", shown(text)))
}

/// The value of `admin.listen` and `--admin`: where the admin endpoint listens; `None` if off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminListen(pub Option<SocketAddr>);

impl FromStr for AdminListen {
    type Err = Mistake;

    /// Parses `IP:port` or `off`.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        if text == "off" {
            return Ok(Self(None));
        }
        if !text.contains([':', '.']) {
            return wrong(format!(
                "`{}` is neither an address, such as \"127.0.0.1:2672\", nor \"off\"",
                shown(text)
            ));
        }
        let listen: Option<SocketAddr> = match text.parse()? {
            listen @ Listen::Tcp { .. } if listen.is_range() => {
                return wrong(
                    "the admin endpoint listens on one port; write an address such as \"127.0.0.1:2672\"",
                );
            }
            Listen::Tcp { address, .. } => Some(address),
            Listen::Unix(_) => {
                return wrong(
                    "the admin endpoint cannot listen on a Unix socket; write an address such as \"127.0.0.1:2672\", or \"off\"",
                );
            }
        };
        Ok(Self(listen))
    }
}

/// Parses the absolute path of a file.
pub(super) fn token_file(text: &str) -> Result<PathBuf, Mistake> {
    if !text.starts_with('/') || text.ends_with('/') {
        return wrong(format!(
            "`{}` is not an absolute path of a file; write one such as \"/etc/coracle.token\"",
            shown(text)
        ));
    }
    if text.contains(is_unprintable) {
        return wrong(format!("`{}` contains a control character", shown(text)));
    }
    Ok(text.into())
}

/// Parses an absolute path, with or without the prefix `unix:`, or `off`.
pub(super) fn control_socket(text: &str) -> Result<ControlSocket, Mistake> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    match text {
        "off" => Ok(ControlSocket::Off),
        _ if path.contains('/') => {
            socket_path(text, path, defaults::CONTROL_SOCKET).map(ControlSocket::At)
        }
        _ => wrong(format!(
            "`{}` is neither the path of a socket, such as \"{}\", nor \"off\"",
            shown(text),
            defaults::CONTROL_SOCKET
        )),
    }
}

fn timeout(text: &str, advice: &str) -> Result<Duration, Mistake> {
    let value = duration(text)?;
    if value < Duration::from_millis(1) {
        return wrong(format!("`{}` is too short; {advice}", shown(text)));
    }
    at_most(value, MAX_TIMEOUT, "366 days")
}

fn at_most(value: Duration, most: Duration, name: &str) -> Result<Duration, Mistake> {
    if value > most {
        return wrong(format!("too long; the limit is {name}"));
    }
    Ok(value)
}

/// Parses a duration with its unit, such as `90s`.
///
/// # Errors
/// If it is none.
pub fn duration(text: &str) -> Result<Duration, Mistake> {
    use humantime::DurationError as Error;
    let says = shown(text);
    humantime::parse_duration(text).or_else(|error| match error {
        Error::UnknownUnit { unit, value, .. } if unit.is_empty() => wrong(format!(
            "`{says}` has no unit; write \"{value}s\" for seconds"
        )),
        Error::UnknownUnit { unit, .. } => wrong(format!(
            "`{}` is not a unit of time; the units are ms, s, m, h and d",
            shown(&unit)
        )),
        Error::NumberOverflow => wrong(format!("`{says}` is too long or too precise")),
        Error::Empty => wrong("the duration is empty; write one such as \"10s\""),
        Error::InvalidCharacter(_) | Error::NumberExpected(_) => wrong(format!(
            "`{says}` is not a duration; write one such as \"10s\""
        )),
    })
}
