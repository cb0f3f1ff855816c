//! Version 1: a line of text, such as `PROXY TCP4 192.0.2.7 192.0.2.1 51000 443`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::value::{Client, MAX_V1_BYTES, Malformed, Parsed, begins};

const START: &[u8] = b"PROXY ";

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    begins(bytes, START)?;
    let line = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = line.iter().position(|byte| !matches!(byte, b' '..=b'~')) else {
        return match line.len() {
            MAX_V1_BYTES => Err(Malformed::TooLong),
            _ => Ok(Parsed::Partial),
        };
    };
    let text = std::str::from_utf8(&line[..end]).map_err(|_| Malformed::Line)?;
    match &line[end..] {
        [b'\r'] if line.len() == MAX_V1_BYTES => Err(Malformed::TooLong),
        [b'\r'] => Ok(Parsed::Partial),
        [b'\r', b'\n', ..] => Ok(Parsed::Header {
            bytes: end + 2,
            client: client(&text[START.len()..]).ok_or(Malformed::Line)?,
        }),
        _ => Err(Malformed::Line),
    }
}

/// Parses what follows `PROXY `.
fn client(text: &str) -> Option<Client> {
    let mut words = text.split(' ');
    let (source, destination) = match words.next()? {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(Client::Unknown),
        "TCP4" => (
            ip::<Ipv4Addr>(words.next()?)?,
            ip::<Ipv4Addr>(words.next()?)?,
        ),
        "TCP6" => (
            ip::<Ipv6Addr>(words.next()?)?,
            ip::<Ipv6Addr>(words.next()?)?,
        ),
        _ => return None,
    };
    let source = SocketAddr::new(source, port(words.next()?)?);
    let destination = SocketAddr::new(destination, port(words.next()?)?);
    words.next().is_none().then_some(Client::Tcp {
        source,
        destination,
    })
}

fn ip<T: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<T>().ok().map(T::into)
}

/// Parses a port: digits without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    let is_plain = text.starts_with(|c: char| matches!(c, '1'..='9')) || text == "0";
    is_plain.then_some(port)
}

pub(super) fn header(client: Client) -> Vec<u8> {
    let text = match client {
        Client::Tcp {
            source,
            destination,
        } => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let (from_port, to_port) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n")
        }
        Client::Local | Client::Unknown | Client::Unix => "PROXY UNKNOWN\r\n".to_owned(),
    };
    text.into_bytes()
}
