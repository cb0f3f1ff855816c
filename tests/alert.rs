//! The alert rule for a mismatch fires in a real Prometheus when the set is broken, and does not when it is whole.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use support::backend::Script;
use support::in_process::InProcess;
use support::prometheus::Prometheus;
use support::until;

const ALERT: &str =
    "ALERTS%7Balertname%3D%22CoracleConnectionMismatch%22%2Calertstate%3D%22firing%22%7D";

fn visit(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

/// The shipped rules, with seconds in the place of minutes.
fn rules() -> String {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/monitoring/coracle.rules.yml"
    );
    let rules = std::fs::read_to_string(path).unwrap();
    let mut quick = String::new();
    for line in rules.lines() {
        match line.trim_start().starts_with("for: ") {
            true => quick.push_str(&line.replace('m', "s")),
            false => quick.push_str(line),
        }
        quick.push('\n');
    }
    assert!(quick.contains("for: 5s"), "{quick}");
    quick
}

#[test]
fn the_mismatch_alert_fires_for_a_leaked_entry_and_not_before() {
    if !support::has_tool("prometheus") {
        return;
    }
    let whole = InProcess::start(false);
    let broken = InProcess::start(true);
    let rules = rules();
    let (of_whole, of_broken) = (
        Prometheus::start(whole.admin, Some(&rules)),
        Prometheus::start(broken.admin, Some(&rules)),
    );
    visit(whole.address);
    visit(broken.address);
    until("the alert fires", || {
        of_broken
            .query(ALERT)
            .filter(|answer| answer.contains("\"1\"]"))
    });
    let answer = of_whole.query(ALERT).unwrap();
    assert!(answer.contains("\"result\":[]"), "{answer}");
}
