//! No bytes make the parser of the ClientHello panic, what it says does not change with bytes that
//! follow, and a hello is whole at one byte and not before.

#![no_main]

use coracle::wire::client_hello::{MOST_BYTES, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let answer = parse(bytes);
    if !matches!(answer, Ok(None)) {
        assert_eq!(parse(&[bytes, b"\x16\x03\x03"].concat()), answer);
    }
    assert!(bytes.len() < MOST_BYTES || !matches!(answer, Ok(None)));
    let Ok(Some(hello)) = answer else {
        return;
    };
    let mut ends = (0, bytes.len());
    while ends.0 + 1 < ends.1 {
        let middle = usize::midpoint(ends.0, ends.1);
        match parse(&bytes[..middle]) {
            Ok(None) => ends.0 = middle,
            other => {
                assert_eq!(other.as_ref(), Ok(&Some(hello.clone())));
                ends.1 = middle;
            }
        }
    }
    if let Some(name) = hello.server_name {
        assert!(!name.is_empty() && name.len() <= 253 && *name == name.to_ascii_lowercase());
    }
});
