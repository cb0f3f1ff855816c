//! Orders for one server over the control socket, and what `/api/v1/status` and `coracle status` show.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support;
use crate::support::backend::{self, Script, bound_but_not_listening, hold};
use crate::support::http::{get, http};
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::{lasting_address, rng, until};

/// A coracle with a control socket, and an entrypoint `e` for the service `s`.
struct Controlled {
    coracle: Coracle,
    socket: PathBuf,
    admin: SocketAddr,
    listen: SocketAddr,
    _dir: TempDir,
}

impl Controlled {
    fn start(servers: &[SocketAddr], rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let mut rng = rng::from_env();
        let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
        let coracle = Coracle::start(&config(admin, listen, &socket, servers, rest));
        Self {
            coracle,
            socket,
            admin,
            listen,
            _dir: dir,
        }
    }

    fn reload(&self, servers: &[SocketAddr], rest: &str) {
        let config = config(self.admin, self.listen, &self.socket, servers, rest);
        assert!(self.coracle.reload(&config));
    }

    fn order(&self, service: &str, server: &str, state: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.arg("server").arg("--socket").arg(&self.socket);
        told(command.args([service, server, state]).output().unwrap())
    }

    /// Gives an order that is obeyed. Returns the answer.
    fn obeyed(&self, server: SocketAddr, state: &str) -> String {
        let (code, out, err) = self.order("s", &server.to_string(), state);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let start = format!("server {server} of service s: {state}");
        let rest = out.strip_prefix(&start);
        rest.unwrap_or_else(|| panic!("{out}")).trim().to_owned()
    }

    fn status(&self) -> Value {
        let (code, out, err) = self.run_status(&["--json"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        serde_json::from_str(&out).unwrap()
    }

    fn run_status(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.args(["status", "--admin", &self.admin.to_string()]);
        told(command.args(more).output().unwrap())
    }

    fn server(&self, server: SocketAddr) -> Value {
        let status = self.status();
        let servers = status["servers"].as_array().unwrap().iter();
        let name = server.to_string();
        let mut found = servers.filter(|it| it["name"] == *name);
        found.next().cloned().unwrap_or(Value::Null)
    }

    fn metric(&self, name: &str, server: SocketAddr) -> f64 {
        of(&scrape(self.admin), name, server)
    }
}

fn config(
    admin: SocketAddr,
    listen: SocketAddr,
    socket: &std::path::Path,
    servers: &[SocketAddr],
    rest: &str,
) -> String {
    let servers: Vec<_> = servers.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "[entrypoints.e]\nlisten = \"{listen}\"\nservice = \"s\"\n\
         [services.s]\nservers = [{}]\n{rest}\n\
         [admin]\nlisten = \"{admin}\"\nsocket = \"{}\"\n",
        servers.join(", "),
        socket.display(),
    )
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code();
    (code, text(output.stdout), text(output.stderr))
}

fn of(metrics: &Metrics, name: &str, server: SocketAddr) -> f64 {
    metrics.sum_where(name, &format!("server=\"{server}\""))
}

/// Returns true if a new connection gets no server.
fn is_refused(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let _ = stream.write_all(&Script::SendAndClose.request(1));
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            true
        }
    }
}

/// Opens a connection whose server sends back what it gets.
fn echoing(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.write_all(&Script::Echo.request(0)).unwrap();
    still_works(&mut stream);
    stream
}

/// Passes a byte both ways.
fn still_works(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn drained_server_gets_no_new_connections_until_it_is_ready() {
    let servers = [backend::start(), backend::start()];
    let it = Controlled::start(&servers, "balance = \"least_connections\"");
    let mut clients: Vec<_> = (0..4).map(|_| echoing(it.listen)).collect();
    assert_eq!(it.obeyed(servers[0], "drain"), "; 2 connections continue");
    // Repeating it is no error.
    assert_eq!(it.obeyed(servers[0], "drain"), "; 2 connections continue");
    clients.extend((0..4).map(|_| echoing(it.listen)));
    let drained = it.server(servers[0]);
    assert_eq!(drained["open"], 2);
    assert_eq!(drained["admin"], "drain");
    assert_eq!(drained["up"], true);
    assert!(drained["state_seconds"].is_f64(), "{drained}");
    assert_eq!(it.server(servers[1])["open"], 6);
    assert_eq!(it.metric("coracle_server_admin_state", servers[0]), 1.0);
    assert_eq!(it.metric("coracle_server_up", servers[0]), 1.0);
    clients.iter_mut().for_each(still_works);
    assert_eq!(it.obeyed(servers[0], "ready"), "");
    clients.extend((0..4).map(|_| echoing(it.listen)));
    assert_eq!(it.server(servers[0])["open"], 6);
    assert_eq!(it.metric("coracle_server_admin_state", servers[0]), 0.0);
    let line = it.coracle.logged("ordered: drain");
    assert!(line.contains(&format!("server={}", servers[0])), "{line}");
    assert!(line.contains("by=\"control socket\""), "{line}");
}

#[test]
fn server_that_is_down_by_order_is_not_tried() {
    let server = backend::start();
    let it = Controlled::start(&[server], "when_down = \"try\"");
    let mut client = echoing(it.listen);
    assert_eq!(it.obeyed(server, "down"), "; 1 connection continues");
    assert!(is_refused(it.listen));
    assert_eq!(it.metric("coracle_server_up", server), 0.0);
    assert_eq!(it.metric("coracle_server_admin_state", server), 2.0);
    assert_eq!(it.server(server)["why_down"], "ordered by an operator");
    let (_, table, _) = it.run_status(&[]);
    let line = table.lines().last().unwrap();
    assert!(line.ends_with("  down: ordered by an operator"), "{table}");
    let first = table.lines().next().unwrap();
    assert!(
        first.ends_with("open, the kernel agrees, log level info"),
        "{table}"
    );
    it.coracle.logged("server is down: ordered by an operator");
    still_works(&mut client);
    assert_eq!(it.obeyed(server, "ready"), "");
    assert_eq!(it.metric("coracle_server_up", server), 1.0);
    hold(it.listen);
}

#[test]
fn down_closes_the_connections_if_the_configuration_says_so() {
    let server = backend::start();
    let it = Controlled::start(&[server], "on_down = \"close\"");
    let mut clients: Vec<_> = (0..3).map(|_| hold(it.listen)).collect();
    assert_eq!(it.obeyed(server, "down"), "; 3 connections closed");
    for client in &mut clients {
        let end = client.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
    until("they have left", || {
        (it.server(server)["open"] == 0).then_some(())
    });
    assert_eq!(it.obeyed(server, "down"), "; no connection is open");
}

#[test]
fn checks_do_not_bring_up_what_an_operator_has_taken_down() {
    let dead = bound_but_not_listening();
    let server = dead.local_addr().unwrap().as_socket().unwrap();
    let health = "health = { kind = \"tcp\", interval = \"100ms\", fall = 2, rise = 1 }";
    let it = Controlled::start(&[server], health);
    it.coracle
        .logged("server is down: 2 checks in a row failed");
    let why = it.server(server)["why_down"].clone();
    assert!(why.as_str().unwrap().starts_with("2 checks"), "{why}");
    assert_eq!(it.obeyed(server, "down"), "; no connection is open");
    dead.listen(128).unwrap();
    let check = until("a check succeeds", || {
        let check = it.server(server)["last_check"].clone();
        (check["succeeded"] == true).then_some(check)
    });
    let is_number = |key: &str| check[key].is_f64();
    assert!(is_number("seconds") && is_number("age_seconds"), "{check}");
    assert_eq!(it.metric("coracle_server_up", server), 0.0);
    assert_eq!(it.metric("coracle_server_state_changes_total", server), 1.0);
    let is_up = |line: &String| line.contains("server is up");
    assert!(!it.coracle.log().iter().any(is_up));
    assert_eq!(it.obeyed(server, "ready"), "");
    assert_eq!(it.metric("coracle_server_up", server), 1.0);
    it.coracle.logged("server is up: ordered by an operator");
}

#[test]
fn order_survives_a_reload_that_leaves_the_server_in_place() {
    let servers = [backend::start(), backend::start(), backend::start()];
    let it = Controlled::start(&servers[..2], "");
    it.obeyed(servers[0], "drain");
    // Everything else changes.
    it.reload(
        &[servers[0], servers[2]],
        "balance = \"random\"\nmax_fails = 7\non_down = \"close\"\nhealth = { kind = \"tcp\" }\n\
         [services.t]\nservers = [\"127.0.0.1:9\"]\n[log]\nlevel = \"debug\"",
    );
    assert_eq!(it.server(servers[0])["admin"], "drain");
    assert_eq!(it.server(servers[1]), Value::Null);
    let _clients: Vec<_> = (0..8).map(|_| hold(it.listen)).collect();
    assert_eq!(it.server(servers[0])["open"], 0);
    assert_eq!(it.server(servers[2])["open"], 8);
}

#[test]
fn order_is_forgotten_when_the_server_and_its_last_connection_are_gone() {
    let servers = [backend::start(), backend::start()];
    let it = Controlled::start(&servers[..1], "");
    let client = hold(it.listen);
    it.obeyed(servers[0], "drain");
    it.reload(&servers[1..], "");
    // It lives as long as its connection, but takes no orders.
    assert_eq!(it.server(servers[0])["admin"], "drain");
    let (code, _, err) = it.order("s", &servers[0].to_string(), "ready");
    assert_eq!(code, Some(1), "{err}");
    drop(client);
    until("it is gone", || {
        it.server(servers[0]).is_null().then_some(())
    });
    it.reload(&servers, "");
    assert_eq!(it.server(servers[0])["admin"], "ready");
}

#[test]
fn wrong_names_and_states_change_nothing() {
    let server = backend::start();
    let it = Controlled::start(
        &[server],
        "[services.web]\nservers = [{ address = \"127.0.0.1:9\", name = \"big\" }]",
    );
    let refused = |service: &str, server: &str, state: &str| {
        let (code, out, err) = it.order(service, server, state);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        err.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        refused("wbe", "big", "drain"),
        "coracle: unknown service `wbe`; did you mean `web`?"
    );
    assert_eq!(
        refused("another", "big", "drain"),
        "coracle: unknown service `another`; `coracle status` lists the services"
    );
    assert_eq!(
        refused("web", "bag", "down"),
        "coracle: service `web` has no server `bag`; did you mean `big`?"
    );
    assert_eq!(
        refused("web", "127.0.0.1:9", "down"),
        "coracle: service `web` has no server `127.0.0.1:9`; `coracle status` lists its servers"
    );
    assert_eq!(
        refused("web", "big", "off"),
        "coracle: state off: not a state; write drain, ready or down"
    );
    let status = it.status();
    for server in status["servers"].as_array().unwrap() {
        assert_eq!(server["admin"], "ready", "{server}");
    }
    let (code, out, _) = it.order("web", "big", "drain");
    assert_eq!(
        (code, out.as_str()),
        (
            Some(0),
            "server big of service web: drain; no connection is open\n"
        )
    );
}

#[test]
fn orders_over_tcp_are_refused() {
    let server = backend::start();
    let it = Controlled::start(&[server], "");
    let target = format!("/api/v1/server?service=s&server={server}&state=down");
    let post = format!("POST {target} HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    let (status, _, body) = http(it.admin, &post);
    assert_eq!(status, 403);
    let expected = format!(
        "403 Forbidden: this needs the control socket {}, which `coracle server` uses; to order it over TCP, set `token_file` in [admin]\n",
        it.socket.display()
    );
    assert_eq!(body, expected);
    let (status, headers, _) = get(it.admin, &target);
    assert_eq!((status, headers.value("allow")), (405, Some("POST")));
    assert_eq!(it.server(server)["admin"], "ready");
}

#[test]
fn malformed_orders_change_nothing() {
    let server = backend::start();
    let it = Controlled::start(&[server], "");
    let good = format!("service=s&server={server}&state=");
    for query in [
        String::new(),
        format!("{good}off"),
        format!("{good}down&dry-run"),
        format!("server={server}&state=down"),
        "service=s&state=down".to_owned(),
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(&it.socket).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let post = format!("POST /api/v1/server?{query} HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(post.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{query}: {answer}");
    }
    assert_eq!(it.server(server)["admin"], "ready");
}

#[test]
fn status_equals_the_metrics_of_the_same_moment() {
    let servers = [backend::start(), backend::start()];
    let it = Controlled::start(&servers, "");
    let _clients: Vec<_> = (0..5).map(|_| hold(it.listen)).collect();
    it.obeyed(servers[1], "down");
    // Nothing changes from here on.
    let (metrics, status) = (scrape(it.admin), it.status());
    let entrypoint = &status["entrypoints"][0];
    assert_eq!(entrypoint["listening"][0], it.listen.to_string());
    assert_eq!(entrypoint["service"], "s");
    assert_eq!(
        entrypoint["open"].as_f64(),
        Some(metrics.sum("coracle_open_connections"))
    );
    assert_eq!(entrypoint["open"], 5);
    assert_eq!(
        entrypoint["refused"].as_f64(),
        Some(metrics.sum("coracle_connections_refused_total"))
    );
    let service = &status["services"][0];
    assert_eq!(service["balance"], "round_robin");
    assert_eq!(
        service["queued"].as_f64(),
        Some(metrics.sum("coracle_queue_length"))
    );
    assert_eq!(
        service["retries"].as_f64(),
        Some(metrics.sum("coracle_retries_total"))
    );
    let all = status["servers"].as_array().unwrap();
    let names: Vec<_> = all.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.len() == 2, "{names:?}");
    for it in all {
        let server = it["name"].as_str().unwrap().parse().unwrap();
        let metric = |name: &str| Some(of(&metrics, name, server));
        assert_eq!(
            it["open"].as_f64(),
            metric("coracle_service_open_connections")
        );
        assert_eq!(
            it["connect_errors"].as_f64(),
            metric("coracle_connect_errors_total")
        );
        let bytes = |direction: &str| it[format!("{direction}_bytes")].as_f64();
        for direction in ["to_server", "to_client"] {
            let labels = [
                format!("server=\"{server}\""),
                format!("direction=\"{direction}\""),
            ];
            let labels = labels.each_ref().map(String::as_str);
            let metric = metrics.sum_of("coracle_service_bytes_total", &labels);
            assert_eq!(bytes(direction), Some(metric));
        }
        let up = f64::from(u8::from(it["up"].as_bool().unwrap()));
        assert_eq!(Some(up), metric("coracle_server_up"));
        let states = ["ready", "drain", "down"];
        let admin = states.iter().position(|state| it["admin"] == *state);
        assert_eq!(
            admin.map(|n| n as f64),
            metric("coracle_server_admin_state")
        );
    }
}

#[test]
fn status_of_a_thousand_servers_is_whole() {
    const SERVERS: u16 = 1024;
    let mut more = String::from("[services.many]\nservers = [");
    for port in 1..=SERVERS {
        write!(more, "\"127.0.0.1:{port}\", ").unwrap();
    }
    more.push(']');
    let it = Controlled::start(&[backend::start()], &more);
    let status = it.status();
    let of_many = |it: &&Value| it["service"] == "many";
    let servers = status["servers"].as_array().unwrap();
    assert_eq!(servers.iter().filter(of_many).count(), usize::from(SERVERS));
    let (code, table, _) = it.run_status(&[]);
    assert_eq!(code, Some(0));
    assert!(table.lines().count() > usize::from(SERVERS));
    // The loop serves clients besides.
    hold(it.listen);
}
