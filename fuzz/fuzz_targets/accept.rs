//! No Accept header makes the choice of a format panic, and OpenMetrics is chosen only by name.

#![no_main]

use coracle::admin::fuzzing::accept;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    if accept(header) {
        let header = header.to_ascii_lowercase();
        assert!(header.contains("application/openmetrics-text"));
    }
});
