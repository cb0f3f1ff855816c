//! Parses the parts of an address: the host, as an IP address or a name, and the port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::diagnostic::{Mistake, shown, wrong};

/// A host, by IP address or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name, which is resolved at run time.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A host as written, with or without brackets.
#[derive(Clone, Copy, Debug)]
pub(super) enum HostText<'a> {
    Plain(&'a str),
    Bracketed(&'a str),
}

/// Splits `host:port`. Error messages use `example` as the host.
pub(super) fn host_and_port<'a>(
    text: &'a str,
    example: &str,
) -> Result<(HostText<'a>, &'a str), Mistake> {
    let says = shown(text);
    if text.is_empty() {
        return wrong(format!(
            "the address is empty; write one such as `{example}:80`"
        ));
    }
    if text.contains(char::is_whitespace) {
        return wrong(format!("`{says}` contains a space; remove it"));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return wrong(format!(
            "`{says}` is a URL; write only the host and the port, without `{}://`",
            shown(scheme)
        ));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((ip, port)) = rest.split_once(']') else {
            return wrong(format!("`{says}` has no closing bracket"));
        };
        return match port.strip_prefix(':') {
            Some(port) if !port.is_empty() => Ok((HostText::Bracketed(ip), port)),
            _ => wrong(format!("`{says}` has no port; write `[{}]:80`", shown(ip))),
        };
    }
    if text.matches(':').count() > 1 {
        return wrong(format!(
            "`{says}`: IPv6 addresses must be in brackets, such as `[::1]:80`"
        ));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.is_empty() => Ok((HostText::Plain(host), port)),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            wrong(format!("`{says}` has no host; write `{example}:{says}`"))
        }
        _ => {
            let host = shown(text.trim_end_matches(':'));
            wrong(format!("`{says}` has no port; write `{host}:80`"))
        }
    }
}

/// Parses a port, which may be 0.
pub(super) fn port(text: &str) -> Result<u16, Mistake> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong(format!(
            "`{}` is not a port; a port is a number from 1 to 65535",
            shown(text)
        ));
    }
    text.parse().or_else(|_| {
        wrong(format!(
            "port {} is too large; the largest is 65535",
            shown(text)
        ))
    })
}

/// Parses a range of ports, such as `5000-5010`. Returns `None` if this is not meant as one.
pub(super) fn ports(text: &str) -> Result<Option<(u16, u16)>, Mistake> {
    /// Each port takes a descriptor, and a listener.
    const MOST: u16 = 1024;
    let Some((first, last)) = text.split_once('-') else {
        return Ok(None);
    };
    let says = shown(text);
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    if !is_number(first) || !is_number(last) {
        return Ok(None);
    }
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 {
        return wrong(format!(
            "`{says}` begins at port 0; a range begins at 1 or later"
        ));
    }
    if first >= last {
        return wrong(format!(
            "`{says}` is not a range of ports; write the lower one first, such as `5000-5010`"
        ));
    }
    let n = last - first;
    if n >= MOST {
        let n = u32::from(n) + 1;
        return wrong(format!(
            "`{says}` has {n} ports; the limit of a range is {MOST}"
        ));
    }
    Ok(Some((first, last)))
}

/// Parses the host of a listener: an IP address, or `*` or nothing for all interfaces.
pub(super) fn listen_host(host: HostText<'_>, port: &str) -> Result<IpAddr, Mistake> {
    match host {
        HostText::Plain("" | "*") => Ok(Ipv6Addr::UNSPECIFIED.into()),
        HostText::Plain(text) => match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(ip.into()),
            Err(_) if looks_numeric(text) => wrong(not_ipv4(text)),
            Err(_) => wrong(format!(
                "`{}` is not an IP address; listen on one, such as `127.0.0.1:{port}`, or on all with `*:{port}`",
                shown(text),
                port = shown(port)
            )),
        },
        HostText::Bracketed(text) => Ok(ipv6(text)?.to_canonical()),
    }
}

/// Parses the host of a server: an IP address or a name.
pub(super) fn target_host(host: HostText<'_>, port: &str) -> Result<Host, Mistake> {
    match host {
        HostText::Plain("" | "*") => wrong(format!(
            "the host to connect to is missing; write one, such as `192.168.1.10:{}`",
            shown(port)
        )),
        HostText::Plain(text) => match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Host::Ip(ip.into())),
            Err(_) if looks_numeric(text) => wrong(not_ipv4(text)),
            Err(_) if is_srv(text) => wrong(format!(
                "`{}` is an SRV name, whose records have the ports; write it without a port among the `servers` in a configuration file",
                shown(text)
            )),
            Err(_) => host_name(text).map(Host::Name),
        },
        HostText::Bracketed(text) => Ok(Host::Ip(ipv6(text)?.into())),
    }
}

/// Returns whether the first two labels begin with `_`, as only those of SRV names do: RFC 2782.
pub(super) fn is_srv(text: &str) -> bool {
    let labels = text.split('.').take(2);
    labels.filter(|it| it.starts_with('_')).count() == 2
}

/// Checks an SRV name.
pub(super) fn srv_name(text: &str) -> Result<String, Mistake> {
    let (service, rest) = text.split_once('.').unwrap_or((text, ""));
    let (protocol, domain) = rest.split_once('.').unwrap_or((rest, ""));
    if !protocol.eq_ignore_ascii_case("_tcp") {
        let domain = match domain {
            "" => String::new(),
            domain => format!(".{}", shown(domain)),
        };
        return wrong(format!(
            "`{}` is not a TCP service; write `{}._tcp{domain}`",
            shown(text),
            shown(service)
        ));
    }
    host_name(text)
}

/// Returns whether the last label is a number, which no host name on the Internet has.
pub(super) fn looks_numeric(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

fn not_ipv4(text: &str) -> String {
    format!(
        "`{}` is not an IPv4 address, which is four numbers from 0 to 255",
        shown(text)
    )
}

fn ipv6(text: &str) -> Result<Ipv6Addr, Mistake> {
    if text.contains('%') {
        return wrong(format!(
            "`{}` names a network interface, which is not supported; use an address without `%`",
            shown(text)
        ));
    }
    match text.parse::<Ipv6Addr>() {
        Ok(ip) if ip.is_unicast_link_local() => wrong(format!(
            "`{ip}` is link-local and needs an interface, which is not supported; use another address of that host"
        )),
        Ok(ip) => Ok(ip),
        Err(_) if text.parse::<Ipv4Addr>().is_ok() => wrong(format!(
            "`{text}` is an IPv4 address; write it without brackets"
        )),
        Err(_) => wrong(format!("`{}` is not an IPv6 address", shown(text))),
    }
}

/// Checks a host name against RFC 1123. Also allows `_`, which some local networks use, and a
/// trailing dot, which DNS allows.
pub(super) fn host_name(text: &str) -> Result<String, Mistake> {
    /// RFC 1035, section 2.3.4, without the length bytes.
    const MAX_BYTES: usize = 253;
    const MAX_LABEL_BYTES: usize = 63;
    let says = shown(text);
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > MAX_BYTES {
        let n = name.len();
        return wrong(format!(
            "the host name has {n} characters; the limit is {MAX_BYTES}"
        ));
    }
    for label in name.split('.') {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if label.is_empty() {
            return wrong(format!(
                "host name `{says}` has an empty part; remove the extra dot"
            ));
        }
        if label.len() > MAX_LABEL_BYTES {
            return wrong(format!(
                "host name `{says}` has a part of {} characters; the limit is {MAX_LABEL_BYTES}",
                label.chars().count()
            ));
        }
        if let Some(c) = label.chars().find(|c| !allowed(*c)) {
            return wrong(format!(
                "host name `{says}` contains `{}`; only letters, digits, `-`, `_` and dots are allowed",
                shown(c.encode_utf8(&mut [0; 4]))
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong(format!(
                "host name `{says}` has a part that starts or ends with `-`"
            ));
        }
    }
    Ok(text.to_owned())
}
