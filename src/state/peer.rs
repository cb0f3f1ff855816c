//! Who is at the client's end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Who is at the client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client over TCP.
    Tcp(SocketAddr),
    /// A client over a Unix socket, which has no address.
    Unix,
}

/// Whose connection it is, as the proxy at its other end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The client.
    pub peer: Peer,
    /// The address that the client has connected to.
    pub destination: Option<SocketAddr>,
}

impl From<SocketAddr> for Peer {
    /// Represents an IPv4 client of an IPv6 listener by its IPv4 address.
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(match address.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
            IpAddr::V6(_) => address,
        })
    }
}

impl Peer {
    /// Returns the client's IP address, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A [`Peer`] in 24 bytes instead of 32, because each open connection has one. It drops the IPv6
/// flow label.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedPeer {
    ip: [u8; 16],
    scope_id: u32,
    port: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    V4,
    V6,
    Unix,
}

impl From<Peer> for PackedPeer {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(SocketAddr::V4(address)) => Self {
                ip: address.ip().to_ipv6_mapped().octets(),
                scope_id: 0,
                port: address.port(),
                kind: Kind::V4,
            },
            Peer::Tcp(SocketAddr::V6(address)) => Self {
                ip: address.ip().octets(),
                scope_id: address.scope_id(),
                port: address.port(),
                kind: Kind::V6,
            },
            Peer::Unix => Self {
                ip: [0; 16],
                scope_id: 0,
                port: 0,
                kind: Kind::Unix,
            },
        }
    }
}

impl From<PackedPeer> for Peer {
    fn from(packed: PackedPeer) -> Self {
        let [.., a, b, c, d] = packed.ip;
        match packed.kind {
            Kind::V4 => Self::Tcp(SocketAddrV4::new([a, b, c, d].into(), packed.port).into()),
            Kind::V6 => {
                let ip = Ipv6Addr::from(packed.ip);
                Self::Tcp(SocketAddrV6::new(ip, packed.port, 0, packed.scope_id).into())
            }
            Kind::Unix => Self::Unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips() {
        let tcp = [
            "192.0.2.7:80",
            "0.0.0.0:1",
            "[2001:db8::1]:65535",
            "[fe80::1%3]:22",
            "[::ffff:192.0.2.7]:80",
        ];
        let tcp = tcp.map(|text| Peer::Tcp(text.parse().expect("an address")));
        for peer in tcp.into_iter().chain([Peer::Unix]) {
            assert_eq!(Peer::from(PackedPeer::from(peer)), peer);
        }
        assert_eq!(size_of::<PackedPeer>(), 24);
    }
}
