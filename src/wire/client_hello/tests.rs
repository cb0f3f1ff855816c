//! What is read from hellos that are put together here, and what is refused. `tests/it/hellos.rs`
//! reads those of real clients.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A vector: a length of `n` bytes, and the content.
fn vector_of(n: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    [&length[4 - n..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector_of(2, content)].concat()
}

/// The extension with names of servers, each with its type.
fn sni(names: &[(u8, &[u8])]) -> Vec<u8> {
    let names = names.iter();
    let names: Vec<_> = names
        .map(|(kind, name)| [vec![*kind], vector_of(2, name)].concat())
        .collect();
    extension(0, &vector_of(2, &names.concat()))
}

fn named(name: &str) -> Vec<u8> {
    sni(&[(0, name.as_bytes())])
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let protocols: Vec<_> = protocols.iter().map(|it| vector_of(1, it)).collect();
    extension(16, &vector_of(2, &protocols.concat()))
}

/// What a ClientHello with `extensions` has before them, with a length of the session's identifier.
fn start(session: usize) -> Vec<u8> {
    let fixed = [&[3, 3][..], &[7; 32], &vector_of(1, &vec![9; session])].concat();
    [fixed, vector_of(2, &[0x13, 1, 0x13, 2]), vector_of(1, &[0])].concat()
}

/// A message that begins with its type and length.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    [vec![kind], vector_of(3, content)].concat()
}

fn hello_with(extensions: &[Vec<u8>]) -> Vec<u8> {
    message(1, &[start(32), vector_of(2, &extensions.concat())].concat())
}

fn record_of(kind: u8, content: &[u8]) -> Vec<u8> {
    [vec![kind, 3, 1], vector_of(2, content)].concat()
}

/// `message` in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let records: Vec<_> = message
        .chunks(size)
        .map(|part| record_of(22, part))
        .collect();
    records.concat()
}

/// What is read from a hello with `extensions`, in one record.
fn read(extensions: &[Vec<u8>]) -> Result<Option<ClientHello>, Malformed> {
    parse(&records(&hello_with(extensions), MOST_RECORD_BYTES))
}

fn saying(name: Option<&str>, alpn: &[&[u8]]) -> Result<Option<ClientHello>, Malformed> {
    Ok(Some(ClientHello {
        server_name: name.map(Into::into),
        alpn: alpn.iter().map(|&it| it.into()).collect(),
    }))
}

/// Extensions that say nothing about the server: GREASE, ECH, a large key share, an unknown one,
/// and one without content.
fn noise() -> Vec<Vec<u8>> {
    vec![
        extension(0x3a3a, &[]),
        extension(0xfe0d, &[0; 250]),
        extension(51, &[0x11; 1_300]),
        extension(0xfafa, &[0]),
        extension(23, &[]),
    ]
}

#[test]
fn name_and_protocols_are_read_wherever_they_stand() {
    for at in 0..=noise().len() {
        let mut extensions = noise();
        extensions.insert(at, named("NAS.example.org."));
        assert_eq!(read(&extensions), saying(Some("nas.example.org"), &[]));
        extensions.insert(at, alpn(&[b"h2", b"http/1.1"]));
        let both = saying(Some("nas.example.org"), &[b"h2", b"http/1.1"]);
        assert_eq!(read(&extensions), both);
    }
    assert_eq!(read(&noise()), saying(None, &[]));
    assert_eq!(
        read(&[alpn(&[b"\x0a\x0a", b"h2"])]),
        saying(None, &[b"\x0a\x0a", b"h2"])
    );
    // Before TLS 1.3, a client could have no extensions.
    for session in [0, 1, 32] {
        let old = records(&message(1, &start(session)), 100);
        assert_eq!(parse(&old), saying(None, &[]));
    }
    let none = message(1, &[start(0), vec![0, 0]].concat());
    assert_eq!(parse(&records(&none, 100)), saying(None, &[]));
}

#[test]
fn every_prefix_asks_for_more_and_what_follows_changes_nothing() {
    let message = hello_with(&[noise(), vec![named("a.lan"), alpn(&[b"h2"])]].concat());
    let said = saying(Some("a.lan"), &[b"h2"]);
    for size in [1, 2, 3, 4, 5, 100, 517, message.len() - 1, message.len()] {
        let bytes = records(&message, size);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{size} {end}");
        }
        assert_eq!(parse(&bytes), said);
        // Early data, nonsense, and more than is ever read.
        for rest in [&b"\x14\x03\x03\0\x01\x01"[..], b"GET", &[0; 20_000]] {
            assert_eq!(parse(&[&bytes, rest].concat()), said);
        }
    }
    // The next message in the same record.
    let bytes = record_of(22, &[&message[..], &[20, 0, 0, 0]].concat());
    assert_eq!(parse(&bytes), said);
}

/// Found by fuzzing: the second record alone is as long as the message that begins in the first.
#[test]
fn a_record_with_the_end_of_a_hello_may_have_more_than_all_of_it() {
    let hello = hello_with(&[named("nas.lan")]);
    for cut in 1..hello.len() {
        let (begin, end) = hello.split_at(cut);
        let end = [end, &hello, &hello].concat();
        let bytes = [record_of(22, begin), record_of(22, &end)].concat();
        assert_eq!(parse(&bytes), saying(Some("nas.lan"), &[]), "{cut}");
    }
}

#[test]
fn what_is_no_name_of_a_host_counts_as_none() {
    for name in [
        "192.0.2.1",
        "::1",
        "[::1]",
        "2001:db8::1",
        "*.lan",
        "a b",
        "a..b",
        ".",
        "a\0.lan",
        "münchen.example",
        "a:443",
    ] {
        assert_eq!(read(&[named(name)]), saying(None, &[]), "{name:?}");
    }
    assert_eq!(read(&[named(&"a".repeat(64))]), saying(None, &[]));
    let long = vec!["a"; 128].join(".");
    assert_eq!(read(&[named(&long)]), saying(None, &[]));
    assert_eq!(read(&[named(&long[2..])]), saying(Some(&long[2..]), &[]));
    assert_eq!(
        read(&[named("my_nas.lan")]),
        saying(Some("my_nas.lan"), &[])
    );
}

#[test]
fn malformed_names_are_refused() {
    let several = sni(&[(0, b"a.lan"), (0, b"b.lan")]);
    let other_type = sni(&[(1, b"b.lan"), (0, b"a.lan"), (7, b"x")]);
    assert_eq!(read(&[other_type]), saying(Some("a.lan"), &[]));
    assert_eq!(read(&[sni(&[(1, b"b.lan")])]), saying(None, &[]));
    for content in [
        several,
        sni(&[]),
        sni(&[(0, b"")]),
        extension(0, b""),
        extension(0, b"\0"),
        extension(0, &vector_of(2, b"\0")),
        extension(0, &vector_of(2, b"\0\0\x05a.la")),
        extension(0, &vector_of(2, b"\0\0\x05a.lan\0")),
        extension(0, b"\0\x09\0\0\x05a.lan"),
        extension(0, b"\0\x07\0\0\x05a.lan"),
    ] {
        assert_eq!(
            read(std::slice::from_ref(&content)),
            Err(Malformed::ServerName),
            "{content:?}"
        );
    }
    assert_eq!(
        read(&[named("a.lan"), named("b.lan")]),
        Err(Malformed::Twice)
    );
    assert_eq!(
        read(&[named("a.lan"), noise().concat(), named("a.lan")]),
        Err(Malformed::Twice)
    );
}

#[test]
fn malformed_protocols_are_refused() {
    for content in [
        &b""[..],
        b"\0\0",
        b"\0\x01\0",
        b"\0\x03\x02h",
        b"\0\x03\x03h2",
        b"\0\x03\x02h2x",
        b"\0\x04\x02h2\0",
        b"\0\x04\x02h2",
    ] {
        assert_eq!(
            read(&[extension(16, content)]),
            Err(Malformed::Alpn),
            "{content:?}"
        );
    }
    assert_eq!(
        read(&[alpn(&[b"h2"]), alpn(&[b"h2"])]),
        Err(Malformed::Twice)
    );
    let most = [b'a'; 255];
    assert_eq!(read(&[alpn(&[&most])]), saying(None, &[&most]));
}

#[test]
fn lengths_that_lie_are_refused() {
    let extensions = vector_of(2, &named("a.lan"));
    let parts = |session: &[u8], ciphers: &[u8], compressions: &[u8], extensions: &[u8]| {
        let parts = [&[3; 34], session, ciphers, compressions, extensions].concat();
        parse(&records(&message(1, &parts), 1_000))
    };
    assert_eq!(
        parts(&[0], &[0, 2, 1, 2], &[1, 0], &extensions),
        saying(Some("a.lan"), &[])
    );
    for (session, ciphers, compressions, extensions) in [
        (
            &vector_of(1, &[9; 33])[..],
            &[0, 2, 1, 2][..],
            &[1, 0][..],
            &extensions[..],
        ),
        (&[0], &[0, 0], &[1, 0], &extensions),
        (&[0], &[0, 3, 1, 2, 3], &[1, 0], &extensions),
        (&[0], &[0, 2, 1, 2], &[0], &extensions),
        (&[0], &[0, 2, 1, 2], &[1], &[]),
        (&[0], &[0, 200, 1, 2], &[1, 0], &extensions),
        (
            &[0],
            &[0, 2, 1, 2],
            &[1, 0],
            &extensions[..extensions.len() - 1],
        ),
        (
            &[0],
            &[0, 2, 1, 2],
            &[1, 0],
            &[&extensions[..], &[0]].concat(),
        ),
        (&[0], &[0, 2, 1, 2], &[1, 0], &[0]),
        (&[0], &[0, 2, 1, 2], &[1, 0], &vector_of(2, &[0, 0, 0])),
        (&[0], &[0, 2, 1, 2], &[1, 0], &vector_of(2, &[0, 5, 0, 1])),
        (&[], &[], &[], &[]),
    ] {
        let read = parts(session, ciphers, compressions, extensions);
        assert_eq!(
            read,
            Err(Malformed::Length),
            "{session:?} {ciphers:?} {compressions:?} {extensions:?}"
        );
    }
    assert_eq!(
        parse(&records(&message(1, &[]), 10)),
        Err(Malformed::Length)
    );
}

#[test]
fn other_records_and_messages_are_refused_at_once() {
    let message = hello_with(&[named("a.lan")]);
    let bytes = records(&message, 20);
    // Between the parts: an alert, a change of ciphers, early data, an empty record.
    for between in [
        record_of(21, &[2, 40]),
        record_of(20, &[1]),
        record_of(23, &[0; 9]),
        record_of(22, &[]),
    ] {
        let cut = [&bytes[..25], &between, &bytes[25..]].concat();
        assert_eq!(parse(&cut[..30]), Err(Malformed::Record), "{between:?}");
        assert_eq!(parse(&cut), Err(Malformed::Record));
    }
    for (bytes, why) in [
        (&b"\x15"[..], Malformed::Record),
        (b"GET", Malformed::Record),
        (b"\x80\x2e\x01\x03\x01", Malformed::Record),
        (b"\x16\x02", Malformed::Record),
        (b"\x16\x03\x01\x00\x00", Malformed::Record),
        (b"\x16\x03\x01\x40\x01", Malformed::Record),
        (b"\x16\x03\x03\x00\x40\x02", Malformed::NoHello),
        (b"\x16\x03\x03\x00\x04\x00\x00\x00\x00", Malformed::NoHello),
        (b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfd", Malformed::TooLong),
        (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", Malformed::TooLong),
    ] {
        assert_eq!(parse(bytes), Err(why), "{bytes:?}");
    }
}

#[test]
fn the_longest_hello_fills_one_record() {
    let message = |padding: usize| hello_with(&[named("a.lan"), extension(21, &vec![0; padding])]);
    let most = MOST_RECORD_BYTES - message(0).len();
    let longest = records(&message(most), MOST_RECORD_BYTES);
    assert_eq!(longest.len(), MOST_BYTES);
    assert_eq!(parse(&longest), saying(Some("a.lan"), &[]));
    assert_eq!(parse(&longest[..MOST_BYTES - 1]), Ok(None));
    let longer = records(&message(most + 1), MOST_RECORD_BYTES);
    assert_eq!(parse(&longer), Err(Malformed::TooLong));
    // Another header leaves no room for its last byte.
    let in_two = records(&message(most), MOST_RECORD_BYTES - 1);
    assert_eq!(parse(&in_two), Err(Malformed::TooLong));
    let tiny = records(&message(MOST_RECORD_BYTES / 2), 1);
    assert_eq!(parse(&tiny[..MOST_BYTES - 1]), Ok(None));
    assert_eq!(parse(&tiny[..MOST_BYTES]), Err(Malformed::TooLong));
}

proptest! {
    #[test]
    fn hellos_are_read_however_they_are_cut(
        name in "([a-z0-9_]{1,9}\\.){0,3}[a-z]{1,9}",
        protocols in vec(vec(any::<u8>(), 1..20), 1..5),
        sizes in vec(1_usize..200, 1..20),
        end in any::<prop::sample::Index>(),
    ) {
        let protocols: Vec<_> = protocols.iter().map(Vec::as_slice).collect();
        let mut rest = &hello_with(&[noise(), vec![named(&name), alpn(&protocols)]].concat())[..];
        let mut bytes = Vec::new();
        for size in sizes.iter().cycle() {
            let (part, behind) = rest.split_at((*size).min(rest.len()));
            bytes.extend(record_of(22, part));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(parse(&bytes), saying(Some(&name), &protocols));
        prop_assert_eq!(parse(&bytes[..end.index(bytes.len())]), Ok(None));
    }

    #[test]
    fn any_bytes_have_an_answer(start in 0..3_usize, bytes in vec(any::<u8>(), 0..200)) {
        let starts = [&b""[..], b"\x16\x03\x01\0\x40", b"\x16\x03\x01\0\xc0\x01\0\0\x90\x03\x03"];
        let bytes = [starts[start], &bytes].concat();
        if let Ok(Some(hello)) = parse(&bytes) {
            prop_assert!(hello.server_name.is_none_or(|it| !it.is_empty()));
        }
    }
}
