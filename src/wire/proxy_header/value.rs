//! What a header says, and what can be wrong with one.

use std::fmt;
use std::net::SocketAddr;

/// Whose connection it is, as a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The proxy's own, such as a health check.
    Local,
    /// Somebody else's, whose address the header does not have.
    Unknown,
    /// That of a client over a Unix socket.
    Unix,
    /// That of a client over TCP.
    Tcp {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Partial,
    /// A whole header.
    Header {
        /// How many bytes belong to it.
        bytes: usize,
        /// What it says.
        client: Client,
    },
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes are something else.
    NoHeader,
    /// It is longer than [`MAX_V1_BYTES`] or [`MAX_V2_BYTES`].
    TooLong,
    /// The line of version 1 is not as specified.
    Line,
    /// The version, the command or the family of version 2 does not exist.
    Kind,
    /// Version 2 has no room for the addresses of its family.
    Addresses,
    /// The fields behind the addresses of version 2 are cut off.
    Fields,
    /// The checksum of version 2 is wrong.
    Checksum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "there is none",
            Self::TooLong => "it is too long",
            Self::Line => "its line is malformed",
            Self::Kind => "its version, command or family is unknown",
            Self::Addresses => "its addresses are cut off",
            Self::Fields => "its fields are cut off",
            Self::Checksum => "its checksum is wrong",
        })
    }
}

/// The longest header of version 1: that of two IPv6 addresses, or as much that is unknown
/// (proxy-protocol.txt, section 2.1).
pub const MAX_V1_BYTES: usize = 107;
/// The longest header of version 2 that is read: nginx's limit (NGX_PROXY_PROTOCOL_MAX_HEADER). The
/// format allows 64 KiB.
pub const MAX_V2_BYTES: usize = 4096;

/// Returns an error unless `bytes` are the beginning of `start`, or begin with it.
pub(super) fn begins(bytes: &[u8], start: &[u8]) -> Result<(), Malformed> {
    let n = bytes.len().min(start.len());
    match bytes[..n] == start[..n] {
        true => Ok(()),
        false => Err(Malformed::NoHeader),
    }
}
