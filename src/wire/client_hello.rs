//! The ClientHello, the first message of TLS, as far as it says which server is meant: the server's
//! name (SNI) and the protocols that the client speaks (ALPN).
//!
//! Formats: RFC 8446, section 4.1.2 (the message) and 5.1 (records), RFC 6066, section 3 (names),
//! RFC 7301, section 3.1 (protocols). Other extensions are skipped, whatever they contain: unknown
//! ones and GREASE (RFC 8701) among them. If the client encrypts its hello (ECH), the name is that
//! of the outer one, which is all that is legible.

use std::borrow::Cow;
use std::fmt;

use super::host_name::{host_name, is_ipv4};

/// What a ClientHello says about the server that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name in lower case, without a trailing dot. `None` also if what stands there is
    /// an IP address, which is not permitted (RFC 6066, section 3), or not the name of a host.
    pub server_name: Option<Box<str>>,
    /// The protocols that the client speaks, the preferred one first.
    pub alpn: Vec<Box<[u8]>>,
}

/// What is wrong with a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A record has another type or version than those of a ClientHello, is empty, or is too long.
    Record,
    /// The first message is another one.
    NoHello,
    /// It is longer than [`MOST_BYTES`].
    TooLong,
    /// A length in it is wrong.
    Length,
    /// An extension is there twice.
    Twice,
    /// The extension with the server's name is malformed, or has several names.
    ServerName,
    /// The extension with the protocols is malformed.
    Alpn,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "a record is malformed",
            Self::NoHello => "the first message is another one",
            Self::TooLong => "it is too long",
            Self::Length => "a length in it is wrong",
            Self::Twice => "an extension is there twice",
            Self::ServerName => "its server name is malformed",
            Self::Alpn => "its list of protocols is malformed",
        })
    }
}

/// The longest ClientHello that is read, with the headers of its records: one record of the largest
/// size (RFC 8446, section 5.1). HAProxy and nginx read as much by default (`tune.bufsize`,
/// `preread_buffer_size`).
pub const MOST_BYTES: usize = RECORD_HEADER_BYTES + MOST_RECORD_BYTES;

/// Type, version and length.
const RECORD_HEADER_BYTES: usize = 5;
const MOST_RECORD_BYTES: usize = 1 << 14;
const HANDSHAKE: u8 = 22;

/// The message's type and length.
const HEAD_BYTES: usize = 4;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: usize = 0;
const HOST_NAME: u8 = 0;
const ALPN: usize = 16;

/// Parses the ClientHello at the beginning of `bytes`, which may be cut into records anywhere.
/// Returns `None` if it is not whole yet.
///
/// # Errors
/// If no bytes that may follow would make it a ClientHello that ends within [`MOST_BYTES`].
pub fn parse(bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
    match message(bytes)? {
        Some(message) => hello(&message).map(Some),
        None => Ok(None),
    }
}

/// Returns the message at the beginning of `bytes`, without its type and length, or `None` if it is
/// not whole yet.
///
/// Until it is whole, this looks at the headers of the records alone: it is asked again whenever
/// there are more bytes.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let mut rest = bytes;
    let mut head = [0; HEAD_BYTES];
    let mut seen = 0;
    while let Some(part) = fragment(&mut rest)? {
        for (slot, byte) in head.iter_mut().skip(seen).zip(part) {
            *slot = *byte;
        }
        seen += part.len();
        if seen > 0 && head[0] != CLIENT_HELLO {
            return Err(Malformed::NoHello);
        }
        if seen < HEAD_BYTES {
            continue;
        }
        let [_, length @ ..] = head;
        let whole = HEAD_BYTES + be(&length);
        if whole > MOST_RECORD_BYTES {
            return Err(Malformed::TooLong);
        }
        if seen >= whole && seen == part.len() {
            // The first record has all of it.
            return Ok(Some(Cow::Borrowed(&part[HEAD_BYTES..whole])));
        }
        if seen >= whole {
            let mut message = joined(bytes, whole);
            message.drain(..HEAD_BYTES);
            return Ok(Some(Cow::Owned(message)));
        }
    }
    match bytes.len() {
        MOST_BYTES => Err(Malformed::TooLong),
        _ => Ok(None),
    }
}

/// Takes the next record off `rest`, and returns as much of its content as there is, or `None` if
/// its header is not whole.
fn fragment<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let header = &rest[..rest.len().min(RECORD_HEADER_BYTES)];
    let is_handshake = header.first().is_none_or(|&kind| kind == HANDSHAKE);
    // The major version of SSL 3 and of all versions of TLS.
    if !is_handshake || header.get(1).is_some_and(|&major| major != 3) {
        return Err(Malformed::Record);
    }
    let [_, _, _, length @ ..] = header else {
        return Ok(None);
    };
    if length.len() < 2 {
        return Ok(None);
    }
    let length = be(length);
    if length == 0 || length > MOST_RECORD_BYTES {
        return Err(Malformed::Record);
    }
    let content = &rest[RECORD_HEADER_BYTES..];
    let (content, behind) = content.split_at(length.min(content.len()));
    *rest = behind;
    Ok(Some(content))
}

/// Returns the first `n` bytes of what the records in `bytes` contain, which is there.
fn joined(mut bytes: &[u8], n: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(n);
    while let Ok(Some(part)) = fragment(&mut bytes) {
        message.extend(part.iter().take(n - message.len()));
    }
    message
}

fn hello(message: &[u8]) -> Result<ClientHello, Malformed> {
    let mut extensions = extensions(message).ok_or(Malformed::Length)?;
    let mut name = None;
    let mut alpn = None;
    while !extensions.is_empty() {
        let kind = take(&mut extensions, 2).ok_or(Malformed::Length)?;
        let content = vector(&mut extensions, 2).ok_or(Malformed::Length)?;
        let was = match be(kind) {
            SERVER_NAME => name.replace(content).is_some(),
            ALPN => alpn.replace(content).is_some(),
            _ => false,
        };
        if was {
            return Err(Malformed::Twice);
        }
    }
    Ok(ClientHello {
        server_name: match name {
            Some(content) => server_name(content).ok_or(Malformed::ServerName)?,
            None => None,
        },
        alpn: match alpn {
            Some(content) => protocols(content).ok_or(Malformed::Alpn)?,
            None => Vec::new(),
        },
    })
}

/// Returns the extensions, of which a client may have none at all. Returns `None` if a length is
/// wrong.
fn extensions(mut message: &[u8]) -> Option<&[u8]> {
    let _version_and_random = take(&mut message, 2 + 32)?;
    let session = vector(&mut message, 1)?;
    let ciphers = vector(&mut message, 2)?;
    let compressions = vector(&mut message, 1)?;
    let extensions = match message {
        [] => message,
        _ => vector(&mut message, 2)?,
    };
    let is_valid = session.len() <= 32
        && !ciphers.is_empty()
        && ciphers.len() % 2 == 0
        && !compressions.is_empty()
        && message.is_empty();
    is_valid.then_some(extensions)
}

/// Returns the name in `content`, if it is the name of a host, or `None` if `content` is malformed.
fn server_name(mut content: &[u8]) -> Option<Option<Box<str>>> {
    let mut names = whole_list(&mut content)?;
    let mut found = None;
    while !names.is_empty() {
        let kind = take(&mut names, 1)?;
        // Those of other types have a length of two bytes as well.
        let name = vector(&mut names, 2).filter(|name| !name.is_empty())?;
        if kind == [HOST_NAME] && found.replace(name).is_some() {
            return None;
        }
    }
    let name = found.and_then(host_name);
    Some(name.filter(|name| !is_ipv4(name)))
}

/// Returns the protocols in `content`, or `None` if it is malformed.
fn protocols(mut content: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut list = whole_list(&mut content)?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = vector(&mut list, 1).filter(|it| !it.is_empty())?;
        protocols.push(protocol.into());
    }
    Some(protocols)
}

/// Returns the list that is all of `content`, unless it is empty.
fn whole_list<'a>(content: &mut &'a [u8]) -> Option<&'a [u8]> {
    vector(content, 2).filter(|list| content.is_empty() && !list.is_empty())
}

/// Takes a vector off `rest`: a length of `n` bytes, and as many bytes as it says.
fn vector<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let length = be(take(rest, n)?);
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(n)?;
    *rest = behind;
    Some(taken)
}

/// Returns the number in `bytes`, of which there are few.
fn be(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, &byte| sum << 8 | usize::from(byte))
}

#[cfg(test)]
mod tests;
