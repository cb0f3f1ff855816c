//! Port forwards in the form of ssh's `-L` option: `[bind:]port:host:hostport`.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::address::{Address, Listen, unix_path};
use super::diagnostic::{Mistake, shown, wrong};
use super::host::{HostText, listen_host, port};

/// One `-L` option: a listener and where its connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// What it listens on.
    pub listen: Listen,
    /// Where its connections go.
    pub to: Address,
    /// The text as given on the command line.
    pub(super) text: String,
}

impl FromStr for Forward {
    type Err = Mistake;

    /// Parses `[bind:]port:host:hostport`, where `unix:/path` may replace either side.
    ///
    /// Without a bind address it listens on `127.0.0.1`, as ssh does; `*` or an empty bind address
    /// means all interfaces.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        let (listen, to) = sides(text).map_err(in_form)?;
        Ok(Self {
            listen,
            to,
            text: text.to_owned(),
        })
    }
}

impl Forward {
    /// Returns whether it was written to listen on both IPv4 and IPv6.
    pub(super) fn is_dual(&self) -> bool {
        self.text.starts_with([':', '*'])
    }

    /// Returns a name for its entrypoint: the address, or the socket's file name.
    pub(super) fn name(&self) -> String {
        match &self.listen {
            Listen::Tcp { address, .. } if self.is_dual() => format!("*:{}", address.port()),
            Listen::Tcp { address, .. } => address.to_string(),
            Listen::Unix(path) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                // A name has at most 64 characters; leave room for a suffix that makes it unique.
                let file: String = file.chars().take(50).collect();
                format!("unix:{file}")
            }
        }
    }
}

/// Adds the form to what is wrong. The text itself is named by the option that it stands behind.
fn in_form(Mistake(why): Mistake) -> Mistake {
    Mistake(format!(
        "{why} (the form is [BIND:]PORT:HOST:HOSTPORT, for example 8080:192.168.1.10:80)"
    ))
}

fn sides(text: &str) -> Result<(Listen, Address), Mistake> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (path, to) = path_and_target(rest)?;
        return Ok((Listen::Unix(unix_path(path)?), to));
    }
    if let Some((listen, path)) = text.split_once(":unix:") {
        let to = Address::Unix(unix_path(path)?);
        return match parts(listen)?.as_slice() {
            [port] => Ok((listener(None, port)?, to)),
            [bind, port] => Ok((listener(Some(*bind), port)?, to)),
            _ => wrong("too many parts before `unix:`"),
        };
    }
    match parts(text)?.as_slice() {
        [port, host, to] => Ok((listener(None, port)?, target(*host, to)?)),
        [bind, port, host, to] => Ok((listener(Some(*bind), port)?, target(*host, to)?)),
        few if few.len() < 3 => wrong(missing(text, few.len())),
        _ => wrong("too many parts; IPv6 addresses must be in brackets, such as [::1]"),
    }
}

/// Says which parts are missing from a forward that has fewer than three.
fn missing(text: &str, parts: usize) -> String {
    let missing = match parts {
        _ if text.is_empty() => "the port to listen on, the host and the port to connect to are",
        1 => "the host and the port to connect to are",
        _ => "the port to connect to is",
    };
    // A part that starts with a slash is probably a path without `unix:`.
    let path = text.split(':').find(|part| part.starts_with('/'));
    let advice = path.map(|path| format!("; write `unix:{}` for a Unix socket", shown(path)));
    format!("{missing} missing{}", advice.unwrap_or_default())
}

/// Splits `/path:target`. The path itself may contain colons.
fn path_and_target(rest: &str) -> Result<(&str, Address), Mistake> {
    const MISSING: &str = "the host and port to connect to are missing";
    if let Some((path, to)) = rest.rsplit_once(":unix:") {
        return Ok((path, Address::Unix(unix_path(to)?)));
    }
    let Some((start, port)) = rest.rsplit_once(':') else {
        return wrong(MISSING);
    };
    let path_and_host = match start.strip_suffix(']') {
        Some(start) => start
            .rsplit_once(":[")
            .map(|(path, ip)| (path, HostText::Bracketed(ip))),
        None => start
            .rsplit_once(':')
            .map(|(path, host)| (path, HostText::Plain(host))),
    };
    let Some((path, host)) = path_and_host else {
        return wrong(MISSING);
    };
    Ok((path, to(host, port)?))
}

/// Splits at the colons outside brackets.
fn parts(text: &str) -> Result<Vec<HostText<'_>>, Mistake> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('[') {
            Some(inner) => {
                let Some((ip, after)) = inner.split_once(']') else {
                    return wrong("missing `]`");
                };
                (HostText::Bracketed(ip), after)
            }
            None => {
                let end = rest.find(':').unwrap_or(rest.len());
                (HostText::Plain(&rest[..end]), &rest[end..])
            }
        };
        parts.push(part);
        match after.strip_prefix(':') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(parts),
            None => return wrong("missing `:` after `]`"),
        }
    }
}

fn listener(bind: Option<HostText<'_>>, port_part: &HostText<'_>) -> Result<Listen, Mistake> {
    let port_text = plain(*port_part);
    let port = port(port_text).or_else(|Mistake(why)| wrong(format!("listening port: {why}")))?;
    let ip = match bind {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(bind) => listen_host(bind, port_text)
            .or_else(|Mistake(why)| wrong(format!("bind address: {why}")))?,
    };
    Ok(Listen::tcp(ip, port))
}

fn target(host: HostText<'_>, port_part: &HostText<'_>) -> Result<Address, Mistake> {
    to(host, plain(*port_part))
}

fn to(host: HostText<'_>, port: &str) -> Result<Address, Mistake> {
    Address::tcp(host, port).or_else(|Mistake(why)| wrong(format!("target: {why}")))
}

fn plain(part: HostText<'_>) -> &str {
    match part {
        HostText::Plain(text) | HostText::Bracketed(text) => text,
    }
}
