//! No answer of sock_diag makes its reader panic, and there are no more rows than fit into it.

#![no_main]

use coracle::sys::sockets::fuzzing::sock_diag;
use libfuzzer_sys::fuzz_target;

/// A netlink header. No message is shorter.
const HEADER_BYTES: usize = 16;

fuzz_target!(|answer: &[u8]| {
    for table in sock_diag(answer) {
        let rows = table.accepted.len() + table.listening.len();
        assert!(rows <= answer.len() / HEADER_BYTES);
    }
});
