//! The settings of the system's resolver: resolv.conf(5). No I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The most name servers, as in glibc and musl.
const MAX_SERVERS: usize = 3;
/// The most search domains: as many as glibc had for thirty years.
const MAX_SEARCH: usize = 6;
const PORT: u16 = 53;

/// What resolv.conf(5) says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// The name servers, at least one.
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is first looked up below the search domains.
    ndots: usize,
    /// How long one name server may take.
    pub(super) timeout: Duration,
    /// How often each name server is asked.
    pub(super) attempts: u32,
}

impl ResolvConf {
    /// Reads the file's text. Ignores what it does not understand, as the C library does.
    ///
    /// `interface` returns the number of a network interface.
    pub(super) fn parse(text: &str, interface: impl Fn(&str) -> Option<u32>) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|it| server(it, &interface));
                    let room = MAX_SERVERS - conf.servers.len();
                    conf.servers.extend(server.into_iter().take(room));
                }
                // The last one counts.
                Some("search" | "domain") => {
                    let domains = words.map(|it| it.trim_end_matches('.').to_owned());
                    let domains = domains.filter(|it| !it.is_empty());
                    conf.search = domains.take(MAX_SEARCH).collect();
                }
                Some("options") => words.for_each(|it| conf.option(it)),
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        conf
    }

    fn option(&mut self, option: &str) {
        let Some((key, Ok(value))) = option.split_once(':').map(|(k, v)| (k, v.parse::<u16>()))
        else {
            return;
        };
        match key {
            "ndots" => self.ndots = value.min(15).into(),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5).into(),
            _ => {}
        }
    }

    /// Returns the full names that `name` may stand for, in the order in which they are looked up.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let below = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let mut all: Vec<_> = below.collect();
        match name.matches('.').count() >= self.ndots {
            true => all.insert(0, name.to_owned()),
            false => all.push(name.to_owned()),
        }
        all
    }
}

fn server(text: &str, interface: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    match text.split_once('%') {
        Some((ip, zone)) => {
            let zone = zone.parse().ok().or_else(|| interface(zone))?;
            Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, zone).into())
        }
        None => Some((text.parse::<IpAddr>().ok()?, PORT).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ResolvConf {
        ResolvConf::parse(text, |it| (it == "eth0").then_some(2))
    }

    #[test]
    fn settings_are_read_and_bounded() {
        let conf = parse(
            "# a comment\nnameserver 10.0.0.1\nnameserver\nnameserver nas\nnameserver fe80::1%eth0\n\
             nameserver fe80::1%eth9\nnameserver ::1\nnameserver 10.0.0.4\n\
             domain old.lan\nsearch a.lan. b.lan\noptions edns0 ndots:99 timeout:0 attempts:2000\n\
             options timeout:x",
        );
        let servers: Vec<_> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fe80::1%2]:53", "[::1]:53"]);
        assert_eq!(conf.search, ["a.lan", "b.lan"]);
        assert_eq!((conf.ndots, conf.attempts), (15, 5));
        assert_eq!(conf.timeout, Duration::from_secs(1));
    }

    #[test]
    fn without_a_file_this_machine_is_asked() {
        let conf = parse("");
        assert_eq!(conf.servers, ["127.0.0.1:53".parse().expect("an address")]);
        assert_eq!(conf.candidates("_mqtt._tcp"), ["_mqtt._tcp"]);
    }

    #[test]
    fn search_domains_come_first_for_names_with_few_dots() {
        let conf = parse("search a b\noptions ndots:2");
        assert_eq!(conf.candidates("x.y"), ["x.y.a", "x.y.b", "x.y"]);
        assert_eq!(conf.candidates("x.y.z"), ["x.y.z", "x.y.z.a", "x.y.z.b"]);
        assert_eq!(conf.candidates("x.y."), ["x.y"]);
    }
}
