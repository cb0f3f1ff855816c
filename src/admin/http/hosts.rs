//! The hosts that the endpoint answers to, so that no web page can read it through a browser (DNS
//! rebinding).
//!
//! A page can request any name in its own domain, and that name can resolve to this machine. The
//! browser says which name it was. No page can be loaded from an address, from `localhost`, or from
//! a name that is not in the public DNS, unless this machine's own network serves it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Domains of local networks. Nobody can register a name in them.
const LOCAL_DOMAINS: [&str; 6] = [
    "local",
    "lan",
    "home",
    "home.arpa",
    "internal",
    "localdomain",
];

/// The hosts in the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Allows these hosts, in addition to those that are always allowed.
    #[must_use]
    pub(crate) fn new(listed: Vec<String>) -> Self {
        Self(listed)
    }

    /// Returns `true` if requests for `host`, with or without a port, are answered. These hosts
    /// are: an IP address, `localhost`, the machine's own name (in full, in short, or in a local
    /// network's domain), and the configured hosts.
    #[must_use]
    pub(crate) fn answer_to(&self, host: &str) -> bool {
        let name = rustix::system::uname();
        self.answer_to_with(host, name.nodename().to_str().unwrap_or_default())
    }

    /// Returns `true` if pages of `origin` may send requests for `host`: those that the endpoint
    /// itself has served, and those of the configured hosts.
    #[must_use]
    pub(crate) fn admit(&self, origin: &str, host: Option<&str>) -> bool {
        let Some((_, authority)) = origin.split_once("://") else {
            return false;
        };
        let is_own = host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
        let name = without_port(authority).unwrap_or_default();
        is_own || self.0.iter().any(|it| it.eq_ignore_ascii_case(name))
    }

    fn answer_to_with(&self, host: &str, own: &str) -> bool {
        let Some(host) = without_port(host) else {
            return false;
        };
        if let Some(ip) = host.strip_prefix('[') {
            let ip = ip.strip_suffix(']');
            return ip.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        }
        if host.parse::<Ipv4Addr>().is_ok() {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let is = |name: &str| host.eq_ignore_ascii_case(name.strip_suffix('.').unwrap_or(name));
        is("localhost") || self.0.iter().any(|name| is(name)) || is_own(host, own)
    }
}

fn is_own(host: &str, own: &str) -> bool {
    if own.is_empty() {
        return false;
    }
    if host.eq_ignore_ascii_case(own) {
        return true;
    }
    let short = own.split('.').next().unwrap_or_default();
    let (name, domain) = host.split_once('.').unwrap_or((host, ""));
    let is_local = domain.is_empty()
        || LOCAL_DOMAINS
            .iter()
            .any(|it| it.eq_ignore_ascii_case(domain));
    name.eq_ignore_ascii_case(short) && is_local
}

/// Returns the host of `host:port`, including the brackets of an IPv6 address, or `None` if the
/// port is invalid.
pub(super) fn without_port(host: &str) -> Option<&str> {
    let end = host.rfind(']').map_or(0, |end| end + 1);
    match host[end..].split_once(':') {
        None => Some(host),
        Some((name, port)) => {
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            is_port.then(|| &host[..end + name.len()])
        }
    }
}

/// The text of the response to a page of another origin.
pub(super) const OTHER_ORIGIN: &str = "403 Forbidden: coracle does not answer to pages of other origins; \
                                       to allow one, add its host to `hosts` in [admin] of the configuration\n";

/// Returns the text of the response to a request for another host.
#[must_use]
pub(super) fn advice(host: &str) -> String {
    // Echoed only if it is valid in the configuration.
    let name = without_port(host).unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(is_plain) {
        return "421 Misdirected Request: coracle answers to its IP address, localhost and its own name; \
                add others to the configuration as `hosts` in [admin]\n"
            .to_owned();
    }
    format!(
        "421 Misdirected Request: coracle does not answer to the name {name}; \
         to allow it, add hosts = [\"{name}\"] to [admin] in the configuration\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_own_names_are_allowed_and_registrable_names_are_not() {
        let hosts = Hosts::new(vec!["nas.example.org".to_owned()]);
        let answers = |host: &str| hosts.answer_to_with(host, "raspberrypi");
        for host in [
            "127.0.0.1",
            "192.168.1.2:2672",
            "[::1]:2672",
            "[fd00::1]",
            "localhost",
            "LocalHost.:2672",
            "raspberrypi",
            "RaspberryPi.local:2672",
            "raspberrypi.lan",
            "raspberrypi.home.arpa",
            "nas.example.org",
            "NAS.example.org.:80",
        ] {
            assert!(answers(host), "{host}");
        }
        for host in [
            "",
            ":2672",
            "evil.example",
            "raspberrypi.evil.example",
            "raspberrypi.local.evil.example",
            "localhost.evil.example",
            "evil.local",
            "127.0.0.1.evil.example",
            "[::1",
            "[evil]",
            "::1",
            "127.0.0.1:80:80",
            "127.0.0.1:x",
            "nas.example.org.evil.example",
        ] {
            assert!(!answers(host), "{host}");
        }
    }

    #[test]
    fn qualified_own_name_is_allowed_in_full_and_in_short() {
        let answers = |host: &str| Hosts::default().answer_to_with(host, "pi.home.example.org");
        assert!(answers("pi.home.example.org"));
        assert!(answers("pi"));
        assert!(answers("pi.local"));
        assert!(!answers("pi.example.org"));
        assert!(!Hosts::default().answer_to_with("", ""));
        assert!(!Hosts::default().answer_to_with(".local", ""));
    }

    #[test]
    fn advice_names_the_key_and_does_not_echo_unsafe_text() {
        assert!(advice("nas.example.org:80").contains("hosts = [\"nas.example.org\"]"));
        for strange in ["<script>", "a\"b", "", "a b"] {
            assert!(advice(strange).contains("`hosts` in [admin]"), "{strange}");
        }
    }
}
