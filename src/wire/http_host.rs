//! The host that the first request of HTTP/1 is for.

use std::fmt;

use httparse::{EMPTY_HEADER, Error, Request, Status};

use super::host_name::host_name;

/// What is wrong with the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is no head of HTTP/1.
    Head,
    /// It is longer than [`MOST_BYTES`], or has more headers than [`MOST_HEADERS`].
    TooLong,
    /// It names several hosts.
    Several,
    /// What it names is not a host.
    Host,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "it is malformed",
            Self::TooLong => "it is too long",
            Self::Several => "it names several hosts",
            Self::Host => "what it names is not a host",
        })
    }
}

/// The longest head of a request that is read: HAProxy's limit by default (`tune.bufsize`).
pub const MOST_BYTES: usize = 16_384;
/// The most headers of a request: HAProxy's limit by default (`tune.http.maxhdr`).
pub const MOST_HEADERS: usize = 101;

/// Parses the head of the request at the beginning of `bytes`, and returns the host that it is for,
/// in lower case, without port and trailing dot. IPv6 addresses are in brackets.
///
/// Returns `None` if the head is not whole yet, and `Some(None)` if it names no host. An absolute
/// target outweighs the Host header (RFC 9112, section 3.2.2).
///
/// # Errors
/// If no bytes that may follow would make it the head of a request, or if the host is ambiguous.
pub fn parse(bytes: &[u8]) -> Result<Option<Option<Box<str>>>, Malformed> {
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < MOST_BYTES => return Ok(None),
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => return Err(Malformed::TooLong),
        Err(_) => return Err(Malformed::Head),
    }
    let mut hosts = request.headers.iter();
    let mut hosts = hosts
        .by_ref()
        .filter(|it| it.name.eq_ignore_ascii_case("host"));
    let header = hosts.next().map(|it| it.value);
    if hosts.next().is_some() {
        return Err(Malformed::Several);
    }
    let target = request.path.unwrap_or_default().as_bytes();
    match authority(target).or(header) {
        None | Some([]) => Ok(Some(None)),
        Some(host) => without_port(host)
            .map(Some)
            .map(Some)
            .ok_or(Malformed::Host),
    }
}

/// Returns the authority of a target in absolute form, such as `http://example.org:80/`.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.iter().position(|&byte| byte == b':')?;
    let is_scheme = target[..scheme].iter().all(u8::is_ascii_alphanumeric);
    let rest = target[scheme + 1..]
        .strip_prefix(b"//")
        .filter(|_| is_scheme)?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// Returns the host of `host:port` or `host`.
fn without_port(text: &[u8]) -> Option<Box<str>> {
    let bracket = text.iter().position(|&byte| byte == b']');
    let end = match bracket {
        Some(at) => at + 1,
        None => text
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    match host {
        _ if !is_port => None,
        [b'[', ip @ .., b']'] => {
            let ip = std::str::from_utf8(ip).ok()?;
            ip.parse::<std::net::Ipv6Addr>().ok()?;
            Some(format!("[{}]", ip.to_ascii_lowercase()).into())
        }
        _ => host_name(host),
    }
}

#[cfg(test)]
mod tests;
