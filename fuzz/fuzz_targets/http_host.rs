//! No bytes make the parser of a request's host panic, a head with a host does not change with
//! bytes that follow, and a host can stand in a Host header.

#![no_main]

use coracle::wire::http_host::{MOST_BYTES, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let answer = parse(bytes);
    assert!(bytes.len() < MOST_BYTES || answer != Ok(None));
    let Ok(Some(host)) = answer else {
        return;
    };
    assert_eq!(parse(&[bytes, b"GET"].concat()), Ok(Some(host.clone())));
    if let Some(host) = host {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}:80\r\n\r\n");
        assert_eq!(parse(request.as_bytes()), Ok(Some(Some(host))));
    }
});
