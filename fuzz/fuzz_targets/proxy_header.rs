//! No bytes make the parser of the PROXY protocol's header panic, a header is no longer than its
//! bytes and needs all of them, and what it says is the same when written and read again.

#![no_main]

use coracle::wire::proxy_header::{Client, Parsed, Version, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Parsed::Header {
        bytes: header_bytes,
        client,
    }) = parse(bytes)
    else {
        return;
    };
    assert!(header_bytes <= bytes.len());
    assert_eq!(parse(&bytes[..header_bytes - 1]), Ok(Parsed::Partial));
    let Client::Tcp {
        source,
        destination,
    } = client
    else {
        return;
    };
    for version in [Version::V1, Version::V2] {
        let header = version.header(client);
        let Ok(Parsed::Header {
            client:
                Client::Tcp {
                    source: from,
                    destination: to,
                },
            ..
        }) = parse(&header)
        else {
            panic!("{header:?} is no header");
        };
        assert_eq!(from.ip().to_canonical(), source.ip().to_canonical());
        assert_eq!(to.ip().to_canonical(), destination.ip().to_canonical());
        assert_eq!(
            (from.port(), to.port()),
            (source.port(), destination.port())
        );
    }
});
