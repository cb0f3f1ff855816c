//! Which rule of an entrypoint decides about a connection: from its client's address and first
//! bytes to the number of a rule. No I/O, no clock.

use std::fmt;
use std::net::IpAddr;

use super::network::Network;
use crate::wire::client_hello::{self, ClientHello};
use crate::wire::first_bytes::Protocol;
use crate::wire::http_host;

/// A rule fits a connection if all of its conditions hold. A condition is a list that holds if one
/// of its values fits; an empty list is no condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Names that a TLS client asks for.
    pub sni: Vec<NamePattern>,
    /// Protocols that a TLS client offers, as they are on the wire.
    pub alpn: Vec<Box<[u8]>>,
    /// Protocols that the first bytes belong to.
    pub starts: Vec<Protocol>,
    /// First bytes.
    pub starts_with: Vec<Box<[u8]>>,
    /// Hosts of the first HTTP request.
    pub host: Vec<NamePattern>,
    /// Networks that the client is in.
    pub from: Vec<Network>,
}

/// A host name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    /// In lower case, without the dot at the end.
    name: Box<str>,
    is_wildcard: bool,
}

/// How well a rule fits: first by its name, then by its network. The greatest decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    name: u16,
    network: u8,
}

/// Whether a condition holds, and how well. The rank of an undecided one is the best that it may
/// get.
#[derive(Clone, Copy)]
enum Fit<T> {
    No,
    Undecided(T),
    Yes(T),
}

/// What is known of a connection. The inner `None` means that there is no such thing, the outer one
/// that this is not known yet.
struct Known<'a> {
    from: Option<IpAddr>,
    bytes: &'a [u8],
    /// Whether more bytes may follow.
    may_grow: bool,
    hello: Option<Option<ClientHello>>,
    host: Option<Option<Box<str>>>,
}

/// Returns the position of the rule that decides about a connection, or the inner `None` if none
/// fits. Returns the outer `None` if that depends on bytes that have not arrived.
///
/// `from` is the client's address, if it has one, and `bytes` is what it has sent so far; with
/// `may_grow`, more may follow.
#[must_use]
pub fn decide(
    rules: &[Rule],
    from: Option<IpAddr>,
    bytes: &[u8],
    may_grow: bool,
) -> Option<Option<usize>> {
    let known = Known::of(rules, from, bytes, may_grow);
    let (mut best, mut rival) = (None, None);
    for (index, rule) in rules.iter().enumerate() {
        let (place, rank) = match rule.fit(&known) {
            Fit::No => continue,
            Fit::Undecided(rank) => (&mut rival, rank),
            Fit::Yes(rank) => (&mut best, rank),
        };
        if place.is_none_or(|(other, _)| rank > other) {
            *place = Some((rank, index));
        }
    }
    let is_open = match (best, rival) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some((rank, index)), Some((other, earlier))) => {
            other > rank || (other == rank && earlier < index)
        }
    };
    (!is_open).then(|| best.map(|(_, index)| index))
}

/// Returns how many of the first bytes decide at most. With 0, the bytes decide nothing.
#[must_use]
pub fn most_bytes(rules: &[Rule]) -> usize {
    rules.iter().map(Rule::most_bytes).max().unwrap_or(0)
}

impl Rule {
    /// Returns whether it has no condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn reads_hello(&self) -> bool {
        !self.sni.is_empty() || !self.alpn.is_empty()
    }

    fn most_bytes(&self) -> usize {
        let mut most = 0;
        if self.reads_hello() {
            most = client_hello::MOST_BYTES;
        }
        if !self.host.is_empty() {
            most = most.max(http_host::MOST_BYTES);
        }
        if !self.starts.is_empty() {
            most = most.max(Protocol::MOST_BYTES);
        }
        let lengths = self.starts_with.iter().map(|it| it.len());
        most.max(lengths.max().unwrap_or(0))
    }

    /// Returns whether `later` never decides if this rule comes before it: whatever fits that one
    /// fits this one at least as well.
    #[must_use]
    pub fn hides(&self, later: &Self) -> bool {
        // A rule with a name or a network comes before one without.
        self.sni.is_empty() == later.sni.is_empty()
            && self.host.is_empty() == later.host.is_empty()
            && self.from.is_empty() == later.from.is_empty()
            && has_all(&self.sni, &later.sni)
            && has_all(&self.host, &later.host)
            && has_all(&self.from, &later.from)
            && has_all(&self.alpn, &later.alpn)
            && has_all(&self.starts, &later.starts)
            && has_all(&self.starts_with, &later.starts_with)
    }

    fn fit(&self, known: &Known<'_>) -> Fit<Rank> {
        let network = match self.from.as_slice() {
            [] => 0,
            networks => {
                let holds = |it: &&Network| known.from.is_some_and(|ip| it.contains(ip));
                let fitting = networks.iter().filter(holds);
                match fitting.map(|it| it.bits() + 1).max() {
                    Some(rank) => rank,
                    None => return Fit::No,
                }
            }
        };
        let server_name = known.hello.as_ref();
        let server_name =
            server_name.map(|it| it.as_ref().and_then(|it| it.server_name.as_deref()));
        let host = known.host.as_ref().map(Option::as_deref);
        let (mut name, mut is_open) = (0, false);
        for (patterns, asked) in [(&self.sni, server_name), (&self.host, host)] {
            match fit_names(patterns, asked) {
                Fit::No => return Fit::No,
                Fit::Undecided(rank) => {
                    is_open = true;
                    name = name.max(rank);
                }
                Fit::Yes(rank) => name = name.max(rank),
            }
        }
        for fit in [self.fit_alpn(known), self.fit_bytes(known)] {
            match fit {
                Fit::No => return Fit::No,
                Fit::Undecided(()) => is_open = true,
                Fit::Yes(()) => {}
            }
        }
        let rank = Rank { name, network };
        match is_open {
            true => Fit::Undecided(rank),
            false => Fit::Yes(rank),
        }
    }

    fn fit_alpn(&self, known: &Known<'_>) -> Fit<()> {
        match &known.hello {
            _ if self.alpn.is_empty() => Fit::Yes(()),
            None => Fit::Undecided(()),
            Some(Some(hello)) if self.alpn.iter().any(|it| hello.alpn.contains(it)) => Fit::Yes(()),
            Some(_) => Fit::No,
        }
    }

    /// Looks at `starts` and `starts_with`.
    fn fit_bytes(&self, known: &Known<'_>) -> Fit<()> {
        let (bytes, may_grow) = (known.bytes, known.may_grow);
        let protocols = self.starts.iter().map(|it| it.matches(bytes));
        let patterns = self.starts_with.iter().map(|it| starts_with(bytes, it));
        let fits = [
            (self.starts.is_empty(), any_of(protocols)),
            (self.starts_with.is_empty(), any_of(patterns)),
        ];
        let mut is_open = false;
        for (is_no_condition, fit) in fits {
            match fit {
                _ if is_no_condition => {}
                Some(true) => {}
                None if may_grow => is_open = true,
                None | Some(false) => return Fit::No,
            }
        }
        match is_open {
            true => Fit::Undecided(()),
            false => Fit::Yes(()),
        }
    }
}

impl<'a> Known<'a> {
    fn of(rules: &[Rule], from: Option<IpAddr>, bytes: &'a [u8], may_grow: bool) -> Self {
        let may_grow = may_grow && bytes.len() < most_bytes(rules);
        let mut hello = (!may_grow).then_some(None);
        let mut host = (!may_grow).then_some(None);
        // What belongs to another protocol needs no more bytes.
        if rules.iter().any(Rule::reads_hello) {
            match client_hello::parse(bytes) {
                Ok(Some(it)) => hello = Some(Some(it)),
                Err(_) => hello = Some(None),
                Ok(None) if Protocol::Tls.matches(bytes) == Some(false) => hello = Some(None),
                Ok(None) => {}
            }
        }
        if rules.iter().any(|it| !it.host.is_empty()) {
            match http_host::parse(bytes) {
                Ok(Some(it)) => host = Some(it),
                Err(_) => host = Some(None),
                Ok(None) if Protocol::Http.matches(bytes) == Some(false) => host = Some(None),
                Ok(None) => {}
            }
        }
        Self {
            from,
            bytes,
            may_grow,
            hello,
            host,
        }
    }
}

impl NamePattern {
    /// The pattern for one name, or for all below it. The name is a valid host name.
    #[must_use]
    pub fn new(name: &str, is_wildcard: bool) -> Self {
        let name = name.strip_suffix('.').unwrap_or(name);
        Self {
            name: name.to_ascii_lowercase().into(),
            is_wildcard,
        }
    }

    /// Returns how well `name`, in lower case, fits.
    fn rank(&self, name: &str) -> Option<u16> {
        let fits = match self.is_wildcard {
            false => name == &*self.name,
            true => name
                .strip_suffix(&*self.name)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        };
        fits.then(|| self.best())
    }

    /// Returns the rank of a name that fits: an exact one comes first, then the longest.
    fn best(&self) -> u16 {
        match self.is_wildcard {
            false => u16::MAX,
            true => u16::try_from(self.name.len()).unwrap_or(u16::MAX - 1),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = if self.is_wildcard { "*." } else { "" };
        write!(f, "{begin}{}", self.name)
    }
}

/// Compares patterns with a name that a client asks for, as [`Known`] has it.
fn fit_names(patterns: &[NamePattern], asked: Option<Option<&str>>) -> Fit<u16> {
    match asked {
        _ if patterns.is_empty() => Fit::Yes(0),
        None => Fit::Undecided(patterns.iter().map(NamePattern::best).max().unwrap_or(0)),
        Some(None) => Fit::No,
        Some(Some(name)) => {
            let rank = patterns.iter().filter_map(|it| it.rank(name)).max();
            rank.map_or(Fit::No, Fit::Yes)
        }
    }
}

/// Returns whether one of them is true, or `None` if one may become so.
fn any_of(all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut any = Some(false);
    for it in all {
        match it {
            Some(true) => return Some(true),
            None => any = None,
            Some(false) => {}
        }
    }
    any
}

fn starts_with(bytes: &[u8], pattern: &[u8]) -> Option<bool> {
    match bytes.len() < pattern.len() {
        true if pattern.starts_with(bytes) => None,
        _ => Some(bytes.starts_with(pattern)),
    }
}

/// Returns whether a condition holds wherever that of a later rule does.
fn has_all<T: PartialEq>(own: &[T], later: &[T]) -> bool {
    own.is_empty() || (!later.is_empty() && later.iter().all(|it| own.contains(it)))
}

#[cfg(test)]
mod tests;
