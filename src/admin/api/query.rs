//! The parameters of a request for connections or clients. No I/O.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::state::{Client, Entries, Entry, Label, Network, Peer, Phase};

/// The most connections in one answer.
const LIMIT_MAX: usize = 1000;
/// How many connections an answer has if the request does not say.
const LIMIT: usize = 100;

/// The parameters of what clients have used.
const OF_ACCOUNTS: [&str; 5] = ["peer", "sort", "order", "limit", "offset"];

/// What a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Open connections.
    Connections,
    /// The clients that they come from.
    Clients,
    /// What clients have used.
    Accounts,
}

/// Which connections are asked for, as a list of what, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    pub(crate) list: List,
    entrypoint: Option<String>,
    service: Option<String>,
    server: Option<String>,
    peer: Option<Clients>,
    state: Option<Phase>,
    min_age_seconds: f64,
    sort: Option<Sort>,
    pub(super) is_ascending: bool,
    pub(super) limit: usize,
    pub(super) offset: usize,
}

/// What a parameter has that it may not have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// The parameter's name.
    pub parameter: String,
    /// What is wrong with it, and what it may be.
    pub why: String,
}

/// Passes each parameter's name and value to `set`, which says what is wrong with it.
///
/// # Errors
/// What `set` says, or that a parameter is there twice.
pub(super) fn each<'a>(
    parameters: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    mut set: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), Invalid> {
    let mut seen = Vec::new();
    for (name, value) in parameters {
        let set = match seen.contains(&name) {
            true => Err("it is there twice".to_owned()),
            false => set(&name, &value),
        };
        set.map_err(|why| Invalid {
            parameter: name.to_string(),
            why,
        })?;
        seen.push(name);
    }
    Ok(())
}

/// The number that a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Age,
    Bytes,
    Open,
    ToServerBytes,
    ToClientBytes,
}

impl Sort {
    const ALL: [(&'static str, Self); 5] = [
        ("open", Self::Open),
        ("age", Self::Age),
        ("bytes", Self::Bytes),
        ("to_server_bytes", Self::ToServerBytes),
        ("to_client_bytes", Self::ToClientBytes),
    ];
}

/// The clients that a connection may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    /// Those of a Unix socket.
    Unix,
    /// Those of a network.
    Network(Network),
}

impl Clients {
    fn parse(text: &str) -> Option<Self> {
        if text == "unix" {
            return Some(Self::Unix);
        }
        let (ip, bits) = match text.split_once('/') {
            None => (text, None),
            Some((ip, bits)) => (ip, Some(number(bits)?)),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| u8::try_from(bits).ok())?;
        (bits <= most).then(|| Self::Network(Network::of(ip, bits)))
    }

    fn have(self, peer: Peer) -> bool {
        match (self, peer) {
            (Self::Unix, Peer::Unix) => true,
            (Self::Network(network), Peer::Tcp(peer)) => network.contains(peer.ip()),
            _ => false,
        }
    }
}

/// Parses a number in digits alone, at most `u32::MAX`.
pub(super) fn number(text: &str) -> Option<usize> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = text.parse().ok().filter(|_| is_number)?;
    Some(number as usize)
}

impl Query {
    /// Asks for the connections that have been open the longest, or the clients with the most.
    fn new(list: List) -> Self {
        Self {
            list,
            entrypoint: None,
            service: None,
            server: None,
            peer: None,
            state: None,
            min_age_seconds: 0.0,
            sort: None,
            is_ascending: false,
            limit: LIMIT,
            offset: 0,
        }
    }

    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// If one of them is unknown, is there twice, or has a value that it may not have.
    pub(crate) fn parse<'a>(
        list: List,
        parameters: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Self, Invalid> {
        let mut query = Self::new(list);
        each(parameters, |name, value| {
            match list != List::Accounts || OF_ACCOUNTS.contains(&name) {
                true => query.set(name, value),
                false => Err(format!(
                    "unknown parameter; those of this path are {}",
                    OF_ACCOUNTS.join(", ")
                )),
            }
        })?;
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned());
        match name {
            "entrypoint" => self.entrypoint = text(),
            "service" => self.service = text(),
            "server" => self.server = text(),
            "peer" => {
                let clients = Clients::parse(value).ok_or(
                    "write an IP address, a network such as 192.0.2.0/24 or 2001:db8::/32, or unix",
                )?;
                self.peer = Some(clients);
            }
            "state" => {
                let mut states = Phase::ALL.iter().copied();
                let state = states.find(|state| state.label() == value);
                self.state =
                    Some(state.ok_or_else(|| words(Phase::ALL.iter().map(|state| state.label())))?);
            }
            "min_age_seconds" => {
                let age: Option<f64> = value.parse().ok();
                let age = age.filter(|age| age.is_finite() && *age >= 0.0);
                self.min_age_seconds = age.ok_or("write a number that is not negative")?;
            }
            "sort" => {
                // Each connection is one.
                let sorts = &Sort::ALL[usize::from(self.list == List::Connections)..];
                let sort = sorts.iter().find(|(name, _)| *name == value);
                let names = || words(sorts.iter().map(|(name, _)| *name));
                self.sort = Some(sort.ok_or_else(names)?.1);
            }
            "order" => {
                self.is_ascending = match value {
                    "asc" => true,
                    "desc" => false,
                    _ => return Err(words(["asc", "desc"].into_iter())),
                }
            }
            "limit" => {
                let limit = number(value).filter(|n| (1..=LIMIT_MAX).contains(n));
                self.limit = limit.ok_or("write a number from 1 to 1000")?;
            }
            "offset" => {
                self.offset = number(value).ok_or("write a number from 0 to 4294967295")?;
            }
            _ => {
                return Err(
                    "unknown parameter; those of this path are entrypoint, service, server, \
                            peer, state, min_age_seconds, sort, order, limit and offset"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// Returns the number to sort by.
    pub(super) fn sort(&self) -> Sort {
        self.sort.unwrap_or(match self.list {
            List::Connections => Sort::Age,
            List::Clients => Sort::Open,
            List::Accounts => Sort::Bytes,
        })
    }

    /// Returns whether a client is among those that are asked for.
    pub(super) fn fits_client(&self, client: Client) -> bool {
        match (self.peer, client) {
            (None, _) | (Some(Clients::Unix), Client::Unix) => true,
            (Some(Clients::Network(network)), Client::Network(client)) => {
                network.bits() <= client.bits() && network.contains(client.first())
            }
            _ => false,
        }
    }

    /// Returns whether a connection is among those that are asked for.
    pub(super) fn fits(&self, entries: &Entries, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == name)
        };
        let server = || entry.server.map_or("", |id| entries.server_name(id));
        let age = || entries.at.saturating_duration_since(entry.opened);
        is(&self.service, entry.service.as_deref().unwrap_or_default())
            && self.state.is_none_or(|state| state == entry.phase)
            && self.peer.is_none_or(|clients| clients.have(entry.peer))
            && (self.min_age_seconds == 0.0 || age().as_secs_f64() >= self.min_age_seconds)
            && (self.entrypoint.is_none()
                || is(&self.entrypoint, entries.entrypoint_name(entry.entrypoint)))
            && (self.server.is_none() || entry.server.is_some() && is(&self.server, server()))
    }
}

/// Checks that a request has no parameter.
///
/// # Errors
/// If it has one.
pub(crate) fn no_parameters<'a>(
    mut parameters: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
) -> Result<(), Invalid> {
    match parameters.next() {
        None => Ok(()),
        Some((name, _)) => Err(Invalid {
            parameter: name.into_owned(),
            why: "this path takes no parameter".to_owned(),
        }),
    }
}

pub(super) fn words<'a>(all: impl Iterator<Item = &'a str>) -> String {
    format!("write one of {}", all.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<Query, Invalid> {
        let pairs = parameters.iter();
        let pairs = pairs.map(|(name, value)| (Cow::from(*name), Cow::from(*value)));
        Query::parse(List::Connections, pairs)
    }

    #[test]
    fn parameters_have_exact_values() {
        let wrong = [
            ("limit", "0"),
            ("limit", "1001"),
            ("limit", "+1"),
            ("limit", ""),
            ("offset", "-1"),
            ("offset", "4294967296"),
            ("min_age_seconds", "-1"),
            ("min_age_seconds", "inf"),
            ("min_age_seconds", "nan"),
            ("min_age_seconds", ""),
            ("state", "Queued"),
            ("sort", "rate"),
            ("sort", "open"),
            ("order", "up"),
            ("peer", ""),
            ("peer", "example.org"),
            ("peer", "192.0.2.1/33"),
            ("peer", "192.0.2.1/"),
            ("peer", "2001:db8::/129"),
            ("Limit", "1"),
        ];
        for (name, value) in wrong {
            let invalid = parse(&[(name, value)]).unwrap_err();
            assert_eq!(invalid.parameter, name, "{value}");
            assert!(
                invalid.why.contains("write") || name == "Limit",
                "{invalid:?}"
            );
        }
        let twice = parse(&[("limit", "1"), ("sort", "age"), ("limit", "1")]);
        assert_eq!(twice.unwrap_err().parameter, "limit");
        assert_eq!(parse(&[]), Ok(Query::new(List::Connections)));
        let query = parse(&[
            ("limit", "1000"),
            ("offset", "0"),
            ("min_age_seconds", "1e3"),
        ]);
        let query = query.unwrap();
        assert_eq!((query.limit, query.min_age_seconds), (1000, 1000.0));
    }

    #[test]
    fn networks_have_their_addresses_and_no_others() {
        let have = |network: &str, peer: &str| {
            let peer: std::net::SocketAddr = peer.parse().unwrap();
            Clients::parse(network).unwrap().have(peer.into())
        };
        for (network, peer) in [
            ("192.0.2.7", "192.0.2.7:1"),
            ("192.0.2.9/24", "192.0.2.7:1"),
            ("0.0.0.0/0", "192.0.2.7:1"),
            ("192.0.2.7", "[::ffff:192.0.2.7]:1"),
            ("2001:db8::/32", "[2001:db8:1::1]:1"),
            ("::/0", "[2001:db8:1::1]:1"),
        ] {
            assert!(have(network, peer), "{network} {peer}");
        }
        for (network, peer) in [
            ("192.0.2.7", "192.0.2.8:1"),
            ("192.0.2.0/25", "192.0.2.128:1"),
            ("0.0.0.0/0", "[2001:db8::1]:1"),
            ("2001:db8::/32", "[2001:db9::1]:1"),
            ("unix", "192.0.2.7:1"),
        ] {
            assert!(!have(network, peer), "{network} {peer}");
        }
        assert!(Clients::Unix.have(Peer::Unix));
        assert!(!Clients::parse("::/0").unwrap().have(Peer::Unix));
    }
}
