//! What the first bytes of each protocol look like.
//!
//! Each function returns `None` if more bytes are needed. They look at the bytes from the first to
//! the last and answer as soon as they can, so an answer depends on no byte that follows.

/// The longest method that is accepted in a request line.
const MOST_METHOD_BYTES: usize = 32;
/// The longest XML declaration, with the space around it.
const MOST_XML_BYTES: usize = 256;

/// Returns whether `bytes` begin with `start`.
pub(super) fn starts(bytes: &[u8], start: &[u8]) -> Option<bool> {
    let n = bytes.len().min(start.len());
    match bytes[..n] == start[..n] {
        false => Some(false),
        true => (n == start.len()).then_some(true),
    }
}

/// Returns whether each byte is within its bounds, the least and the greatest.
fn within(bytes: &[u8], bounds: &[(u8, u8)]) -> Option<bool> {
    let mut pairs = bytes.iter().zip(bounds);
    match pairs.all(|(byte, (least, most))| (least..=most).contains(&byte)) {
        false => Some(false),
        true => (bytes.len() >= bounds.len()).then_some(true),
    }
}

/// Continues if a part matches. Otherwise that is the answer: false, or that bytes are missing.
macro_rules! require {
    ($answer:expr) => {
        if !$answer? {
            return Some(false);
        }
    };
}

/// Returns the number in two bytes, the most significant one first.
fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let pair = bytes.get(at..at + 2)?;
    Some(usize::from(pair[0]) << 8 | usize::from(pair[1]))
}

pub(super) fn tls(bytes: &[u8]) -> Option<bool> {
    // The type (handshake), the version (3.0 to 3.4), the length (to 2^14), and ClientHello.
    let hello = [(22, 22), (3, 3), (0, 4), (0, 64), (0, 255), (1, 1)];
    require!(within(bytes, &hello));
    Some((1..=1 << 14).contains(&u16_at(bytes, 3)?))
}

/// Returns whether a line begins with a method, a target and `version`.
pub(super) fn request_line(bytes: &[u8], version: &[u8]) -> Option<bool> {
    let mut words = bytes.splitn(3, |&byte| byte == b' ');
    let method = words.next()?;
    // The identification string of SSH may end like such a line.
    let is_method = method.iter().all(is_token) && !method.starts_with(b"SSH-");
    if method.len() > MOST_METHOD_BYTES || !is_method {
        return Some(false);
    }
    let target = words.next()?;
    if method.is_empty() || target.iter().any(u8::is_ascii_control) {
        return Some(false);
    }
    let rest = words.next()?;
    match target {
        [] => Some(false),
        _ => starts(rest, version),
    }
}

/// Returns whether `byte` may stand in a token (RFC 9110, section 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

pub(super) fn rdp(bytes: &[u8]) -> Option<bool> {
    // TPKT: the version, a reserved byte, and the length. X.224: the length of what follows, the
    // connection request, the destination, the source, and the class.
    let request = [
        (3, 3),
        (0, 0),
        (0, 1),
        (0, 255),
        (14, 254),
        (0xe0, 0xe0),
        (0, 0),
        (0, 0),
        (0, 255),
        (0, 255),
        (0, 0),
    ];
    require!(within(bytes, &request));
    if u16_at(bytes, 2)? != 5 + usize::from(bytes[4]) {
        return Some(false);
    }
    // Other protocols over TPKT, such as that of Siemens' controllers, have the same up to here.
    let rest = &bytes[request.len()..];
    match rest.first()? {
        // A negotiation: its type, flags, and its length, the least significant byte first.
        1 => within(rest, &[(1, 1), (0, 255), (8, 8), (0, 0)]),
        _ => starts(rest, b"Cookie: mst"),
    }
}

pub(super) fn mqtt(bytes: &[u8]) -> Option<bool> {
    // CONNECT, without flags.
    require!(starts(bytes, &[0x10]));
    let mut at = 1;
    // The rest has at least a name, a level, flags, two bytes of keep-alive, and an identifier.
    if varint(bytes, &mut at, 4)?.is_none_or(|rest| rest < 12) {
        return Some(false);
    }
    let rest = &bytes[at..];
    // Version 3.1 has a longer name.
    let (name, levels): (&[u8], _) = match *rest.get(1)? {
        6 => (b"\0\x06MQIsdp", 3..=3),
        _ => (b"\0\x04MQTT", 4..=5),
    };
    require!(starts(rest, name));
    // Bridges set the highest bit.
    Some(levels.contains(&(rest.get(name.len())? & 0x7f)))
}

pub(super) fn minecraft(bytes: &[u8]) -> Option<bool> {
    let mut at = 0;
    let Some(length) = varint(bytes, &mut at, 2)? else {
        return Some(false);
    };
    let end = at + length;
    // The packet's number, which is 0. With the shortest address, the packet has 7 bytes.
    if length < 7 || *bytes.get(at)? != 0 {
        return Some(false);
    }
    at += 1;
    // The version, the server's address, a port, and what comes next: status, login or transfer.
    if varint(bytes, &mut at, 5)?.is_none() {
        return Some(false);
    }
    let Some(address) = varint(bytes, &mut at, 2)?.filter(|&length| length > 0) else {
        return Some(false);
    };
    if at + address + 3 != end {
        return Some(false);
    }
    Some(matches!(bytes.get(end - 1)?, 1..=3))
}

pub(super) fn socks5(bytes: &[u8]) -> Option<bool> {
    // The version, and how many methods there are.
    require!(within(bytes, &[(5, 5), (1, 255)]));
    let methods = usize::from(bytes[1]);
    let offered = &bytes[2..bytes.len().min(2 + methods)];
    // 255 is no method but the answer that none is acceptable.
    match offered.contains(&255) {
        true => Some(false),
        false => (offered.len() == methods).then_some(true),
    }
}

pub(super) fn postgres(bytes: &[u8]) -> Option<bool> {
    // The length, to 10,000 (MAX_STARTUP_PACKET_LENGTH), and the version or the kind of request.
    require!(within(bytes, &[(0, 0), (0, 0), (0, 39), (0, 255)]));
    let length = u16_at(bytes, 2)?;
    let rest = &bytes[4..];
    match rest.first()? {
        // Version 3, with some minor one. The name of a parameter follows.
        0 => {
            require!(starts(rest, &[0, 3]));
            Some(length > 9 && rest.get(4)?.is_ascii_graphic())
        }
        // 1234 in the upper half.
        4 => {
            require!(starts(rest, &[4, 210, 22]));
            Some(match rest.get(3)? {
                // CancelRequest, whose key has at most 256 bytes.
                46 => (13..=268).contains(&length),
                // SSLRequest and GSSENCRequest.
                47 | 48 => length == 8,
                _ => false,
            })
        }
        _ => Some(false),
    }
}

pub(super) fn openvpn(bytes: &[u8]) -> Option<bool> {
    require!(within(bytes, &[(0, 4)]));
    let length = u16_at(bytes, 0)?;
    if length < 14 {
        return Some(false);
    }
    // The operation and the number of the key, 0. Then there are 8 bytes of the session.
    let is_v2 = match bytes.get(2)? {
        0x38 => true,
        0x50 => false,
        _ => return Some(false),
    };
    // Without tls-crypt, it ends with no acknowledgements, and the packet's number, 0.
    let ends_plainly = || Some(bytes.get(length - 3..length + 2)? == [0; 5]);
    // With tls-crypt, the session is followed by a number that counts the packets. It begins with 1,
    // or with 0x0f000001 if the client can do without the server's memory of it.
    let is_numbered = || Some(matches!(bytes.get(11..14)?, [0 | 15, 0, 0]));
    match length {
        14 if is_v2 => ends_plainly(),
        // tls-auth: 8 bytes of number and time, and a digest of 16 to 64 bytes.
        38 | 42 | 50 | 70 | 86 if is_v2 => ends_plainly(),
        // tls-crypt, or tls-auth with a digest of 32 bytes.
        54 if is_v2 => Some(is_numbered()? || ends_plainly()?),
        // tls-crypt-v2: the client's wrapped key follows, with 290 to 1,024 bytes.
        344..=1078 if !is_v2 => is_numbered(),
        _ => Some(false),
    }
}

pub(super) fn xmpp(bytes: &[u8]) -> Option<bool> {
    let stream = match starts(bytes, b"<?xml")? {
        false => bytes,
        true => {
            let declaration = &bytes[..bytes.len().min(MOST_XML_BYTES)];
            match declaration.windows(2).position(|pair| pair == b"?>") {
                Some(at) => bytes[at + 2..].trim_ascii_start(),
                None => return (bytes.len() >= MOST_XML_BYTES).then_some(false),
            }
        }
    };
    starts(stream, b"<stream:stream")
}

pub(super) fn amqp(bytes: &[u8]) -> Option<bool> {
    // The name, and what the protocol is: AMQP, its older form 0-8, TLS or SASL.
    let header = [
        (b'A', b'A'),
        (b'M', b'M'),
        (b'Q', b'Q'),
        (b'P', b'P'),
        (0, 3),
    ];
    within(bytes, &header)
}

pub(super) fn redis(bytes: &[u8]) -> Option<bool> {
    let mut rest = bytes;
    // How many strings there are, and the length of the first one.
    for mark in [b'*', b'$'] {
        require!(starts(rest, &[mark]));
        let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        let behind = &rest[1 + digits..];
        if digits > 10 || (digits == 0 && !behind.is_empty()) {
            return Some(false);
        }
        require!(starts(behind, b"\r\n"));
        rest = &behind[2..];
    }
    Some(true)
}

/// Reads a number of at most `most` bytes with 7 bits each, the lowest first, and moves `at` behind
/// it. Returns `Some(None)` if it is longer. Bits above the 32nd are lost.
fn varint(bytes: &[u8], at: &mut usize, most: usize) -> Option<Option<usize>> {
    let mut number = 0_u32;
    for n in 0..most {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u32::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(Some(number as usize));
        }
    }
    Some(None)
}
