//! Whose use of the proxy is counted together: a client's network.

use std::fmt;

use super::network::Network;
use super::peer::Peer;

/// Whose use is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// All clients of Unix sockets.
    Unix,
    /// The clients of a network.
    Network(Network),
}

/// How many bits of an address tell one client from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Those of an IPv4 address.
    pub ipv4: u8,
    /// Those of an IPv6 address.
    pub ipv6: u8,
}

impl Prefixes {
    /// Returns the client that a connection is from.
    #[must_use]
    pub fn client(self, peer: Peer) -> Client {
        match peer {
            Peer::Unix => Client::Unix,
            Peer::Tcp(address) => {
                let ip = address.ip();
                let bits = if ip.is_ipv4() { self.ipv4 } else { self.ipv6 };
                Client::Network(Network::of(ip, bits))
            }
        }
    }

    /// Returns the client that has all addresses of `client`. Returns `None` if several have some.
    #[must_use]
    pub fn of(self, client: Client) -> Option<Client> {
        let Client::Network(network) = client else {
            return Some(client);
        };
        let (ip, bits) = (network.first(), network.bits());
        let own = if ip.is_ipv4() { self.ipv4 } else { self.ipv6 };
        (own <= bits).then(|| Client::Network(Network::of(ip, own)))
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Network(network) => network.fmt(f),
        }
    }
}
