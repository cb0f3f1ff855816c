//! What `/metrics` reports for a hand-made state, in both formats.
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coracle::state::{CloseReason, ConnectError, Direction, Label};

use crate::support::admin::{Admin, PATIENT};
use crate::support::http::{get, http};
use crate::support::metrics::{Metrics, scrape};
use crate::support::openmetrics;

const OPENMETRICS: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75\r\nAccept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\r\n";

#[test]
fn every_series_exists_at_zero_from_the_start() {
    let admin = Admin::start(PATIENT);
    let series = scrape(admin.address);
    for entrypoint in ["ssh", "web"] {
        let of = format!("entrypoint=\"{entrypoint}\",protocol=\"TCP\"");
        assert_eq!(series[&format!("coracle_open_connections{{{of}}}")], 0.0);
        assert_eq!(
            series[&format!("coracle_connections_opened_total{{{of}}}")],
            0.0
        );
        for reason in CloseReason::ALL {
            let closed = format!("coracle_connections_closed_total{{{of},reason=\"{reason}\"}}");
            assert_eq!(series[&closed], 0.0);
        }
        for direction in Direction::ALL {
            let bytes = format!("coracle_bytes_total{{{of},direction=\"{direction}\"}}");
            assert_eq!(series[&bytes], 0.0);
        }
        let duration = format!("coracle_connection_duration_seconds_count{{{of}}}");
        assert_eq!(series[&duration], 0.0);
    }
    for server in ["10.0.0.1:22", "nas.local:22"] {
        let of = format!("service=\"nas\",server=\"{server}\"");
        assert_eq!(
            series[&format!("coracle_service_open_connections{{{of}}}")],
            0.0
        );
        assert_eq!(
            series[&format!("coracle_connect_duration_seconds_count{{{of}}}")],
            0.0
        );
        for reason in ConnectError::ALL {
            let errors = format!("coracle_connect_errors_total{{{of},reason=\"{reason}\"}}");
            assert_eq!(series[&errors], 0.0);
        }
    }
    assert_eq!(series.sum_of("coracle_build_info", &[]), 1.0);
    assert!(series["process_open_fds"] > 3.0);
    assert!(series["process_resident_memory_bytes"] > 1e5);
}

#[test]
fn gauge_equals_the_set_and_opened_minus_closed() {
    let admin = Admin::start(PATIENT);
    let check = |open: [f64; 2], at: [f64; 2]| {
        let (_, _, body) = http(admin.address, OPENMETRICS);
        for series in [
            scrape(admin.address),
            Metrics(openmetrics::parse(&body).unwrap()),
        ] {
            for (entrypoint, open) in ["ssh", "web"].into_iter().zip(open) {
                let of = format!("entrypoint=\"{entrypoint}\"");
                let sum = |name| series.sum_of(name, &[&of]);
                assert_eq!(sum("coracle_open_connections"), open);
                let opened = sum("coracle_connections_opened_total");
                assert_eq!(opened - sum("coracle_connections_closed_total"), open);
                let closed = sum("coracle_connection_duration_seconds_count");
                assert_eq!(opened - closed, open);
            }
            for (server, at) in ["10.0.0.1:22", "nas.local:22"].into_iter().zip(at) {
                let of = format!("server=\"{server}\"");
                assert_eq!(
                    series.sum_of("coracle_service_open_connections", &[&of]),
                    at
                );
            }
        }
    };
    check([0.0, 0.0], [0.0, 0.0]);
    admin.with(|world| {
        for n in 0..10 {
            let server = world.servers[n % 2].clone();
            let conn = world.insert(n % 2).conn().clone();
            // The first two are still dialling.
            if n >= 2 {
                conn.relaying(server.place(conn.id), Instant::now());
                conn.moved(Direction::ToServer, 1000, Instant::now());
            }
        }
    });
    check([5.0, 5.0], [4.0, 4.0]);
    assert_eq!(
        scrape(admin.address).sum_of("coracle_bytes_total", &["to_server"]),
        8000.0
    );
    admin.with(|world| {
        for reason in [CloseReason::Done, CloseReason::ClientReset] {
            let later = Instant::now() + Duration::from_secs(90);
            world
                .guards
                .remove(9 - reason as usize)
                .close(reason, later);
        }
        world.guards.remove(0);
    });
    check([3.0, 4.0], [3.0, 3.0]);
    let series = scrape(admin.address);
    let closed = |reason| series.sum_of("coracle_connections_closed_total", &[reason]);
    assert_eq!(closed("reason=\"done\""), 1.0);
    assert_eq!(closed("reason=\"client_reset\""), 1.0);
    assert_eq!(closed("reason=\"dropped\""), 1.0);
    let duration = |le| series.sum_of("coracle_connection_duration_seconds_bucket", &[le]);
    assert_eq!(duration("le=\"60\""), 1.0);
    assert_eq!(duration("le=\"600\""), 3.0);
}

#[test]
fn openmetrics_and_text_agree() {
    let admin = Admin::with_entrypoints(
        PATIENT,
        vec!["a \"quoted\" \\ name\nof two lines".into(), "größe".into()],
    );
    admin.with(|world| {
        world.insert(0);
        world.insert(1);
    });
    let (_, _, text) = get(admin.address, "/metrics");
    let (status, headers, body) = http(admin.address, OPENMETRICS);
    assert_eq!(status, 200);
    assert_eq!(
        headers.value("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let strict = openmetrics::parse(&body).unwrap();
    // OpenMetrics writes bounds with a decimal point; process metrics change between scrapes.
    let plain = |key: &String| key.replace(".0\"}", "\"}");
    let constant = |key: &String| !key.starts_with("process_");
    let of_text: Vec<_> = Metrics::parse(&text)
        .0
        .into_keys()
        .filter(constant)
        .collect();
    let mut of_openmetrics: Vec<_> = strict.keys().filter(|k| constant(k)).map(plain).collect();
    of_openmetrics.sort_unstable();
    assert_eq!(of_text, of_openmetrics);
    assert!(body.contains("# TYPE coracle_bytes counter\n# UNIT coracle_bytes bytes\n"));
}

#[test]
fn promtool_accepts_the_output() {
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        world.insert(0);
    });
    let (_, _, body) = get(admin.address, "/metrics");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
            assert!(!required, "promtool is not installed");
            eprintln!("skipped: promtool is not installed");
            return;
        }
        promtool => promtool.unwrap(),
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(body.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.trim().is_empty(), "{said}");
}
