//! Properties of the signatures: no two match the same bytes, and no answer changes with what
//! follows.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::Protocol::{self, *};

/// A message of `length` bytes, which are written before it in two bytes.
fn framed(length: usize, start: &[u8], end: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(length).expect("short").to_be_bytes().to_vec();
    bytes.extend(start);
    bytes.resize(2 + length - end.len(), 0xaa);
    bytes.extend(end);
    bytes
}

/// A handshake of Minecraft with `address`.
fn minecraft(version: &[u8], address: &[u8], next: u8) -> Vec<u8> {
    let varint = |n: usize| match n {
        0..128 => vec![n as u8],
        _ => vec![n as u8 | 0x80, (n >> 7) as u8],
    };
    let mut packet = [&[0], version, &varint(address.len()), address].concat();
    packet.extend([0x63, 0xdd, next]);
    [varint(packet.len()), packet].concat()
}

/// What clients of each protocol send first.
fn samples() -> Vec<(Protocol, Vec<u8>)> {
    let text: &[(Protocol, &str)] = &[
        (Http, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Http, "CONNECT a:443 HTTP/1.0\r\n\r\n"),
        (Http, "OPTIONS * HTTP/1.1\r\n"),
        (Http, "PROPFIND /dav/ HTTP/1.1\r\n"),
        (Http, "GET http://a/ HTTP/1.1\r\n"),
        (Http2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}"),
        (Ssh, "SSH-2.0-OpenSSH_9.2\r\n"),
        (Ssh, "SSH-1.99-x\n"),
        (
            Xmpp,
            "<?xml version='1.0'?><stream:stream to='a' xmlns='jabber:client'",
        ),
        (
            Xmpp,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<stream:stream ",
        ),
        (
            Xmpp,
            "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'",
        ),
        (Redis, "*1\r\n$4\r\nPING\r\n"),
        (Redis, "*12\r\n$5\r\nHELLO\r\n"),
        (Rtsp, "OPTIONS rtsp://a/x RTSP/1.0\r\nCSeq: 1\r\n"),
        (Rtsp, "DESCRIBE rtsp://a/x RTSP/2.0\r\n"),
        (Sip, "REGISTER sip:example.org SIP/2.0\r\n"),
        (Sip, "OPTIONS sip:bob@example.org SIP/2.0\r\n"),
        (BitTorrent, "\u{13}BitTorrent protocol\0\0\0\0\0\0\0\0"),
    ];
    let text = text
        .iter()
        .map(|(it, text)| (*it, text.as_bytes().to_vec()));
    let mut samples: Vec<_> = text.collect();
    let binary: &[(Protocol, &[u8])] = &[
        (Tls, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (Tls, b"\x16\x03\x03\x00\x01\x01\x16\x03\x03\x00\x01\x00"),
        (Amqp, b"AMQP\x00\x00\x09\x01"),
        (Amqp, b"AMQP\x03\x01\x00\x00"),
        (Amqp, b"AMQP\x01\x01\x08\x00"),
        (Rdp, b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x0b\0\0\0"),
        (
            Rdp,
            b"\x03\0\0\x26\x21\xe0\0\0\0\0\0Cookie: mstshash=eltons\r\n\x01\0\x08\0\0\0\0\0",
        ),
        (
            Rdp,
            b"\x03\0\0\x29\x24\xe0\0\0\x12\x34\0Cookie: msts=3640205228.15629.0000\r\n",
        ),
        (Mqtt, b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0"),
        (Mqtt, b"\x10\x8d\x01\0\x04MQTT\x05\x02\0\x3c\0\0\0"),
        (Mqtt, b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
        (Mqtt, b"\x10\x0d\0\x04MQTT\x84\x02\0\x3c\0\x01b"),
        (Socks5, b"\x05\x01\0"),
        (Socks5, b"\x05\x03\0\x01\x02"),
        (Postgres, b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (Postgres, b"\0\0\0\x08\x04\xd2\x16\x30"),
        (
            Postgres,
            b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x12\x34\x56\x78\x9a\xbc",
        ),
        (Postgres, b"\0\0\0\x10\0\x03\0\0user\0me\0"),
        (Postgres, b"\0\0\x01\x10\0\x03\0\x02database\0x\0user\0me\0"),
        (WireGuardTcp, b"\0\x94\x01\0\0\0\x12\x34\x56\x78"),
    ];
    samples.extend(binary.iter().map(|(it, bytes)| (*it, bytes.to_vec())));
    let (v2, plain) = (b"\x38sessionI", [0; 5]);
    for digest in [16, 20, 28, 32, 48, 64] {
        samples.push((OpenVpn, framed(22 + digest, v2, &plain)));
    }
    let numbered = |kind: u8, number: u8| [&[kind], &b"sessionI"[..], &[number, 0, 0, 1]].concat();
    samples.push((OpenVpn, framed(14, v2, &plain)));
    samples.push((OpenVpn, framed(54, &numbered(0x38, 0), b"")));
    samples.push((OpenVpn, framed(344, &numbered(0x50, 0), b"")));
    samples.push((OpenVpn, framed(1078, &numbered(0x50, 15), b"")));
    samples.push((Minecraft, minecraft(&[47], b"a", 1)));
    samples.push((Minecraft, minecraft(&[0x81, 6], b"mc.example.org", 2)));
    samples.push((
        Minecraft,
        minecraft(&[0xff, 0xff, 0xff, 0xff, 15], &[b'a'; 255], 1),
    ));
    samples.push((
        Minecraft,
        minecraft(&[0x81, 6], b"mc.example.org\0FML2\0", 3),
    ));
    samples
}

fn matching(bytes: &[u8]) -> Vec<Protocol> {
    let all = Protocol::ALL.into_iter();
    all.filter(|it| it.matches(bytes) == Some(true)).collect()
}

/// Asserts that at most one protocol matches `bytes`, and that each answer to a prefix is that to
/// all of them.
fn check(bytes: &[u8]) {
    assert!(
        matching(bytes).len() <= 1,
        "{bytes:?}: {:?}",
        matching(bytes)
    );
    for protocol in Protocol::ALL {
        let mut earlier = None;
        for end in 0..=bytes.len() {
            let answer = protocol.matches(&bytes[..end]);
            let is_kept = earlier.is_none() || answer == earlier;
            assert!(is_kept, "{}: {:?}", protocol.name(), &bytes[..end]);
            earlier = answer;
        }
    }
}

#[test]
fn names_differ_and_each_protocol_has_a_sample() {
    let names: BTreeSet<_> = Protocol::ALL.map(Protocol::name).into();
    assert_eq!(names.len(), Protocol::ALL.len());
    let sampled: BTreeSet<_> = samples().into_iter().map(|(it, _)| it).collect();
    assert_eq!(sampled, BTreeSet::from(Protocol::ALL));
}

#[test]
fn what_clients_send_is_told_apart() {
    for (protocol, bytes) in samples() {
        assert_eq!(matching(&bytes), [protocol], "{bytes:?}");
        check(&bytes);
        assert_eq!(protocol.matches(b""), None);
        // All others have an answer too, so that a route for them does not wait.
        for other in Protocol::ALL {
            assert!(
                other.matches(&bytes).is_some(),
                "{bytes:?}: {}",
                other.name()
            );
        }
    }
}

#[test]
fn what_is_similar_is_something_else() {
    let others: &[&[u8]] = &[
        // SSL 2, an alert, a ServerHello, a record that is empty or too long.
        b"\x80\x2e\x01\x00\x02",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x40\x02",
        b"\x16\x03\x01\x00\x00\x01",
        b"\x16\x03\x01\x40\x01\x01",
        // HTTP/0.9, ICAP, no method, no target.
        b"GET /\r\n\r\n",
        b"OPTIONS icap://a/ ICAP/1.0\r\n",
        b" / HTTP/1.1\r\n",
        b"GET  HTTP/1.1\r\n",
        b"GET /\tHTTP/1.1 HTTP/1.1\r\n",
        // S7 and an old RDP client over TPKT, and a length that lies.
        b"\x03\0\0\x16\x11\xe0\0\0\0\x01\0\xc0\x01\x0a\xc1\x02\x01\0\xc2\x02\x01\x02",
        b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0",
        b"\x03\0\0\x14\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x0b\0\0\0\0",
        // MQTT of a version that does not exist, or another packet.
        b"\x10\x0c\0\x04MQTT\x06\x02\0\x3c\0\0",
        b"\x10\x0c\0\x06MQIsdp\x04\x02\0\x3c\0\0",
        b"\x30\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
        // DCE/RPC, and SOCKS with a method that is none.
        b"\x05\x00\x0b\x03\x10\0\0\0",
        b"\x05\x02\0\xff",
        // PostgreSQL 2, and a request with a wrong length.
        b"\0\0\x01\x28\0\x02\0\0user",
        b"\0\0\0\x09\x04\xd2\x16\x2f\0",
        // SMB, DNS, LDAP, OpenVPN with a static key.
        b"\0\0\0\x54\xfeSMB\x40\0\0\0\0\0\0\0\0\0",
        b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01",
        b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0",
        b"\0\x54\x8f\x11\x0a\x6b\x3d\x4c\x01\x92\x88\x41\x07\xaa\x31\x5e",
        b"<html>",
        b"<?xml version='1.0'?><message/>",
        b"*a\r\n",
        b"*1\r\n:1\r\n",
        b"PING\r\n",
        b"EHLO a\r\n",
        b"AMQP\x09\x00\x00\x00",
        b"\x13BitTorrent tracker",
    ];
    for bytes in others {
        check(bytes);
        for protocol in Protocol::ALL {
            let answer = protocol.matches(bytes);
            assert_eq!(answer, Some(false), "{bytes:?}: {}", protocol.name());
        }
    }
}

#[test]
fn three_bytes_leave_one_protocol_or_lines_of_text() {
    let text = [Http, Http2, Ssh, Amqp, Redis, Rtsp, Sip];
    let open_for = |bytes: &[u8]| {
        let open = Protocol::ALL.into_iter();
        let open: Vec<_> = open.filter(|it| it.matches(bytes) != Some(false)).collect();
        let is_text = open.iter().all(|it| text.contains(it));
        (open.len() <= 1 || is_text, open)
    };
    for first_two in 0..=u16::MAX {
        let [first, second] = first_two.to_be_bytes();
        if open_for(&[first, second]).0 {
            continue;
        }
        for third in 0..=u8::MAX {
            let bytes = [first, second, third];
            let (is_clear, open) = open_for(&bytes);
            assert!(is_clear, "{bytes:?}: {open:?}");
        }
    }
}

#[test]
fn every_answer_is_there_within_the_bound() {
    let most = Protocol::MOST_BYTES;
    let mut endless: Vec<_> = samples().into_iter().map(|(_, bytes)| bytes).collect();
    let starts = ["GET /", "<?xml ", "<?xml?>", "*1", "SSH", "a"];
    endless.extend(starts.map(|start| start.as_bytes().to_vec()));
    for start in endless {
        for n in 0..=start.len() {
            for filler in [0, b' ', b'0', b'a', 0x80, 0xff] {
                let mut bytes = start[..n].to_vec();
                bytes.resize(most, filler);
                for protocol in Protocol::ALL {
                    let answer = protocol.matches(&bytes);
                    assert!(
                        answer.is_some(),
                        "{start:?} {n} {filler} {}",
                        protocol.name()
                    );
                    bytes.push(b' ');
                    assert_eq!(protocol.matches(&bytes), answer);
                    bytes.pop();
                }
            }
        }
    }
    let line = |n: usize| format!("GET /{} HTTP/1.1", "a".repeat(n - 14));
    assert_eq!(matching(line(8_000).as_bytes()), [Http]);
    assert_eq!(matching(line(8_004).as_bytes()), []);
}

proptest! {
    #[test]
    fn no_two_match_mutations_of_what_clients_send(
        (sample, other) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        cut in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let samples = samples();
        let (_, mut bytes) = samples[sample.index(samples.len())].clone();
        let (_, other) = &samples[other.index(samples.len())];
        // The beginning of one, and the rest of another.
        let cut = cut.index(bytes.len().min(other.len()));
        bytes.truncate(bytes.len() - cut);
        bytes.extend(&other[cut..]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check(&bytes);
    }

    #[test]
    fn no_two_match_lines_of_text(line in "[A-Z*]{0,8}[ *]{0,2}[/a-z*:0-9$\r\n]{0,8} {0,2}(HTTP/[12]\\.|RTSP/|SIP/|SSH-)?[ 01\r\n]{0,4}") {
        check(line.as_bytes());
    }

    #[test]
    fn no_two_match_any_bytes(bytes in vec(any::<u8>(), 0..80)) {
        check(&bytes);
    }
}
