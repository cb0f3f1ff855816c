//! No text makes the configuration's reader panic, and every error has a message and a place in the
//! text.

#![no_main]

use coracle::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Err(errors) = Config::parse("fuzz.toml", text, &[]) else {
        return;
    };
    assert!(!errors.to_string().is_empty());
    let lines = text.split('\n').count();
    for place in errors
        .told
        .iter()
        .filter_map(|error| error.location.as_ref())
    {
        assert!((1..=lines).contains(&place.line), "{place:?}");
    }
});
