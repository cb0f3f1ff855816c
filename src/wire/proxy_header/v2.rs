//! Version 2: a signature, what it is about, the length of the rest, addresses, and fields of a
//! type, a length and a value (TLVs), of which only the checksum is read.

use std::net::SocketAddr;

use super::value::{Client, MAX_V2_BYTES, Malformed, Parsed, begins};
use crate::wire::crc32c::crc32c;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, and the length of the rest.
const FIXED_BYTES: usize = 16;

const VERSION: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DGRAM: u8 = 0x32;

/// The type of the field that has the checksum (PP2_TYPE_CRC32C).
const CHECKSUM: u8 = 0x03;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    begins(bytes, SIGNATURE)?;
    let command = match bytes.get(12) {
        None => return Ok(Parsed::Partial),
        Some(byte) => byte ^ VERSION,
    };
    if command != LOCAL && command != PROXY {
        return Err(Malformed::Kind);
    }
    let Some(family) = bytes.get(13).copied() else {
        return Ok(Parsed::Partial);
    };
    let address_bytes = match family {
        UNSPEC => 0,
        TCP4 | UDP4 => 12,
        TCP6 | UDP6 => 36,
        UNIX_STREAM | UNIX_DGRAM => 216,
        _ => return Err(Malformed::Kind),
    };
    let Some(length) = bytes.get(14..FIXED_BYTES) else {
        return Ok(Parsed::Partial);
    };
    let whole = FIXED_BYTES + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if whole > MAX_V2_BYTES {
        return Err(Malformed::TooLong);
    }
    let fields_at = FIXED_BYTES + address_bytes;
    // What a LOCAL header has behind its length is to be discarded.
    if command == PROXY && whole < fields_at {
        return Err(Malformed::Addresses);
    }
    let Some(header) = bytes.get(..whole) else {
        return Ok(Parsed::Partial);
    };
    match check(header, fields_at) {
        // So is it without a family: there may be anything.
        Err(Malformed::Fields) if command == LOCAL || family == UNSPEC => {}
        checked => checked?,
    }
    let client = match (command, family) {
        (LOCAL, _) => Client::Local,
        (_, TCP4) => tcp::<4>(header),
        (_, TCP6) => tcp::<16>(header),
        (_, UNIX_STREAM) => Client::Unix,
        _ => Client::Unknown,
    };
    Ok(Parsed::Header {
        bytes: whole,
        client,
    })
}

/// Checks that the fields from `at` on are whole, and the checksum if there is one.
fn check(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at != header.len() {
        let head = header.get(at..at + 3).ok_or(Malformed::Fields)?;
        let value_at = at + 3;
        at = value_at + usize::from(u16::from_be_bytes([head[1], head[2]]));
        let value = header.get(value_at..at).ok_or(Malformed::Fields)?;
        if head[0] != CHECKSUM {
            continue;
        }
        // It is that of the header with zeros in its place.
        let bytes = header.iter().enumerate();
        let zeroed = bytes.map(|(i, byte)| match (value_at..at).contains(&i) {
            true => 0,
            false => *byte,
        });
        if value != crc32c(zeroed).to_be_bytes() {
            return Err(Malformed::Checksum);
        }
    }
    Ok(())
}

/// Reads two addresses of `N` bytes and two ports, which are there.
fn tcp<const N: usize>(header: &[u8]) -> Client
where
    std::net::IpAddr: From<[u8; N]>,
{
    let rest = &header[FIXED_BYTES..];
    let address = |ip: usize, port: usize| {
        let mut octets = [0; N];
        octets.copy_from_slice(&rest[ip..ip + N]);
        SocketAddr::new(
            octets.into(),
            u16::from_be_bytes([rest[port], rest[port + 1]]),
        )
    };
    Client::Tcp {
        source: address(0, 2 * N),
        destination: address(N, 2 * N + 2),
    }
}

pub(super) fn header(client: Client) -> Vec<u8> {
    let (command, family, addresses) = match client {
        // HAProxy does the same for clients of Unix sockets, and refuses PROXY without a family.
        Client::Local | Client::Unknown | Client::Unix => (LOCAL, UNSPEC, Vec::new()),
        Client::Tcp {
            source,
            destination,
        } => {
            let mut bytes = Vec::with_capacity(36);
            for address in [source, destination] {
                match address {
                    SocketAddr::V4(address) => bytes.extend(address.ip().octets()),
                    SocketAddr::V6(address) => bytes.extend(address.ip().octets()),
                }
            }
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
            let family = if source.is_ipv4() { TCP4 } else { TCP6 };
            (PROXY, family, bytes)
        }
    };
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION | command, family, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}
