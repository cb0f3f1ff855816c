//! No line of `/proc/net/tcp` or `/proc/net/unix` makes its reader panic, and each is one row of
//! either at most.

#![no_main]

use coracle::sys::sockets::fuzzing::proc_net;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|row: &[u8]| {
    let table = proc_net(row);
    assert!(table.accepted.len() + table.listening.len() <= 2);
});
