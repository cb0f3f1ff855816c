//! The header of the PROXY protocol, which a proxy sends before a connection's own bytes to tell
//! whose connection it is.
//!
//! The specification is HAProxy's `doc/proxy-protocol.txt`. Version 1 is a line of text, version 2
//! is binary.

mod v1;
mod v2;
mod value;

use std::net::{IpAddr, SocketAddr};

pub use value::{Client, MAX_V1_BYTES, MAX_V2_BYTES, Malformed, Parsed};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Parses the header at the beginning of `bytes`, in either version.
///
/// # Errors
/// If no bytes that may follow would make it a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    match bytes.first() {
        None => Ok(Parsed::Partial),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(Malformed::NoHeader),
    }
}

impl Version {
    /// Returns the header that says `client`.
    #[must_use]
    pub fn header(self, client: Client) -> Vec<u8> {
        let client = match client {
            Client::Tcp {
                source,
                destination,
            } => of_one_family(source, destination),
            other => other,
        };
        match self {
            Self::V1 => v1::header(client),
            Self::V2 => v2::header(client),
        }
    }
}

/// Returns a client whose addresses are of one family, as each header's are. IPv4 addresses beside
/// an IPv6 address are mapped.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> Client {
    let plain = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let mapped = |it: SocketAddr| match it.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), it.port()),
        IpAddr::V6(_) => it,
    };
    let (source, destination) = (plain(source), plain(destination));
    match source.is_ipv4() == destination.is_ipv4() {
        true => Client::Tcp {
            source,
            destination,
        },
        false => Client::Tcp {
            source: mapped(source),
            destination: mapped(destination),
        },
    }
}

#[cfg(test)]
mod tests;
