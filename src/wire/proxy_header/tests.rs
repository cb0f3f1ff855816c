//! Properties of the parser: every prefix asks for more, no mutation goes unnoticed where there is
//! a checksum, and what is written is read back.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::crc32c::crc32c;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

fn tcp(source: &str, destination: &str) -> Client {
    Client::Tcp {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

fn clients() -> [Client; 5] {
    [
        Client::Local,
        Client::Unknown,
        Client::Unix,
        tcp("192.0.2.7:51000", "192.0.2.1:443"),
        tcp("[2001:db8::7]:65535", "[2001:db8::1]:1"),
    ]
}

/// A header of version 2 with `command` and `family`, and `rest` behind the length.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
    header.extend(rest);
    header
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![kind];
    field.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
    field.extend(value);
    field
}

/// A header of `client` with other fields around the checksum.
fn checked(client: Client, before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut header = Version::V2.header(client);
    header.extend(field(0x02, before));
    let at = header.len() + 3;
    header.extend(field(0x03, &[0; 4]));
    header.extend(field(0x05, after));
    let rest = u16::try_from(header.len() - 16).expect("short");
    header[14..16].copy_from_slice(&rest.to_be_bytes());
    let sum = crc32c(header.iter().copied());
    header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    header
}

fn whole(bytes: usize, client: Client) -> Result<Parsed, Malformed> {
    Ok(Parsed::Header { bytes, client })
}

#[test]
fn every_prefix_asks_for_more_and_what_follows_is_left_alone() {
    let mut headers: Vec<_> = clients()
        .into_iter()
        .flat_map(|client| VERSIONS.map(|version| version.header(client)))
        .collect();
    headers.push(checked(clients()[3], b"name", b"id"));
    headers.push(b"PROXY UNKNOWN ffff::1 what ever\r\n".to_vec());
    for header in headers {
        for end in 0..header.len() {
            assert_eq!(
                parse(&header[..end]),
                Ok(Parsed::Partial),
                "{header:?} {end}"
            );
        }
        let alone = parse(&header);
        assert!(matches!(alone, Ok(Parsed::Header { bytes, .. }) if bytes == header.len()));
        let followed = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&followed), alone);
    }
}

#[test]
fn headers_are_those_of_the_specification() {
    let ipv4 = clients()[3];
    let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 51000 443\r\n";
    assert_eq!(Version::V1.header(ipv4), line);
    assert_eq!(parse(line), whole(line.len(), ipv4));
    let rest = [192, 0, 2, 7, 192, 0, 2, 1, 0xc7, 0x38, 0x01, 0xbb];
    assert_eq!(Version::V2.header(ipv4), binary(0x21, 0x11, &rest));
    for client in [Client::Local, Client::Unknown, Client::Unix] {
        assert_eq!(Version::V2.header(client), binary(0x20, 0, b""));
        assert_eq!(Version::V1.header(client), b"PROXY UNKNOWN\r\n");
    }
    let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
        ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let most = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    assert_eq!(parse(longest), whole(longest.len(), tcp(most, most)));
    let unknown = [b"PROXY UNKNOWN ".as_slice(), &[b'f'; 91], b"\r\n"].concat();
    assert_eq!(parse(&unknown), whole(MAX_V1_BYTES, Client::Unknown));
}

#[test]
fn addresses_of_two_families_are_mapped() {
    for (source, destination, line) in [
        (
            "192.0.2.7:1",
            "[::1]:2",
            "PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n",
        ),
        (
            "[::ffff:192.0.2.7]:1",
            "192.0.2.1:2",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
        ),
        (
            "[::ffff:192.0.2.7]:1",
            "[::ffff:192.0.2.1]:2",
            "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n",
        ),
    ] {
        let header = Version::V1.header(tcp(source, destination));
        assert_eq!(String::from_utf8_lossy(&header), line);
        let is_ipv4 = line.contains("TCP4");
        let header = Version::V2.header(tcp(source, destination));
        assert_eq!(header[13], if is_ipv4 { 0x11 } else { 0x21 });
    }
}

#[test]
fn malformed_lines_are_refused() {
    for line in [
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\rx",
        "PROXY UNKN\0",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Malformed::Line), "{line:?}");
    }
    for bytes in [
        "GET / HTTP/1.1\r\n",
        "PROXXY",
        "P ",
        "\r\n\r\nx",
        "proxy unknown\r\n",
    ] {
        assert_eq!(
            parse(bytes.as_bytes()),
            Err(Malformed::NoHeader),
            "{bytes:?}"
        );
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'f'; 93]].concat();
    assert_eq!(parse(&endless[..106]), Ok(Parsed::Partial));
    assert_eq!(parse(&endless), Err(Malformed::TooLong));
    let late = [&endless[..106], b"\r\n"].concat();
    assert_eq!(parse(&late), Err(Malformed::TooLong));
}

#[test]
fn malformed_binary_headers_are_refused() {
    for (command, family, rest, why) in [
        (0x11, 0x11, &[0; 12][..], Malformed::Kind),
        (0x22, 0x11, &[0; 12], Malformed::Kind),
        (0x21, 0x10, &[0; 12], Malformed::Kind),
        (0x21, 0x01, &[], Malformed::Kind),
        (0x21, 0x41, &[0; 300], Malformed::Kind),
        (0x21, 0x11, &[0; 11], Malformed::Addresses),
        (0x21, 0x21, &[0; 35], Malformed::Addresses),
        (0x21, 0x31, &[0; 215], Malformed::Addresses),
        (0x21, 0x11, &[0; 13], Malformed::Fields),
        (0x21, 0x11, &[0; 4081], Malformed::TooLong),
    ] {
        let header = binary(command, family, rest);
        assert_eq!(parse(&header), Err(why), "{command:x} {family:x}");
    }
    let cut = [&[0; 12][..], &field(0x04, b"abc")[..5]].concat();
    assert_eq!(parse(&binary(0x21, 0x11, &cut)), Err(Malformed::Fields));
    let longest = [&[0; 12][..], &field(0x04, &[0; 4065])].concat();
    let parsed = parse(&binary(0x21, 0x11, &longest));
    assert!(matches!(
        parsed,
        Ok(Parsed::Header {
            bytes: MAX_V2_BYTES,
            ..
        })
    ));
}

#[test]
fn local_and_unspecified_headers_have_no_address_whatever_they_carry() {
    for rest in [&[][..], &[1, 2, 3], &[7; 12], &[9; 36], &[b'x'; 300]] {
        for (command, family, client) in [
            (0x20, 0x00, Client::Local),
            (0x20, 0x11, Client::Local),
            (0x20, 0x21, Client::Local),
            (0x21, 0x00, Client::Unknown),
        ] {
            let header = binary(command, family, rest);
            assert_eq!(parse(&header), whole(header.len(), client), "{rest:?}");
        }
    }
    for (family, rest, client) in [
        (0x31, 216, Client::Unix),
        (0x32, 216, Client::Unknown),
        (0x12, 12, Client::Unknown),
        (0x22, 36, Client::Unknown),
    ] {
        let header = binary(0x21, family, &vec![b'/'; rest]);
        assert_eq!(parse(&header), whole(header.len(), client));
    }
    let mut local = checked(Client::Local, b"", b"");
    assert_eq!(parse(&local), whole(local.len(), Client::Local));
    local[22] ^= 1;
    assert_eq!(parse(&local), Err(Malformed::Checksum));
}

#[test]
fn no_mutation_of_a_checked_header_yields_another_address() {
    let other_fields = [(&b""[..], &b""[..]), (b"name", b"id"), (&[0; 40], &[3; 9])];
    for client in [clients()[3], clients()[4]] {
        for (before, after) in other_fields {
            let header = checked(client, before, after);
            assert_eq!(parse(&header), whole(header.len(), client));
            for at in 0..header.len() {
                for mask in 1..=u8::MAX {
                    let mut mutant = header.clone();
                    mutant[at] ^= mask;
                    // A longer length asks for bytes that may follow.
                    mutant.extend([0; 600]);
                    let Ok(Parsed::Header { client: found, .. }) = parse(&mutant) else {
                        continue;
                    };
                    let is_new = matches!(found, Client::Tcp { .. }) && found != client;
                    assert!(!is_new, "byte {at} ^ {mask:02x}: {found:?}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(source: SocketAddr, destination: SocketAddr, rest in vec(any::<u8>(), 0..40)) {
        let client = of_one_family(source, destination);
        for version in VERSIONS {
            let header = version.header(Client::Tcp { source, destination });
            prop_assert!(version == Version::V2 || header.len() <= MAX_V1_BYTES);
            let bytes = [&header[..], &rest].concat();
            prop_assert_eq!(parse(&bytes), whole(header.len(), client));
        }
    }

    #[test]
    fn mutations_never_panic_and_a_header_is_never_longer_than_its_bytes(
        client in 0..5_usize,
        version in 0..2_usize,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut header = VERSIONS[version].header(clients()[client]);
        for (at, byte) in changes {
            let at = at.index(header.len());
            header[at] = byte;
        }
        if let Ok(Parsed::Header { bytes, .. }) = parse(&header) {
            prop_assert!(bytes <= header.len());
            prop_assert!(matches!(parse(&header[..bytes - 1]), Ok(Parsed::Partial)));
        }
    }
}
