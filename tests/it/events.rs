//! Server-sent events: what they tell, who may read them, and who is cut.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use coracle::admin::ClientLimits;
use coracle::state::{AdminState, Protocol};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::admin::{Admin, PATIENT};
use crate::support::http::{Client, get};
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::{DEADLINE, backend, until};

const REQUEST: &str = "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// One who reads events.
struct Reader(BufReader<TcpStream>);

impl Reader {
    /// Connects, and reads the first events.
    fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(REQUEST.as_bytes()).unwrap();
        let mut reader = Self(BufReader::new(stream));
        assert_eq!(reader.line(), "HTTP/1.1 200 OK");
        let mut head = Vec::new();
        loop {
            match reader.line() {
                line if line.is_empty() => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        assert!(
            head.contains(&"content-type: text/event-stream".to_owned()),
            "{head:?}"
        );
        assert!(
            !head.iter().any(|line| line.starts_with("content-length")),
            "{head:?}"
        );
        let (event, data) = reader.next();
        assert_eq!(
            (event.as_str(), &data["coracle"]),
            ("hello", &env!("CARGO_PKG_VERSION").into())
        );
        assert_eq!(reader.next().0, "connections");
        reader
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the events ended");
        line.trim_end().to_owned()
    }

    /// Reads one event.
    fn next(&mut self) -> (String, Value) {
        let mut event = String::new();
        loop {
            let line = self.line();
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ") {
                assert_eq!(self.line(), "");
                return (event, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// Reads events up to the next one of this name.
    fn next_of(&mut self, name: &str) -> Value {
        loop {
            let (event, data) = self.next();
            if event == name {
                return data;
            }
        }
    }
}

#[test]
fn changes_are_told() {
    let admin = Admin::start(PATIENT);
    let mut reader = Reader::connect(admin.address);
    admin.with(|world| {
        world.servers[1].order(AdminState::Down, Instant::now());
        world.insert(0);
        world.insert(0);
        world.guards.pop();
    });
    let mut told = [reader.next(), reader.next()];
    // One look can come between the two.
    if told[0].0 == "connections" {
        told.reverse();
    }
    let (_, server) = &told[0];
    assert_eq!(
        (&server["name"], &server["up"]),
        (&"nas.local:22".into(), &false.into())
    );
    let listed: Value = serde_json::from_str(&get(admin.address, "/api/v1/servers").2).unwrap();
    for key in ["service", "admin", "why_down", "weight", "open"] {
        assert_eq!(server[key], listed["servers"][1][key], "{key}");
    }
    let (event, totals) = &told[1];
    assert_eq!(event, "connections");
    assert_eq!(
        *totals,
        serde_json::json!({ "open": 1, "opened": 2, "closed": 1 })
    );

    admin.with(|world| {
        let registry = &world.shared.registry;
        let more = registry.entrypoint("more", Protocol::Tcp, Instant::now());
        world.entrypoints.push(more);
        world.shared.config_loads.failed("why");
    });
    assert_eq!(
        reader.next_of("reload"),
        serde_json::json!({ "succeeded": false, "reason": "why", "changes": [] })
    );
    assert_eq!(reader.next_of("entrypoint")["name"], "more");
    admin.with(|world| drop(world.entrypoints.pop()));
    assert_eq!(reader.next_of("entrypoint_gone")["name"], "more");
    admin.with(|world| world.guards.clear());
}

#[test]
fn reloads_and_servers_of_the_running_program_are_told() {
    let (one, two) = (backend::start(), backend::start());
    let config = |server: SocketAddr| {
        format!(
            "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
             [services.s]\nservers = [\"{server}\"]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"off\"\n"
        )
    };
    let coracle = Coracle::start(&config(one));
    let mut reader = Reader::connect(coracle.admin);
    assert!(coracle.reload(&config(two)));
    let reloaded = reader.next_of("reload");
    assert_eq!(reloaded["succeeded"], true);
    assert_eq!(reloaded["reason"], Value::Null);
    let change = reloaded["changes"][0].as_str().unwrap();
    assert!(change.starts_with("service s: "), "{change}");
    assert_eq!(reader.next_of("server")["name"], two.to_string());
    assert_eq!(reader.next_of("server_gone")["name"], one.to_string());
    assert!(!coracle.reload("nonsense"));
    let rejected = reader.next_of("reload");
    assert_eq!(rejected["succeeded"], false);
    let why = rejected["reason"].as_str().unwrap();
    assert!(why.contains(":1:1: "), "{why}");
    assert_eq!(rejected["changes"], serde_json::json!([]));
}

#[test]
fn warnings_are_told_as_the_log_has_them_and_other_lines_are_not() {
    let coracle = Coracle::start(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"127.0.0.1:9\"]\nmax_fails = 0\n\
         [log]\naccess = true\n[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"off\"\n",
    );
    let mut reader = Reader::connect(coracle.admin);
    drop(std::net::TcpStream::connect(coracle.address("e")));
    let line = reader.next_of("log");
    assert_eq!(line["level"], "warn");
    let message = line["message"].as_str().unwrap();
    assert!(message.starts_with("dial: "), "{line}");
    assert_eq!(line["fields"]["server"], "127.0.0.1:9");
    let text = line["text"].as_str().unwrap();
    coracle.logged(text);
    // The access line came after it.
    coracle.logged("msg=closed");
    assert!(!coracle.reload("nonsense"));
    loop {
        let line = reader.next_of("log");
        assert_ne!(line["level"], "info");
        if line["level"] == "error" {
            break;
        }
    }
}

#[test]
fn half_of_the_clients_may_read_events_and_leave_the_rest_to_others() {
    let limits = ClientLimits {
        clients: 4,
        patience: Duration::ZERO,
        ..PATIENT
    };
    let admin = Admin::start(limits);
    let mut readers = [(); 2].map(|()| Reader::connect(admin.address));
    let (status, headers, body) = get(admin.address, "/api/v1/events");
    assert_eq!(status, 503, "{body}");
    assert_eq!(
        headers.value("content-type"),
        Some("application/problem+json")
    );
    // However many others come, the readers stay.
    let idle: Vec<_> = (0..20).map(|_| Client::connect(admin.address)).collect();
    assert_eq!(get(admin.address, "/healthz").0, 200);
    drop(idle);
    admin.with(|world| world.servers[0].order(AdminState::Drain, Instant::now()));
    for reader in &mut readers {
        assert_eq!(reader.next_of("server")["admin"], "drain");
    }
    let now = |metric: &str| scrape(admin.address).sum(metric);
    assert_eq!(now("coracle_admin_event_readers"), 2.0);
    drop(readers);
    until("they have left", || {
        (now("coracle_admin_event_readers") == 0.0).then_some(())
    });
    assert_eq!(now("coracle_admin_event_readers_cut_total"), 0.0);
    Reader::connect(admin.address);
}

#[test]
fn reader_that_does_not_read_is_cut() {
    let admin = Admin::start(ClientLimits {
        answer: Duration::from_secs(1),
        ..PATIENT
    });
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&admin.address.into()).unwrap();
    let mut lazy = TcpStream::from(socket);
    lazy.write_all(REQUEST.as_bytes()).unwrap();
    let mut names = ["a", "b"].into_iter().cycle();
    until("it is cut", || {
        // What changes is more than the kernel buffers.
        let name = names.next().unwrap().repeat(8 << 20);
        admin.with(move |world| world.entrypoints[0].set_service(Some(&name.into())));
        let (_, _, body) = get(admin.address, "/metrics");
        body.contains("\ncoracle_admin_event_readers_cut_total 1\n")
            .then_some(())
    });
    until("it has left", || {
        let (_, _, body) = get(admin.address, "/metrics");
        body.contains("\ncoracle_admin_event_readers 0\n")
            .then_some(())
    });
    Reader::connect(admin.address);
}

#[test]
fn reader_that_comes_back_begins_anew() {
    let admin = Admin::start(PATIENT);
    drop(Reader::connect(admin.address));
    until("it has left", || {
        let (_, _, body) = get(admin.address, "/metrics");
        body.contains("\ncoracle_admin_event_readers 0\n")
            .then_some(())
    });
    admin.with(|world| {
        world.insert(0);
    });
    let mut reader = Reader::connect(admin.address);
    admin.with(|world| {
        world.insert(0);
    });
    let totals = serde_json::json!({ "open": 2, "opened": 2, "closed": 0 });
    assert_eq!(reader.next(), ("connections".to_owned(), totals));
    admin.with(|world| world.guards.clear());
}
