use proptest::prelude::*;

use super::*;

const NAME: &str = "_mqtt._tcp.example.org";

/// An answer of dnsmasq 2.90 for two records: compressed owners, and a target that ends in a
/// pointer.
fn answer() -> Vec<u8> {
    let mut message = query(0x1234, NAME).expect("a name");
    message[2] = 0x85;
    message[3] = 0x80;
    message[7] = 2;
    for (priority, weight, port, label) in [(10, 5, 1883, "a"), (20, 0, 1884, "b")] {
        message.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10]);
        for number in [priority, weight, port] {
            message.extend(u16::to_be_bytes(number));
        }
        message.push(1);
        message.extend(label.bytes());
        // `example.org` within the question.
        message.extend([0xc0, 23]);
    }
    message
}

fn records() -> Vec<Record> {
    let record = |(priority, weight, port, target): (u16, u16, u16, &str)| Record {
        priority,
        weight,
        port,
        target: target.to_owned(),
    };
    let all = [
        (10, 5, 1883, "a.example.org"),
        (20, 0, 1884, "b.example.org"),
    ];
    all.map(record).to_vec()
}

fn read(message: &[u8]) -> Reply {
    reply(message, &query(0x1234, NAME).expect("a name"))
}

#[test]
fn answer_is_read_whatever_the_case_of_the_question() {
    let mut message = answer();
    assert_eq!(read(&message), Reply::Records(records()));
    message[13..18].make_ascii_uppercase();
    assert_eq!(read(&message), Reply::Records(records()));
}

#[test]
fn every_part_of_an_answer_is_refused() {
    let message = answer();
    for end in 0..message.len() {
        let reply = read(&message[..end]);
        assert!(
            matches!(reply, Reply::Unrelated | Reply::Malformed),
            "{end} {reply:?}"
        );
    }
}

#[test]
fn other_id_question_and_direction_are_unrelated() {
    for (at, bit) in [
        (0, 1),
        (1, 1),
        (2, 0x80),
        (2, 0x08),
        (5, 1),
        (14, 1),
        (36, 1),
        (38, 1),
    ] {
        let mut message = answer();
        message[at] ^= bit;
        assert_eq!(read(&message), Reply::Unrelated, "{at}");
    }
}

#[test]
fn codes_and_flags_are_told_apart() {
    let mut message = answer();
    message[3] = 0x83;
    assert_eq!(read(&message), Reply::Records(Vec::new()));
    message[3] = 0x82;
    assert_eq!(read(&message), Reply::Failed(2));
    // A refusal without the question.
    let mut short = message[..HEADER_BYTES].to_vec();
    short[5] = 0;
    assert_eq!(read(&short), Reply::Failed(2));
    let mut message = answer();
    message[2] |= 2;
    assert_eq!(read(&message), Reply::Truncated);
}

#[test]
fn name_that_points_at_itself_or_ahead_is_malformed() {
    let owner = query(0, NAME).expect("a name").len();
    for to in [owner, owner + 12, 0x3fff] {
        let mut message = answer();
        let pointer = 0xc000 | u16::try_from(to).expect("14 bits");
        message[owner..owner + 2].copy_from_slice(&pointer.to_be_bytes());
        assert_eq!(read(&message), Reply::Malformed, "{to}");
    }
}

#[test]
fn only_the_first_records_and_only_hosts_are_used() {
    let mut message = answer();
    let record = message[message.len() - 22..].to_vec();
    for _ in 0..200 {
        message.extend(&record);
    }
    message[7] = 202;
    let Reply::Records(records) = read(&message) else {
        panic!("no records");
    };
    assert_eq!(records.len(), MAX_RECORDS);
    let mut message = answer();
    let at = message.len() - 3;
    message[at] = b'\n';
    assert_eq!(
        read(&message),
        Reply::Records(super::tests::records()[..1].to_vec())
    );
}

#[test]
fn names_that_do_not_fit_have_no_query() {
    let long = "a".repeat(64);
    let many = ["a"; 128].join(".");
    for name in ["", "a..b", long.as_str(), many.as_str()] {
        assert_eq!(query(0, name), None, "{name}");
    }
    assert_eq!(query(7, "a.b."), query(7, "a.b"));
}

#[test]
fn every_changed_byte_is_survived() {
    for at in 0..answer().len() {
        for byte in 0..=255 {
            let mut message = answer();
            message[at] = byte;
            bounded(&message);
        }
    }
}

/// Reads a message and checks the bounds of what it says.
fn bounded(message: &[u8]) {
    if let Reply::Records(records) = read(message) {
        assert!(records.len() <= MAX_RECORDS);
        for record in records {
            assert!(record.target.len() < MAX_NAME_BYTES);
        }
    }
}

proptest! {
    #[test]
    fn whatever_follows_the_question_is_survived(
        count in 0u16..300,
        rest in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut message = answer();
        message.truncate(query(0, NAME).expect("a name").len());
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message.extend(rest);
        bounded(&message);
    }

    #[test]
    fn whatever_arrives_is_survived(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        bounded(&message);
    }
}
