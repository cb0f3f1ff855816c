//! Parses the values of a rule's conditions.

use std::net::IpAddr;

use super::diagnostic::{Mistake, nearest, shown, wrong};
use super::host::host_name;
use crate::state::NamePattern;
use crate::wire::first_bytes::Protocol;

/// Parses a name that TLS clients ask for: a host name, or `*.` and what it ends with.
pub(super) fn server_name(text: &str) -> Result<NamePattern, Mistake> {
    let ip = text.trim_start_matches('[').trim_end_matches(']');
    if ip.parse::<IpAddr>().is_ok() {
        return wrong(format!(
            "`{}` is an IP address, and TLS clients ask for names only; connections without a name go to the entrypoint's `service`",
            shown(text)
        ));
    }
    hosted(text)
}

/// Parses a host of HTTP requests: a host name or an IP address, or `*.` and what it ends with.
pub(super) fn hosted(text: &str) -> Result<NamePattern, Mistake> {
    let (name, is_wildcard) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains('*') {
        let rest = name.rsplit('*').next().unwrap_or_default();
        let example = match rest.trim_matches('.') {
            "" => "*.lan".to_owned(),
            rest => format!("*.{}", shown(rest)),
        };
        return wrong(format!(
            "`{}`: a `*` can only be the whole first part of a name, where it stands for one or more parts; write one such as \"{example}\"",
            shown(text)
        ));
    }
    if name.is_empty() {
        return wrong("the name is empty; write one such as \"nas.lan\"");
    }
    Ok(NamePattern::new(&host_name(name)?, is_wildcard))
}

/// Parses the name of a protocol within TLS.
pub(super) fn alpn(text: &str) -> Result<Box<[u8]>, Mistake> {
    /// RFC 7301, section 3.1: its length is one byte.
    const MAX_BYTES: usize = 255;
    match text.len() {
        0 => wrong("the name is empty; write one such as \"h2\""),
        n if n > MAX_BYTES => wrong(format!("the name has {n} bytes; the limit is {MAX_BYTES}")),
        _ => Ok(text.as_bytes().into()),
    }
}

/// Parses the name of a protocol that first bytes belong to.
pub(super) fn protocol(text: &str) -> Result<Protocol, Mistake> {
    if let Some(protocol) = Protocol::ALL.iter().find(|it| it.name() == text) {
        return Ok(*protocol);
    }
    let says = shown(text);
    let names = Protocol::ALL.iter().map(|it| it.name());
    match nearest(text, names.clone()) {
        Some(name) => wrong(format!("unknown protocol `{says}`; did you mean `{name}`?")),
        None => {
            let names: Vec<_> = names.collect();
            wrong(format!(
                "unknown protocol `{says}`; those known are {}; for others write `starts_with`",
                names.join(", ")
            ))
        }
    }
}
