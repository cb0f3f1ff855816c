//! `coracle kill`: which connections it ends, in whatever state they are, and what the peers, the
//! metrics and the log see of it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::control::{ask, post};
use crate::support::backend::{self, Script, Silent, hold};
use crate::support::http::{get, http};
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::{DEADLINE, until};

/// A coracle with a control socket and access lines.
struct Killable {
    coracle: Coracle,
    dir: TempDir,
}

impl Killable {
    fn start(entrypoints: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}/control.sock\"\n[log]\naccess = true\n",
            dir.path().display()
        );
        let coracle = Coracle::start(&format!("{admin}{entrypoints}"));
        Self { coracle, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Runs `coracle kill`. Returns its exit code and what it prints on stdout and stderr.
    fn kill(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.arg("kill").arg("--socket").arg(self.socket());
        let output = command.args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code();
        (code, text(output.stdout), text(output.stderr))
    }

    /// Ends `n` connections.
    fn killed(&self, arguments: &[&str], n: usize) {
        let plural = if n == 1 { "" } else { "s" };
        let told = format!("{n} connection{plural} ended\n");
        assert_eq!(
            self.kill(arguments),
            (Some(0), told, String::new()),
            "{arguments:?}"
        );
    }

    fn scrape(&self) -> Metrics {
        scrape(self.coracle.admin)
    }

    fn open(&self) -> f64 {
        self.scrape().sum("coracle_open_connections")
    }

    fn closed(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        let name = "coracle_connections_closed_total";
        self.scrape().sum_where(name, &label)
    }

    /// The open connections as `coracle list` shows them: the ID and the rest of each.
    fn list(&self) -> BTreeMap<String, Value> {
        let mut command = Command::new(binary());
        let admin = self.coracle.admin.to_string();
        let output = command.args(["list", "--json", "--admin", &admin]).output();
        let json: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let connections = json["connections"].as_array().unwrap().iter();
        connections
            .map(|it| (it["id"].as_str().unwrap().to_owned(), it.clone()))
            .collect()
    }

    /// The ID of a client's connection.
    fn id_of(&self, client: &TcpStream) -> String {
        let address = client.local_addr().unwrap().to_string();
        let list = self.list();
        let mut found = list.iter().filter(|(_, it)| it["peer"] == *address);
        found.next().expect("it is listed").0.clone()
    }
}

fn entrypoint(name: &str, listen: &str, to: SocketAddr) -> String {
    format!("[entrypoints.{name}]\nlisten = \"{listen}\"\nto = \"{to}\"\n")
}

fn expect_reset(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Sends a byte through an echo and reads it back.
fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"!").unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn echo(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&Script::Echo.request(0)).unwrap();
    echoes(&mut stream);
    stream
}

#[test]
fn killed_connection_is_reset_on_both_sides_counted_and_logged() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let it = Killable::start(&entrypoint("e", "127.0.0.1:0", to));
    let accept = || {
        let client = TcpStream::connect(it.coracle.address("e")).unwrap();
        (client, server.accept().unwrap().0)
    };
    let (mut client, mut at_server) = accept();
    let (mut stays, mut stays_at_server) = accept();
    client.write_all(b"ab").unwrap();
    at_server.read_exact(&mut [0; 2]).unwrap();
    let id = it.id_of(&client);
    it.killed(&[&id], 1);
    // The gauge is right as soon as the command returns.
    assert_eq!((it.open(), it.closed("killed")), (1.0, 1.0));
    expect_reset(&mut client);
    expect_reset(&mut at_server);
    let line = it.coracle.logged("reason=killed");
    let peer = client.local_addr().unwrap();
    assert!(line.contains(&format!("peer={peer} ")), "{line}");
    assert!(line.contains("to_server_bytes=2 "), "{line}");
    let log = it.coracle.logged("ended on command: 1 connection");
    assert!(log.contains(&format!("which={id}")), "{log}");
    assert!(log.contains("by=\"control socket\""), "{log}");
    // The other one continues, and the same ID ends nothing else.
    let (code, out, err) = it.kill(&[&id]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let expected =
        format!("coracle: no open connection has the ID {id}; `coracle list` shows the IDs\n");
    assert_eq!(err, expected);
    stays.write_all(b"c").unwrap();
    stays_at_server.read_exact(&mut [0]).unwrap();
    assert_eq!((it.open(), it.closed("killed")), (1.0, 1.0));
}

#[test]
fn filters_combine() {
    let (big, other) = (backend::start(), backend::start());
    let config = [
        entrypoint("dual", "*:0", other),
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nservice = \"web\"\n".to_owned(),
        format!(
            "[[services.web.servers]]\naddress = \"{big}\"\nname = \"big\"\n\
             [[services.web.servers]]\naddress = \"{other}\"\n"
        ),
    ];
    let it = Killable::start(&config.concat());
    let dual = it.coracle.address("dual").port();
    let web = it.coracle.address("web");
    let mapped: SocketAddr = ([127, 0, 0, 1], dual).into();
    let v6: SocketAddr = format!("[::1]:{dual}").parse().unwrap();
    let mut clients = Vec::new();
    let mut server_of = BTreeMap::new();
    for (name, address) in [("mapped", mapped), ("v6", v6), ("web", web), ("web", web)] {
        let client = hold(address);
        let list = it.list();
        let connection = &list[&it.id_of(&client)];
        let server = connection["server"].as_str().unwrap().to_owned();
        server_of.insert(clients.len(), server);
        clients.push((name, client));
    }
    let on_big = server_of.values().filter(|it| *it == "big").count();
    assert_eq!(on_big, 1, "{server_of:?}");
    let other = other.to_string();
    // No two of these have a connection in common with the filters.
    for none in [
        &["--peer", "10.0.0.0/8"][..],
        &["--peer", "::/0", "--entrypoint", "web"],
        &["--service", "web", "--entrypoint", "dual"],
        &["--entrypoint", "dual", "--server", "big"],
    ] {
        it.killed(none, 0);
    }
    assert_eq!(it.open(), 4.0);
    it.killed(&["--peer", "::1"], 1);
    it.killed(
        &[
            "--peer",
            "127.0.0.0/8",
            "--server",
            &other,
            "--service",
            "web",
        ],
        1,
    );
    it.killed(&["--server", "big"], 1);
    // The client of a dual-stack listener counts as the IPv4 client that it is.
    it.killed(&["--peer", "127.0.0.1", "--entrypoint", "dual"], 1);
    for (_, client) in &mut clients {
        expect_reset(client);
    }
    assert_eq!((it.open(), it.closed("killed")), (0.0, 4.0));
}

#[test]
fn unix_clients_match_no_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.sock");
    let listen = format!("unix:{}", path.display());
    let it = Killable::start(&entrypoint("e", &listen, backend::start()));
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    it.killed(&["--peer", "0.0.0.0/0"], 0);
    it.killed(&["--peer", "::/0"], 0);
    it.killed(&["--entrypoint", "e"], 1);
    assert_eq!(it.open(), 0.0);
}

#[test]
fn connections_that_wait_or_dial_or_are_half_closed_are_killed() {
    let (silent, to) = (Silent::start(), backend::start());
    let config = [
        entrypoint("dials", "127.0.0.1:0", silent.address),
        entrypoint("half", "127.0.0.1:0", to),
        "[entrypoints.queues]\nlisten = \"127.0.0.1:0\"\nservice = \"one\"\n".to_owned(),
        format!("[[services.one.servers]]\naddress = \"{to}\"\nmax_connections = 1\n"),
    ];
    let it = Killable::start(&config.concat());
    let connect = |name| TcpStream::connect(it.coracle.address(name)).unwrap();
    let first = hold(it.coracle.address("queues"));
    let (mut queued, mut dialling) = (connect("queues"), connect("dials"));
    let mut half = connect("half");
    // The server answers an hour later.
    half.write_all(&Script::AnswerLate.request(3_600_000))
        .unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    until("each is in its state", || {
        let list = it.list();
        let states = list.values().map(|it| it["state"].as_str().unwrap());
        let mut states: Vec<_> = states.collect();
        states.sort_unstable();
        (states == ["dialling", "half-closed", "queued", "relaying"]).then_some(())
    });
    it.killed(&["--entrypoint", "dials"], 1);
    expect_reset(&mut dialling);
    it.killed(&["--entrypoint", "half"], 1);
    expect_reset(&mut half);
    let id = it.id_of(&queued);
    it.killed(&[&id], 1);
    expect_reset(&mut queued);
    // It never had a place: the next one gets it.
    drop(first);
    let next = hold(it.coracle.address("queues"));
    assert_eq!(it.closed("killed"), 3.0);
    it.killed(&["--service", "one"], 1);
    drop(next);
    let metrics = it.scrape();
    assert_eq!(metrics.sum("coracle_queue_length"), 0.0);
    assert_eq!(metrics.sum("coracle_open_connections"), 0.0);
}

#[test]
fn many_at_once_are_each_counted_once_while_another_connection_continues() {
    const CONNECTIONS: usize = 200;
    let to = backend::start();
    let config = [
        entrypoint("many", "127.0.0.1:0", to),
        entrypoint("echo", "127.0.0.1:0", to),
    ];
    let it = Killable::start(&config.concat());
    let mut many: Vec<_> = (0..CONNECTIONS)
        .map(|_| hold(it.coracle.address("many")))
        .collect();
    let mut echoing = echo(it.coracle.address("echo"));
    let told = thread::scope(|scope| {
        // Two at a time, which together end each connection once.
        let killing = [(); 2].map(|()| scope.spawn(|| it.kill(&["--entrypoint", "many"])));
        while !killing.iter().all(|it| it.is_finished()) {
            echoes(&mut echoing);
        }
        killing.map(|it| it.join().unwrap())
    });
    let ended = told.map(|(code, out, err)| {
        assert_eq!((code, err.as_str()), (Some(0), ""));
        out.split(' ').next().unwrap().parse::<usize>().unwrap()
    });
    assert_eq!(ended.iter().sum::<usize>(), CONNECTIONS, "{ended:?}");
    assert_eq!(it.closed("killed"), CONNECTIONS as f64);
    assert_eq!(it.open(), 1.0);
    many.iter_mut().for_each(expect_reset);
    echoes(&mut echoing);
}

#[test]
fn dry_run_lists_and_ends_nothing() {
    let to = backend::start();
    let it = Killable::start(&entrypoint("e", "127.0.0.1:0", to));
    let mut clients = [(); 2].map(|()| echo(it.coracle.address("e")));
    let lines = clients.each_ref().map(|client| {
        let (id, peer) = (it.id_of(client), client.local_addr().unwrap());
        format!("{id} from {peer} at e, connected to {to}\n")
    });
    let told = format!("{}2 connections would be ended\n", lines.concat());
    let dry = it.kill(&["--dry-run", "--entrypoint", "e"]);
    assert_eq!(dry, (Some(0), told, String::new()));
    let one = it.id_of(&clients[1]);
    let told = format!("{}1 connection would be ended\n", lines[1]);
    assert_eq!(
        it.kill(&["--dry-run", &one]),
        (Some(0), told, String::new())
    );
    clients.iter_mut().for_each(echoes);
    assert_eq!((it.open(), it.closed("killed")), (2.0, 0.0));
    let log = it.coracle.log();
    assert!(
        !log.iter().any(|line| line.contains("control socket:")),
        "{log:?}"
    );
}

#[test]
fn mistakes_end_nothing_and_say_what_to_do() {
    let it = Killable::start(&entrypoint("web", "127.0.0.1:0", backend::start()));
    let mut client = echo(it.coracle.address("web"));
    for (arguments, why) in [
        (
            &[][..],
            "which connections? Give an ID, as `coracle list` shows it",
        ),
        (
            &["1", "--entrypoint", "web"],
            "leave out the ID, or the other options",
        ),
        (
            &["x"],
            "not an ID; write a number, as `coracle list` shows it",
        ),
        (&["0"], "not an ID"),
        (
            &["99999"],
            "no open connection has the ID 99999; `coracle list` shows the IDs",
        ),
        (
            &["--peer", "10.0.0.1/8"],
            "--peer 10.0.0.1/8: the address has bits set after the first 8; write 10.0.0.0/8",
        ),
        (
            &["--peer", "localhost"],
            "--peer localhost: not a network; write an IP address",
        ),
        (
            &["--entrypoint", "wbe"],
            "no entrypoint is called `wbe`; did you mean `web`?",
        ),
        (
            &["--service", "other"],
            "no service is called `other`; `coracle status` lists them",
        ),
        (
            &["--server", "nas:1"],
            "no server is called `nas:1`; `coracle status` lists them",
        ),
        (&["--entrypoint", ""], "no entrypoint is called ``"),
    ] {
        let (code, out, err) = it.kill(arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(
            err.starts_with("coracle: ") && err.contains(why),
            "{arguments:?}: {err}"
        );
    }
    let order = |query: &str| ask(&it.socket(), post(&format!("/api/v1/kill{query}"), ""));
    for query in [
        "",
        "?dry-run",
        "?id=1&entrypoint=web",
        "?entrypoint=web&entrypoint=web",
        "?entrypoint=web&dryrun",
        "?entrypoint=web&dry-run=no",
        "?id=-1",
        "?peer=10.0.0.0/33",
    ] {
        assert_eq!(order(query).0, 400, "{query}");
    }
    assert_eq!(order("?id=99999").0, 422);
    let admin = it.coracle.admin;
    let (status, _, body) = http(admin, post("/api/v1/kill?entrypoint=web", ""));
    assert_eq!(status, 403);
    assert!(body.contains("which `coracle kill` uses"), "{body}");
    assert_eq!(get(admin, "/api/v1/kill?entrypoint=web").0, 405);
    echoes(&mut client);
    assert_eq!((it.open(), it.closed("killed")), (1.0, 0.0));
}

#[test]
fn draining_coracle_still_kills_and_answers_before_it_ends() {
    let mut it = Killable::start(&entrypoint("e", "127.0.0.1:0", backend::start()));
    let mut clients = [(); 2].map(|()| hold(it.coracle.address("e")));
    it.coracle.signal(rustix::process::Signal::TERM);
    it.coracle.logged("draining");
    // The last one ends the drain.
    it.killed(&["--peer", "127.0.0.1"], 2);
    clients.iter_mut().for_each(expect_reset);
    assert_eq!(it.coracle.wait().code(), Some(0));
}
