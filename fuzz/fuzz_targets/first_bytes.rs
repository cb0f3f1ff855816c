//! At most one protocol matches any bytes, and no answer changes with bytes that follow.

#![no_main]

use coracle::wire::first_bytes::Protocol;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let answers = Protocol::ALL.map(|it| it.matches(bytes));
    assert!(answers.iter().filter(|&&it| it == Some(true)).count() <= 1);
    for (protocol, answer) in Protocol::ALL.into_iter().zip(answers) {
        let half = protocol.matches(&bytes[..bytes.len() / 2]);
        assert!(half.is_none() || half == answer, "{}", protocol.name());
        let but_one = protocol.matches(&bytes[..bytes.len().saturating_sub(1)]);
        assert!(but_one.is_none() || but_one == answer, "{}", protocol.name());
        assert!(answer.is_some() || bytes.len() < Protocol::MOST_BYTES);
    }
});
