//! Parses and prints sizes in bytes, such as `32MiB`.

use super::diagnostic::{Mistake, shown, wrong};
use super::keyword::{alternatives, keyword, word};
use super::model::{Quota, QuotaPeriod};
use crate::state::{Bandwidth, ByteRate};

/// What the program itself takes, with its threads, tables and the buffers of a few connections. A
/// lower ceiling would stop it at its start.
const LEAST_MEMORY: u64 = 8 << 20;
/// More than the machines of today have.
const MOST_MEMORY: u64 = 1024 << 30;
const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];

/// Parses a memory ceiling.
pub(super) fn memory(text: &str) -> Result<u64, Mistake> {
    if text == "off" {
        return wrong("`off` is not allowed here; leave `memory` out for no ceiling of its own");
    }
    let says = shown(text);
    match size(text)? {
        bytes if bytes < LEAST_MEMORY => wrong(format!(
            "`{says}` is too small: coracle without connections takes almost as much; write at least \"{}\"",
            size_words(LEAST_MEMORY)
        )),
        bytes if bytes > MOST_MEMORY => wrong(format!(
            "`{says}` is too large; the limit is {}",
            size_words(MOST_MEMORY)
        )),
        bytes => Ok(bytes),
    }
}

/// Parses how much a client may use in which time, such as `50GiB/month`.
pub(super) fn quota(text: &str) -> Result<Quota, Mistake> {
    let says = shown(text);
    let Some((bytes, period)) = text.split_once('/') else {
        return wrong(format!(
            "`{says}` has no period; write \"{says}/month\", or another one of {}",
            alternatives::<QuotaPeriod>()
        ));
    };
    let bytes = match size(bytes)? {
        0 => return wrong("no client could use anything; write a larger quota"),
        bytes => bytes,
    };
    let period = keyword(period)?;
    Ok(Quota { bytes, period })
}

/// Formats a quota as it is written.
pub(super) fn quota_words(quota: &Option<Quota>) -> String {
    let words = |it: &Quota| format!("{}/{}", size_words(it.bytes), word(&it.period));
    quota.as_ref().map_or("none".to_owned(), words)
}

/// Parses how many bytes per second a client gets, such as `64KiB/s`.
pub(super) fn rate(text: &str) -> Result<u64, Mistake> {
    let says = shown(text);
    let Some(bytes) = text.strip_suffix("/s") else {
        return wrong(format!(
            "`{says}` is not a rate; write a size per second, such as \"64KiB/s\""
        ));
    };
    match size(bytes)? {
        0 => wrong("nothing would pass; write at_quota = \"refuse\", or a larger rate"),
        rate => Ok(rate),
    }
}

/// Formats a rate as it is written.
pub(super) fn rate_words(rate: &Option<u64>) -> String {
    rate.map_or("none".to_owned(), |rate| format!("{}/s", size_words(rate)))
}

/// Parses the rate of a limit of the bandwidth.
pub(super) fn byte_rate(text: &str) -> Result<u64, Mistake> {
    let says = shown(text);
    if text == "off" {
        return wrong("`off` is not allowed here; leave it out for no limit");
    }
    let Some(bytes) = text.strip_suffix("/s") else {
        return wrong(format!(
            "`{says}` is not a rate; write a size per second, such as \"2MiB/s\""
        ));
    };
    match size(bytes)? {
        bytes if bytes < ByteRate::LEAST => wrong(format!(
            "`{says}` is too slow; write at least \"{}/s\"",
            size_words(ByteRate::LEAST)
        )),
        bytes if bytes > ByteRate::MOST => wrong(format!(
            "`{says}` is too fast; the limit is {}/s",
            size_words(ByteRate::MOST)
        )),
        bytes => Ok(bytes),
    }
}

/// Parses how many bytes may pass at once.
pub(super) fn burst(text: &str) -> Result<u64, Mistake> {
    let says = shown(text);
    match size(text)? {
        bytes if bytes < ByteRate::LEAST => wrong(format!(
            "`{says}` is too small; write at least \"{}\"",
            size_words(ByteRate::LEAST)
        )),
        bytes if bytes > ByteRate::MOST_BURST => wrong(format!(
            "`{says}` is too large; the limit is {}",
            size_words(ByteRate::MOST_BURST)
        )),
        bytes => Ok(bytes),
    }
}

/// Formats a limit of the bandwidth.
pub(super) fn bandwidth_words(bandwidth: &Bandwidth) -> String {
    let way = |rate: &ByteRate| {
        let words = format!("{}/s", size_words(rate.bytes));
        match rate.burst == ByteRate::new(rate.bytes).burst {
            true => words,
            false => format!("{words} with a burst of {}", size_words(rate.burst)),
        }
    };
    match (&bandwidth.to_server, &bandwidth.to_client) {
        (None, None) => "none".to_owned(),
        (Some(up), Some(down)) if up == down => format!("{} each way", way(up)),
        (Some(up), None) => format!("{} to_server", way(up)),
        (None, Some(down)) => format!("{} to_client", way(down)),
        (Some(up), Some(down)) => format!("{} to_server, {} to_client", way(up), way(down)),
    }
}

fn size(text: &str) -> Result<u64, Mistake> {
    let says = shown(text);
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    if number.is_empty() {
        return wrong(format!(
            "`{says}` is not a size; write a whole number and a unit, such as \"32MiB\""
        ));
    }
    let number_says = shown(number);
    let unit = unit.trim_start_matches(' ');
    if unit.is_empty() {
        let mebibytes = match number.parse::<u64>() {
            // Nobody has so many; they are bytes.
            Ok(bytes) if bytes >= LEAST_MEMORY => (bytes >> 20).to_string(),
            _ => number_says,
        };
        return wrong(format!(
            "`{says}` has no unit; write \"{mebibytes}MiB\" for mebibytes"
        ));
    }
    if let Some((_, shift)) = UNITS.iter().find(|(name, _)| *name == unit) {
        let number = number.parse::<u64>().ok();
        let bytes = number.and_then(|it| it.checked_mul(1 << shift));
        return Ok(bytes.unwrap_or(u64::MAX));
    }
    let first = |name: &str| name.chars().next().map(|c| c.to_ascii_lowercase());
    let meant = UNITS.iter().find(|(name, _)| first(name) == first(unit));
    match meant.filter(|_| unit.len() <= 3) {
        Some((name, _)) => wrong(format!(
            "`{}` is not a unit of size; did you mean \"{number_says}{name}\"?",
            shown(unit)
        )),
        None => wrong(format!(
            "`{}` is not a unit of size; the units are KiB, MiB and GiB",
            shown(unit)
        )),
    }
}

/// Formats a size with the largest unit that divides it.
pub(super) fn size_words(bytes: u64) -> String {
    let fits = |(_, shift): &&(&str, u32)| bytes.is_multiple_of(1 << shift) && bytes > 0;
    match UNITS.iter().rev().find(fits) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}
