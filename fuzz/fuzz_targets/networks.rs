//! No text makes the reader of a file of networks panic, and what it reads decides as each line says.

#![no_main]

use std::net::IpAddr;

use coracle::config::{Config, Overrides};
use coracle::state::{Network, Verdict};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = "[entrypoints.e]\nlisten = '*:80'\nto = 'h:1'\ndeny_file = '/list'\n";

fuzz_target!(|text: &str| {
    let read = |_: &std::path::Path| Ok(text.to_owned());
    let overrides = Overrides::default();
    let config = match Config::with_files(Some(("fuzz.toml", CONFIG)), &overrides, &read) {
        Ok(config) => config,
        Err(errors) => return assert!(errors.to_string().contains("/list:")),
    };
    let access = config.entrypoints[0].access.as_ref().unwrap();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(|line| line.split('#').next().unwrap().trim());
    let networks: Vec<Network> = lines.filter_map(|line| line.parse().ok()).collect();
    assert_eq!(networks.len(), access.list.rules());
    for network in &networks {
        let text = network.to_string();
        let first: IpAddr = text.split('/').next().unwrap().parse().unwrap();
        assert_eq!(access.list.judge(first), Verdict::Deny);
    }
});
