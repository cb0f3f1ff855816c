//! Refused connections, by reason: the metrics, the API, the page, `coracle status` and `coracle top`
//! say the same.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use coracle::wire::proxy_header::{Client, Version};
use serde_json::Value;

use crate::support::backend::{self, hold};
use crate::support::http::{get, http};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, binary};
use crate::support::screen::Screen;
use crate::support::{DEADLINE, has_tool, until};

/// Sends these bytes and waits for the end, whichever it is.
fn is_ended(address: SocketAddr, bytes: &[u8]) {
    // A reset may come at any time.
    let Ok(mut client) = TcpStream::connect(address) else {
        return;
    };
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = client.write_all(bytes);
    match client.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// The entrypoints, sorted by name, with what they refuse in this test.
const REFUSED: [(&str, &str); 6] = [
    ("broad", "0"),
    ("denied", "3: denied 3"),
    ("narrow", "2: client_limit 2"),
    ("often", "4: client_rate 4"),
    ("proxied", "6: denied 1, limit 2, prologue 3"),
    ("strange", "1: untrusted 1"),
];

fn refused_by_each() -> Coracle {
    let server = backend::start();
    let entrypoint = |name: &str, more: &str| {
        format!("[entrypoints.{name}]\nlisten = \"127.0.0.1:0\"\nto = \"{server}\"\n{more}\n")
    };
    let accept_proxy = |trusted: &str| format!("accept_proxy = true\ntrusted = [\"{trusted}\"]\n");
    let coracle = Coracle::start(
        &[
            entrypoint("broad", ""),
            entrypoint("denied", "deny = [\"127.0.0.0/8\"]"),
            entrypoint("narrow", "max_connections_per_client = 1"),
            entrypoint("often", "connection_rate_per_client = \"1/h\"\n"),
            entrypoint(
                "proxied",
                &format!(
                    "{}deny = [\"192.0.2.0/24\"]\nmax_connections = 1\nat_limit = \"refuse\"",
                    accept_proxy("127.0.0.1")
                ),
            ),
            entrypoint("strange", &accept_proxy("192.0.2.1")),
        ]
        .concat(),
    );
    let _held = ["broad", "narrow", "often"].map(|name| hold(coracle.address(name)));
    let ended = |name: &str, bytes: &[u8]| is_ended(coracle.address(name), bytes);
    (0..3).for_each(|_| ended("denied", b""));
    (0..2).for_each(|_| ended("narrow", b""));
    (0..4).for_each(|_| ended("often", b""));
    ended("strange", b"PROXY UNKNOWN\r\n");
    let left = |name: &str| {
        until(&format!("{name} has none"), || {
            let labels = format!("entrypoint=\"{name}\"");
            let open = scrape(coracle.admin).sum_where("coracle_open_connections", &labels);
            (open == 0.0).then_some(())
        });
    };
    for _ in 0..3 {
        ended("proxied", b"GET / HTTP/1.1\r\n");
        left("proxied");
    }
    let named = Client::Tcp {
        source: "192.0.2.9:1".parse().unwrap(),
        destination: "192.0.2.1:1".parse().unwrap(),
    };
    ended("proxied", &Version::V2.header(named));
    left("proxied");
    let mut one = TcpStream::connect(coracle.address("proxied")).unwrap();
    one.set_read_timeout(Some(DEADLINE)).unwrap();
    one.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    one.write_all(&backend::Script::Hold.request(0)).unwrap();
    one.read_exact(&mut [0]).unwrap();
    (0..2).for_each(|_| ended("proxied", b""));
    coracle
}

#[test]
fn every_view_has_the_same_refusals_by_reason() {
    let coracle = refused_by_each();
    let metrics = scrape(coracle.admin);
    let status: Value = serde_json::from_str(&get(coracle.admin, "/api/v1/status").2).unwrap();
    let page =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/html\r\n\r\n";
    let page = http(coracle.admin, page).2;
    let mut command = Command::new(binary());
    command.args(["status", "--admin", &coracle.admin.to_string()]);
    let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for ((name, expected), told) in REFUSED
        .iter()
        .zip(status["entrypoints"].as_array().unwrap())
    {
        assert_eq!(told["name"], *name);
        let by = told["refused_by"].as_object().unwrap();
        let mut sum = 0;
        for (reason, n) in by {
            let n = n.as_u64().unwrap();
            sum += n;
            let metric = match reason.as_str() {
                "no_route" | "prologue" | "untrusted" => "coracle_connections_closed_total",
                _ => "coracle_connections_refused_total",
            };
            let labels = [
                format!("entrypoint=\"{name}\""),
                format!("reason=\"{reason}\""),
            ];
            let labels = labels.each_ref().map(String::as_str);
            assert_eq!(metrics.sum_of(metric, &labels), n as f64, "{name} {reason}");
        }
        assert_eq!(told["refused"], sum);
        let some = by.iter().filter(|(_, n)| **n != 0);
        let some: Vec<_> = some.map(|(reason, n)| format!("{reason} {n}")).collect();
        let text = match some.is_empty() {
            true => sum.to_string(),
            false => format!("{sum}: {}", some.join(", ")),
        };
        assert_eq!(text, *expected, "{name}");
        let row = printed.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(row.ends_with(&format!(" {expected}")), "{row}");
        let row = page
            .split("<tr>")
            .find(|row| row.starts_with(&format!("<td>{name}<")));
        let row = row.unwrap();
        let row = row.split("</tbody>").next().unwrap();
        assert!(row.ends_with(&format!("<td>{expected}")), "{row}");
    }
    if !has_tool("tmux") {
        return;
    }
    let top = format!(
        "{} top --admin {}; exec sleep 1000",
        binary(),
        coracle.admin
    );
    let screen = Screen::start(200, 60, &top);
    for (name, expected) in REFUSED {
        until(&format!("{name}: {expected}"), || {
            let lines = screen.lines();
            let row = lines.iter().find(|line| line.starts_with(name))?;
            row.trim_end()
                .ends_with(&format!(" {expected}"))
                .then_some(())
        });
    }
}
