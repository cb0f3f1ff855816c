//! Tests that each kind of change has a line, and that only equal configurations have none.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::config::Server;

mod seeded;

const BASE: &str = r#"
drain_timeout = "9s"
watch = false
[admin]
listen = "127.0.0.1:2672"
socket = "/run/a.sock"
hosts = ["a.lan", "b.lan"]
[log]
level = "info"
access = false
[metrics]
compat = []
[entrypoints.web]
listen = ["0.0.0.0:8080", "[::1]:8080"]
service = "web"
idle_timeout = "off"
keepalive = "60s"
on_removed = "keep"
reuse_port = false
[entrypoints.ssh]
on_removed = "drain"
listen = "[::]:2222"
to = "nas.lan:22"
connect_timeout = "5s"
[entrypoints.local]
on_removed = "close"
listen = "unix:/run/local"
service = "web"
socket_mode = "0660"
socket_group = "www-data"
[services.web]
servers = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
dial_timeout = "5s"
[services.nas]
servers = ["10.0.0.9:80"]
"#;

/// A piece of `BASE`, its replacement, the changes that result, and the changes back to `BASE`.
pub(in crate::config) type Case = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const CASES: &[Case] = &[
    (
        "idle_timeout = \"off\"",
        "idle_timeout = \"off\"\nbandwidth_per_client = \"2MiB/s\"",
        &["entrypoint web: bandwidth_per_client 2MiB/s each way instead of none"],
        &["entrypoint web: bandwidth_per_client none instead of 2MiB/s each way"],
    ),
    (
        "idle_timeout = \"off\"",
        "idle_timeout = \"off\"\nbandwidth_per_connection = { to_server = \"1MiB/s\", burst = \"64KiB\" }",
        &[
            "entrypoint web: bandwidth_per_connection 1MiB/s with a burst of 64KiB to_server instead of none",
        ],
        &[
            "entrypoint web: bandwidth_per_connection none instead of 1MiB/s with a burst of 64KiB to_server",
        ],
    ),
    (
        "dial_timeout = \"5s\"",
        "dial_timeout = \"5s\"\nbandwidth = { to_client = \"1MiB/s\" }",
        &["service web: bandwidth 1MiB/s to_client instead of none"],
        &["service web: bandwidth none instead of 1MiB/s to_client"],
    ),
    (
        r#""9s""#,
        r#""20s""#,
        &["drain_timeout: 20s instead of 9s"],
        &["drain_timeout: 9s instead of 20s"],
    ),
    (
        "watch = false",
        "watch = true",
        &["watch: on"],
        &["watch: off"],
    ),
    (
        "127.0.0.1:2672",
        "127.0.0.1:2673",
        &["admin: listens on 127.0.0.1:2673 instead of 127.0.0.1:2672"],
        &["admin: listens on 127.0.0.1:2672 instead of 127.0.0.1:2673"],
    ),
    (
        "127.0.0.1:2672",
        "off",
        &["admin: no longer listens on 127.0.0.1:2672"],
        &["admin: now listens on 127.0.0.1:2672"],
    ),
    (
        r#""/run/a.sock""#,
        r#""off""#,
        &["admin: socket off instead of /run/a.sock"],
        &["admin: socket /run/a.sock instead of off"],
    ),
    (
        "[admin]\n",
        "[admin]\ntoken_file = \"/etc/coracle.token\"\n",
        &["admin: token_file /etc/coracle.token instead of none"],
        &["admin: token_file none instead of /etc/coracle.token"],
    ),
    (
        "socket = \"/run/a.sock\"\n",
        "",
        &["admin: socket the default instead of /run/a.sock"],
        &["admin: socket /run/a.sock instead of the default"],
    ),
    (
        r#"["a.lan", "b.lan"]"#,
        r#"["b.lan", "c.lan"]"#,
        &[
            "admin: no longer answers to a.lan",
            "admin: also answers to c.lan",
        ],
        &[
            "admin: no longer answers to c.lan",
            "admin: also answers to a.lan",
        ],
    ),
    (r#"["a.lan", "b.lan"]"#, r#"["b.lan", "a.lan"]"#, &[], &[]),
    (
        r#""info""#,
        r#""debug""#,
        &["log: level debug instead of info"],
        &["log: level info instead of debug"],
    ),
    (
        "access = false",
        "access = true",
        &["log: access log on"],
        &["log: access log off"],
    ),
    (
        "compat = []",
        r#"compat = ["traefik"]"#,
        &["metrics: Traefik's names on"],
        &["metrics: Traefik's names off"],
    ),
    (
        "[log]\n",
        "[limits]\nmax_connections = 500\nmemory = \"32MiB\"\n[log]\n",
        &[
            "limits: max_connections 500 instead of none",
            "limits: memory 32MiB instead of none",
        ],
        &[
            "limits: max_connections none instead of 500",
            "limits: memory none instead of 32MiB",
        ],
    ),
    // What an entrypoint listens on.
    (
        r#"["0.0.0.0:8080", "[::1]:8080"]"#,
        r#"["[::1]:8080", "0.0.0.0:8081"]"#,
        &["entrypoint web: listens on 0.0.0.0:8081 instead of 0.0.0.0:8080"],
        &["entrypoint web: listens on 0.0.0.0:8080 instead of 0.0.0.0:8081"],
    ),
    (
        r#"["0.0.0.0:8080", "[::1]:8080"]"#,
        r#"["0.0.0.0:8080", "[::1]:8080", "[::1]:8443", "unix:/run/web"]"#,
        &[
            "entrypoint web: also listens on [::1]:8443",
            "entrypoint web: also listens on unix:/run/web",
        ],
        &[
            "entrypoint web: no longer listens on [::1]:8443",
            "entrypoint web: no longer listens on unix:/run/web",
        ],
    ),
    (
        r#"["0.0.0.0:8080", "[::1]:8080"]"#,
        r#"["[::1]:8080", "0.0.0.0:8080"]"#,
        &[],
        &[],
    ),
    (
        r#"["0.0.0.0:8080", "[::1]:8080"]"#,
        r#"[":0", "0.0.0.0:8080", ":0", "[::1]:8080"]"#,
        &[
            "entrypoint web: also listens on *:0",
            "entrypoint web: also listens on *:0",
        ],
        &[
            "entrypoint web: no longer listens on *:0",
            "entrypoint web: no longer listens on *:0",
        ],
    ),
    // Another entrypoint takes the IPv4 clients of its port.
    (
        "[services.nas]\n",
        "[entrypoints.four]\nlisten = \"0.0.0.0:2222\"\nservice = \"nas\"\n[services.nas]\n",
        &[
            "entrypoint ssh: listens on [::]:2222 instead of *:2222",
            "entrypoint four added: listens on 0.0.0.0:2222, forwards to service nas",
        ],
        &[
            "entrypoint four removed: its open connections go on",
            "entrypoint ssh: listens on *:2222 instead of [::]:2222",
        ],
    ),
    // How an entrypoint serves.
    (
        "reuse_port = false",
        "reuse_port = true",
        &["entrypoint web: reuse_port on"],
        &["entrypoint web: reuse_port off"],
    ),
    (
        "socket_mode = \"0660\"\nsocket_group = \"www-data\"\n",
        "socket_mode = \"600\"\nsocket_group = \"33\"\n",
        &[
            "entrypoint local: socket_mode 0600 instead of 0660",
            "entrypoint local: socket_group 33 instead of www-data",
        ],
        &[
            "entrypoint local: socket_mode 0660 instead of 0600",
            "entrypoint local: socket_group www-data instead of 33",
        ],
    ),
    (
        "socket_mode = \"0660\"\nsocket_group = \"www-data\"\n",
        "",
        &[
            "entrypoint local: socket_mode the umask's instead of 0660",
            "entrypoint local: socket_group the process's instead of www-data",
        ],
        &[
            "entrypoint local: socket_mode 0660 instead of the umask's",
            "entrypoint local: socket_group www-data instead of the process's",
        ],
    ),
    (
        r#"idle_timeout = "off""#,
        r#"idle_timeout = "90m""#,
        &["entrypoint web: idle_timeout 1h 30m instead of none"],
        &["entrypoint web: idle_timeout none instead of 1h 30m"],
    ),
    (
        r#"idle_timeout = "off""#,
        r#"half_close_timeout = "30s""#,
        &["entrypoint web: half_close_timeout 30s instead of none"],
        &["entrypoint web: half_close_timeout none instead of 30s"],
    ),
    (
        r#""60s""#,
        r#""off""#,
        &["entrypoint web: keepalive none instead of 1m"],
        &["entrypoint web: keepalive 1m instead of none"],
    ),
    (
        r#""keep""#,
        r#""drain""#,
        &["entrypoint web: on_removed drain instead of keep"],
        &["entrypoint web: on_removed keep instead of drain"],
    ),
    (
        r#""keep""#,
        r#""close""#,
        &["entrypoint web: on_removed close instead of keep"],
        &["entrypoint web: on_removed keep instead of close"],
    ),
    (
        "reuse_port = false",
        "max_connections = 5\nat_limit = \"refuse\"\naccept_proxy = true\ntrusted = [\"10.0.0.1\", \"fd00::/8\"]\nprologue_timeout = \"1s\"",
        &[
            "entrypoint web: max_connections 5 instead of none",
            "entrypoint web: at_limit refuse instead of wait",
            "entrypoint web: accept_proxy on",
            "entrypoint web: trusted 10.0.0.1 and fd00::/8 instead of none",
            "entrypoint web: prologue_timeout 1s instead of 5s",
        ],
        &[
            "entrypoint web: max_connections none instead of 5",
            "entrypoint web: at_limit wait instead of refuse",
            "entrypoint web: accept_proxy off",
            "entrypoint web: trusted none instead of 10.0.0.1 and fd00::/8",
            "entrypoint web: prologue_timeout 5s instead of 1s",
        ],
    ),
    // Where an entrypoint forwards to.
    (
        "service = \"web\"\nsocket",
        "service = \"nas\"\nsocket",
        &["entrypoint local: forwards to service nas instead of web"],
        &["entrypoint local: forwards to service web instead of nas"],
    ),
    (
        r#""nas.lan:22""#,
        r#""[fd00::1]:22""#,
        &["entrypoint ssh: forwards to [fd00::1]:22 instead of nas.lan:22"],
        &["entrypoint ssh: forwards to nas.lan:22 instead of [fd00::1]:22"],
    ),
    (
        r#"connect_timeout = "5s""#,
        r#"dial_timeout = "7s""#,
        &["entrypoint ssh: dial_timeout 7s instead of 10s"],
        &["entrypoint ssh: dial_timeout 10s instead of 7s"],
    ),
    (
        r#"connect_timeout = "5s""#,
        r#"connect_timeout = "1500ms""#,
        &["entrypoint ssh: connect_timeout 1s 500ms instead of 5s"],
        &["entrypoint ssh: connect_timeout 5s instead of 1s 500ms"],
    ),
    (
        "to = \"nas.lan:22\"\nconnect_timeout = \"5s\"\n",
        "service = \"nas\"\n",
        &["entrypoint ssh: forwards to service nas instead of nas.lan:22"],
        &["entrypoint ssh: forwards to nas.lan:22 instead of service nas"],
    ),
    // The same server, written another way.
    (
        "to = \"nas.lan:22\"\nconnect_timeout = \"5s\"\n",
        "service = \"ssh\"\n[services.ssh]\nservers = [\"nas.lan:22\"]\n",
        &[],
        &[],
    ),
    (
        "to = \"nas.lan:22\"\nconnect_timeout = \"5s\"\n",
        "service = \"ssh\"\n[services.ssh]\nservers = [\"nas.lan:22\", \"nas.lan:23\"]\n",
        &["service ssh: server nas.lan:23 added"],
        &["service ssh: server nas.lan:23 removed"],
    ),
    // Entrypoints that come and go.
    (
        "[entrypoints.ssh]\non_removed = \"drain\"\nlisten = \"[::]:2222\"\nto = \"nas.lan:22\"\nconnect_timeout = \"5s\"\n",
        "",
        &["entrypoint ssh removed: its open connections end within 9s (drain_timeout)"],
        &["entrypoint ssh added: listens on *:2222, forwards to nas.lan:22"],
    ),
    (
        "[entrypoints.local]\non_removed",
        "[entrypoints.remote]\non_removed",
        &[
            "entrypoint local removed: its open connections are closed",
            "entrypoint remote added: listens on unix:/run/local, forwards to service web",
        ],
        &[
            "entrypoint remote removed: its open connections are closed",
            "entrypoint local added: listens on unix:/run/local, forwards to service web",
        ],
    ),
    (
        "[entrypoints.web]",
        "[entrypoints.\"the web\"]",
        &[
            "entrypoint web removed: its open connections go on",
            "entrypoint the web added: listens on 0.0.0.0:8080 and [::1]:8080, forwards to service web",
        ],
        &[
            "entrypoint the web removed: its open connections go on",
            "entrypoint web added: listens on 0.0.0.0:8080 and [::1]:8080, forwards to service web",
        ],
    ),
    // Services.
    (
        r#"["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]"#,
        r#"["10.0.0.3:80", "unix:/run/app", "10.0.0.1:80"]"#,
        &[
            "service web: server 10.0.0.2:80 removed",
            "service web: server unix:/run/app added",
        ],
        &[
            "service web: server unix:/run/app removed",
            "service web: server 10.0.0.2:80 added",
        ],
    ),
    (
        r#"["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]"#,
        r#"["10.0.0.2:80", "10.0.0.1:80", "10.0.0.3:80"]"#,
        &["service web: servers in another order"],
        &["service web: servers in another order"],
    ),
    (
        r#"dial_timeout = "5s""#,
        r#"connect_timeout = "2s""#,
        &[
            "service web: connect_timeout 2s instead of 5s",
            "service web: dial_timeout 10s instead of 5s",
        ],
        &[
            "service web: connect_timeout 5s instead of 2s",
            "service web: dial_timeout 5s instead of 10s",
        ],
    ),
    (
        "[services.nas]\nservers = [\"10.0.0.9:80\"]\n",
        "[services.more]\nservers = [\"a:1\", \"a:2\", \"a:3\"]\n",
        &[
            "service nas removed",
            "service more added: servers a:1, a:2 and a:3",
        ],
        &[
            "service more removed",
            "service nas added: server 10.0.0.9:80",
        ],
    ),
    // A warning alone is not a change.
    ("[services.nas]", "\n# A comment.\n[services.nas]", &[], &[]),
];

#[test]
fn each_change_has_a_line() {
    check(BASE, CASES);
}

/// Compares `base` with what each case makes of it, both ways.
pub(in crate::config) fn check(base: &str, cases: &[Case]) {
    let old = Config::parse("old.toml", base, &[]).unwrap();
    for (from, to, forth, back) in cases {
        assert_eq!(base.matches(from).count(), 1, "{from}");
        let text = base.replace(from, to);
        let new = Config::parse("new.toml", &text, &[]);
        let new = new.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(Changes::between(&old, &new).lines(), *forth, "{from}");
        assert_eq!(Changes::between(&new, &old).lines(), *back, "{to}");
    }
}

#[test]
fn display_has_one_change_per_line() {
    let old = Config::parse("old.toml", BASE, &[]).unwrap();
    let new = Config {
        drain_timeout: Duration::ZERO,
        watch: true,
        ..old.clone()
    };
    assert_eq!(
        Changes::between(&old, &new).to_string(),
        "drain_timeout: 0s instead of 9s\nwatch: on"
    );
    let same = Changes::between(&old, &old);
    assert!(same.is_empty());
    assert_eq!(same.to_string(), "");
}

#[test]
fn server_listed_twice_counts_twice() {
    let old = Config::parse("old.toml", BASE, &[]).unwrap();
    let mut new = old.clone();
    let again = new.services[0].servers[1].clone();
    new.services[0].servers.push(again);
    assert_eq!(
        Changes::between(&old, &new).lines(),
        ["service web: server 10.0.0.2:80 added"]
    );
    assert_eq!(
        Changes::between(&new, &old).lines(),
        ["service web: server 10.0.0.2:80 removed"]
    );
}

#[test]
fn own_service_that_becomes_shared_is_reported_as_a_service() {
    let old = Config::parse("old.toml", BASE, &[]).unwrap();
    let mut new = old.clone();
    let ssh = new.entrypoints[1].service;
    new.entrypoints[2].service = ssh;
    new.services[ssh.unwrap()].servers = vec![Server::at("nas.lan:23".parse().unwrap())];
    assert_eq!(
        Changes::between(&old, &new).lines(),
        [
            "entrypoint local: forwards to service ssh instead of web",
            "service ssh: server nas.lan:22 removed",
            "service ssh: server nas.lan:23 added",
        ]
    );
}

#[test]
fn long_list_is_cut() {
    let numbers: Vec<u32> = (1..=1024).collect();
    let list = |n: usize| words::list(&numbers[..n], u32::to_string);
    assert_eq!(list(1), "1");
    assert_eq!(list(8), "1, 2, 3, 4, 5, 6, 7 and 8");
    assert_eq!(list(9), "1, 2, 3, 4, 5, 6, 7, 8 and 1 more");
    assert_eq!(list(1024), "1, 2, 3, 4, 5, 6, 7, 8 and 1016 more");
}
