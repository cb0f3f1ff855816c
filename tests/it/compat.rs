//! Traefik's metric names: present only on request, with the same values as coracle's own.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support;
use crate::support::backend::{self, hold};
use crate::support::http::{get, http};
use crate::support::metrics::{Metrics, scrape};
use crate::support::openmetrics;
use crate::support::process::Coracle;
use crate::support::until;

const OPENMETRICS: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
    Accept: application/openmetrics-text;version=1.0.0\r\n\r\n";

/// A coracle with two entrypoints and this `[metrics]` table.
fn start(metrics: &str) -> Coracle {
    let to = backend::start();
    Coracle::start(&format!(
        "{metrics}\n[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n\
         [entrypoints.ssh]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\nto = \"{to}\"\n"
    ))
}

/// The names that begin with `traefik_`, without their labels.
fn traefik_names(metrics: &Metrics) -> BTreeSet<&str> {
    let names = metrics.0.keys().map(|key| key.split('{').next().unwrap());
    names.filter(|name| name.starts_with("traefik_")).collect()
}

#[test]
fn traefik_names_are_absent_by_default() {
    for metrics in ["", "[metrics]\ncompat = []"] {
        let coracle = start(metrics);
        let (_, _, body) = get(coracle.admin, "/metrics");
        assert!(!body.contains("traefik"), "{body}");
    }
}

#[test]
fn traefik_gauge_equals_coracles_own_in_every_scrape() {
    let coracle = start("[metrics]\ncompat = [\"traefik\"]");
    let same = |web: usize, ssh: usize| {
        let (_, _, body) = http(coracle.admin, OPENMETRICS);
        let strict = Metrics(openmetrics::parse(&body).unwrap());
        for metrics in [scrape(coracle.admin), strict] {
            let own: Vec<_> = metrics.series("coracle_open_connections").collect();
            let traefik: Vec<_> = metrics.series("traefik_open_connections").collect();
            assert_eq!(own, traefik);
            let expected = [
                ("{entrypoint=\"ssh\",protocol=\"TCP\"}", ssh as f64),
                ("{entrypoint=\"web\",protocol=\"TCP\"}", web as f64),
            ];
            assert_eq!(traefik, expected);
        }
    };
    same(0, 0);
    let mut held = Vec::new();
    for n in 1..=5 {
        held.push(hold(coracle.address("web")));
        same(n, n - 1);
        held.push(hold(coracle.address("ssh")));
        same(n, n);
    }
    // Under churn too: each scrape is one moment.
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| (0..200).for_each(|_| drop(hold(coracle.address("web")))));
        let mut scrapes = 0;
        while !busy.is_finished() || scrapes == 0 {
            let metrics = scrape(coracle.admin);
            let own: Vec<_> = metrics.series("coracle_open_connections").collect();
            let traefik: Vec<_> = metrics.series("traefik_open_connections").collect();
            assert_eq!(own, traefik);
            scrapes += 1;
        }
    });
    drop(held);
    until("all have left", || {
        (scrape(coracle.admin).sum("traefik_open_connections") == 0.0).then_some(())
    });
    same(0, 0);
}

#[test]
fn startup_counts_as_the_first_configuration_load() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = now().as_secs();
    let coracle = start("[metrics]\ncompat = [\"traefik\"]");
    let after = now().as_secs();
    let metrics = scrape(coracle.admin);
    assert_eq!(
        traefik_names(&metrics),
        BTreeSet::from([
            "traefik_config_last_reload_success",
            "traefik_config_reloads_total",
            "traefik_open_connections",
        ])
    );
    assert_eq!(metrics["traefik_config_reloads_total"], 1.0);
    let loaded = metrics["traefik_config_last_reload_success"] as u64;
    assert!((before..=after).contains(&loaded), "{loaded}");
    drop(hold(coracle.address("web")));
    let later = scrape(coracle.admin);
    assert_eq!(later["traefik_config_reloads_total"], 1.0);
    let loaded_later = later["traefik_config_last_reload_success"] as u64;
    assert_eq!(loaded_later, loaded, "the load time moves without a load");
}

#[test]
fn promtool_accepts_the_output() {
    if !support::has_tool("promtool") {
        return;
    }
    let coracle = start("[metrics]\ncompat = [\"traefik\"]");
    let _held = hold(coracle.address("web"));
    let (_, _, body) = get(coracle.admin, "/metrics");
    assert!(body.contains("\n# TYPE traefik_config_reloads_total counter\n"));
    assert!(body.contains("\n# TYPE traefik_config_last_reload_success gauge\n"));
    assert!(body.contains("\n# TYPE traefik_open_connections gauge\n"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
