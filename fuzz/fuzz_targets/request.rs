//! No bytes make the parser of request heads panic, and a head is no longer than its bytes and needs
//! all of them.

#![no_main]

use coracle::admin::fuzzing::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for head_bytes in request(bytes).into_iter().flatten() {
        assert!(head_bytes <= bytes.len());
        let cut = &bytes[..head_bytes - 1];
        assert!(request(cut).into_iter().flatten().next().is_none());
    }
});
