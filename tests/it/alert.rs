//! The mismatch alert fires in a real Prometheus for a broken set, and only then.

use crate::support;
use crate::support::backend::hold;
use crate::support::in_process::{InProcess, socket_without_entry};
use crate::support::prometheus::Prometheus;
use crate::support::until;

const ALERT: &str =
    "ALERTS%7Balertname%3D%22CoracleConnectionMismatch%22%2Calertstate%3D%22firing%22%7D";

/// The shipped rules, with seconds instead of minutes.
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
fn mismatch_alert_fires_only_for_a_broken_set() {
    if !support::has_tool("prometheus") {
        return;
    }
    // One that leaks entries, one where an entry leaves early, and one that is intact.
    let proxies = [true, false, false].map(InProcess::start);
    let rules = rules();
    let [of_leaking, of_early, of_whole] = proxies
        .each_ref()
        .map(|proxy| Prometheus::start(proxy.admin, Some(&rules)));
    let [leaking, early, whole] = &proxies;
    for proxy in [leaking, whole] {
        drop(hold(proxy.address));
    }
    let _kept = socket_without_entry(early);
    for (what, prometheus) in [
        ("a leaked entry", of_leaking),
        ("an entry gone early", of_early),
    ] {
        until(&format!("the alert fires for {what}"), || {
            prometheus
                .query(ALERT)
                .filter(|answer| answer.contains("\"1\"]"))
        });
    }
    let answer = of_whole.query(ALERT).unwrap();
    assert!(answer.contains("\"result\":[]"), "{answer}");
}
