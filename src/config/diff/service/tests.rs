//! Tests that each kind of change inside a service has a line.

use crate::config::diff::tests::{Case, check};

const BASE: &str = r#"
[entrypoints.web]
listen = "0.0.0.0:8080"
service = "web"
[entrypoints.ssh]
listen = "[::]:2222"
service = "ssh"
[services.web]
servers = [
    "10.0.0.1:80",
    { address = "10.0.0.2:80", weight = 2 },
    { address = "10.0.0.3:80", name = "third", backup = true },
]
balance = "round_robin"
queue = 10
[services.web.health]
kind = "http"
interval = "10s"
timeout = "3s"
jitter = "1s"
[services.ssh]
servers = [{ address = "nas.lan:22", max_connections = 5 }]
retries = 3
[services.ssh.health]
expect = "SSH-2.0"
"#;

const CASES: &[Case] = &[
    // Servers.
    (
        "weight = 2",
        "weight = 0, max_connections = 7",
        &[
            "service web: server 10.0.0.2:80: weight 0 instead of 2",
            "service web: server 10.0.0.2:80: max_connections 7 instead of none",
        ],
        &[
            "service web: server 10.0.0.2:80: weight 2 instead of 0",
            "service web: server 10.0.0.2:80: max_connections none instead of 7",
        ],
    ),
    (
        ", backup = true",
        "",
        &["service web: server third: backup off"],
        &["service web: server third: backup on"],
    ),
    (
        "10.0.0.3:80",
        "10.0.0.4:80",
        &["service web: server third: address 10.0.0.4:80 instead of 10.0.0.3:80"],
        &["service web: server third: address 10.0.0.3:80 instead of 10.0.0.4:80"],
    ),
    (
        "\"10.0.0.1:80\"",
        "{ address = \"10.0.0.1:80\", name = \"10.0.0.1:80\" }",
        &["service web: server 10.0.0.1:80: name 10.0.0.1:80 instead of none"],
        &["service web: server 10.0.0.1:80: name none instead of 10.0.0.1:80"],
    ),
    (
        "name = \"third\", backup = true",
        "name = \"spare\", backup = true, max_connections = 2, weight = 3",
        &[
            "service web: server third removed",
            "service web: server spare added (10.0.0.3:80, weight 3, backup, max_connections 2)",
        ],
        &[
            "service web: server spare removed",
            "service web: server third added (10.0.0.3:80, backup)",
        ],
    ),
    (
        "    \"10.0.0.1:80\",\n    { address = \"10.0.0.2:80\", weight = 2 },\n",
        "    { address = \"10.0.0.2:80\", weight = 3 },\n    \"10.0.0.1:80\",\n",
        &[
            "service web: servers in another order",
            "service web: server 10.0.0.2:80: weight 3 instead of 2",
        ],
        &[
            "service web: servers in another order",
            "service web: server 10.0.0.2:80: weight 2 instead of 3",
        ],
    ),
    // The only server of a service that looks like an entrypoint's own.
    (
        ", max_connections = 5",
        "",
        &["entrypoint ssh: server nas.lan:22: max_connections none instead of 5"],
        &["entrypoint ssh: server nas.lan:22: max_connections 5 instead of none"],
    ),
    (
        "nas.lan:22",
        "nas.lan:23",
        &["entrypoint ssh: forwards to nas.lan:23 instead of nas.lan:22"],
        &["entrypoint ssh: forwards to nas.lan:22 instead of nas.lan:23"],
    ),
    (
        "retries = 3",
        "",
        &["entrypoint ssh: retries one for each other server instead of 3"],
        &["entrypoint ssh: retries 3 instead of one for each other server"],
    ),
    // How a service balances.
    (
        "\"round_robin\"\nqueue = 10\n",
        "\"source\"\nqueue = 0\nmax_fails = 5\nfail_window = \"1m\"\nwhen_down = \"refuse\"\non_down = \"close\"\nslow_start = \"30s\"\nresolve = \"all\"\nresolve_interval = \"1m\"\nsend_proxy = \"v2\"\nbind = \"wg0\"\ntransparent = true\nmark = 7\ndscp = \"af21\"\n",
        &[
            "service web: balance source instead of round_robin",
            "service web: fail_window 1m instead of 10s",
            "service web: slow_start 30s instead of 0s",
            "service web: resolve_interval 1m instead of 30s",
            "service web: max_fails 5 instead of 3",
            "service web: when_down refuse instead of try",
            "service web: on_down close instead of keep",
            "service web: resolve all instead of first",
            "service web: send_proxy v2 instead of none",
            "service web: bind wg0 instead of none",
            "service web: transparent on",
            "service web: mark 7 instead of none",
            "service web: dscp 18 instead of none",
            "service web: queue 0 instead of 10",
        ],
        &[
            "service web: balance round_robin instead of source",
            "service web: fail_window 10s instead of 1m",
            "service web: slow_start 0s instead of 30s",
            "service web: resolve_interval 30s instead of 1m",
            "service web: max_fails 3 instead of 5",
            "service web: when_down try instead of refuse",
            "service web: on_down keep instead of close",
            "service web: resolve first instead of all",
            "service web: send_proxy none instead of v2",
            "service web: bind none instead of wg0",
            "service web: transparent off",
            "service web: mark none instead of 7",
            "service web: dscp none instead of 18",
            "service web: queue 10 instead of 0",
        ],
    ),
    (
        "queue = 10\n",
        "queue_timeout = \"1s\"\nqueue = 10\n",
        &["service web: queue_timeout 1s instead of 30s"],
        &["service web: queue_timeout 30s instead of 1s"],
    ),
    // Health checks.
    (
        "[services.ssh.health]\nexpect = \"SSH-2.0\"\n",
        "",
        &["entrypoint ssh: health check removed"],
        &["entrypoint ssh: health check added: tcp, every 10s"],
    ),
    (
        "kind = \"http\"",
        "kind = \"tcp\"",
        &["service web: health check: tcp instead of http"],
        &["service web: health check: http instead of tcp"],
    ),
    (
        "interval = \"10s\"\ntimeout = \"3s\"\njitter = \"1s\"\n",
        "interval = \"5s\"\ntimeout = \"2s\"\njitter = \"0s\"\nrise = 1\nfall = 2\nport = 81\n",
        &[
            "service web: health check: every 5s instead of 10s",
            "service web: health check: jitter 0s instead of 1s",
            "service web: health check: timeout 2s instead of 3s",
            "service web: health check: rise 1 instead of 2",
            "service web: health check: fall 2 instead of 3",
            "service web: health check: port 81 instead of the server's",
        ],
        &[
            "service web: health check: every 10s instead of 5s",
            "service web: health check: jitter 1s instead of 0s",
            "service web: health check: timeout 3s instead of 2s",
            "service web: health check: rise 2 instead of 1",
            "service web: health check: fall 3 instead of 2",
            "service web: health check: port the server's instead of 81",
        ],
    ),
    (
        "kind = \"http\"",
        "kind = \"http\"\npath = \"/health\"\nhost = \"nas.lan\"\nstatus = 204",
        &[
            "service web: health check: path /health instead of /",
            "service web: health check: host nas.lan instead of the server's",
            "service web: health check: status 204 instead of 200-399",
        ],
        &[
            "service web: health check: path / instead of /health",
            "service web: health check: host the server's instead of nas.lan",
            "service web: health check: status 200-399 instead of 204",
        ],
    ),
    (
        "expect = \"SSH-2.0\"",
        "send = \"hex:00ff\"\nexpect = \"regex:^SSH-[12]\"",
        &[
            "entrypoint ssh: health check: sends hex:00ff instead of nothing",
            "entrypoint ssh: health check: expects a match of ^SSH-[12] instead of \"SSH-2.0\"",
        ],
        &[
            "entrypoint ssh: health check: sends nothing instead of hex:00ff",
            "entrypoint ssh: health check: expects \"SSH-2.0\" instead of a match of ^SSH-[12]",
        ],
    ),
];

#[test]
fn each_change_of_a_service_has_a_line() {
    check(BASE, CASES);
}
