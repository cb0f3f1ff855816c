//! Every connection has exactly one access line, whatever ends it.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;

use coracle::config::Config;
use coracle::proxy::Proxy;
use coracle::state::Hook;
use log::kv::Key;
use log::{LevelFilter, Log, Metadata, Record};
use rustix::process::Signal;
use smol::LocalExecutor;
use socket2::{Domain, Socket, Type};
use support::backend::{self, Script, reset_on_close};
use support::metrics::scrape;
use support::process::Coracle;
use support::{lasting_address, namespace, rng, until};

/// Lines by entrypoint and reason.
type Lines = BTreeMap<(String, String), u64>;

static LINES: Mutex<Lines> = Mutex::new(BTreeMap::new());

/// Counts access lines.
struct Counting;

impl Log for Counting {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() == "access" {
            let field = |key| {
                let value = record.key_values().get(Key::from_str(key));
                value.unwrap().to_string()
            };
            let key = (field("entrypoint"), field("reason"));
            *LINES.lock().unwrap().entry(key).or_default() += 1;
        }
    }

    fn flush(&self) {}
}

/// Refuses every connection.
fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = backend::bound_but_not_listening();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn visit(address: SocketAddr, script: Script) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let _ = stream.write_all(&script.request(10));
    stream
}

#[test]
fn connections_have_one_access_line_whichever_reason_they_end_for() {
    log::set_logger(&Counting).unwrap();
    log::set_max_level(LevelFilter::Info);
    let to = backend::start();
    let (_held, refusing) = refusing();
    let listen = "listen = \"127.0.0.1:0\"";
    let text = format!(
        "drain_timeout = \"0s\"\n[log]\naccess = true\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [entrypoints.plain]\n{listen}\nto = \"{to}\"\n\
         [entrypoints.refused]\n{listen}\nto = \"{refusing}\"\n\
         [entrypoints.idle]\n{listen}\nto = \"{to}\"\nidle_timeout = \"100ms\"\n\
         [entrypoints.half]\n{listen}\nto = \"{to}\"\nhalf_close_timeout = \"100ms\"\n\
         [entrypoints.panic]\n{listen}\nto = \"{to}\"\n\
         [entrypoints.dropped]\n{listen}\nto = \"{to}\"\n"
    );
    let (tell, told) = channel();
    let (stop, stops) = smol::channel::bounded(2);
    let running = thread::spawn(move || {
        let config = Config::parse("test.toml", &text, &[]).unwrap();
        let hook = Hook(Rc::new(|conn| match conn.entrypoint.name() {
            "panic" => panic!("deliberate panic"),
            // Another task in its place: its own is dropped.
            "dropped" => conn.owned_by(LocalExecutor::new().spawn(async {})),
            _ => {}
        }));
        let proxy = Proxy::bind(&config).unwrap().hooked(hook);
        let names = ["plain", "refused", "idle", "half", "panic", "dropped"];
        let addresses = names.map(|name| proxy.addresses(name)[0]);
        // They outlive the proxy here.
        let entrypoints = proxy.shared().registry.entrypoints();
        tell.send((addresses, proxy.admin_address().unwrap()))
            .unwrap();
        proxy.run(Box::pin(stops)).unwrap();
        // No scrape includes what the drain has cut.
        let closed = entrypoints.iter().map(|entrypoint| {
            let opened = entrypoint.counters.opened.value();
            (entrypoint.name().to_owned(), opened)
        });
        closed.collect::<BTreeMap<_, _>>()
    });
    let ([plain, refused, idle, half, panic, dropped], admin) = told.recv().unwrap();

    const EACH: usize = 3;
    let mut half_closed = Vec::new();
    for _ in 0..EACH {
        // done
        let _ = visit(plain, Script::SendAndClose).read_to_end(&mut Vec::new());
        // server_reset
        let _ = visit(plain, Script::Reset).read_to_end(&mut Vec::new());
        // client_reset
        let mut stream = visit(plain, Script::Hold);
        stream.read_exact(&mut [0]).unwrap();
        reset_on_close(&stream);
        drop(stream);
        for address in [refused, idle, panic, dropped] {
            let _ = visit(address, Script::Hold).read_to_end(&mut Vec::new());
        }
        // The server has finished, and the client does not.
        half_closed.push(visit(half, Script::HoldFinished));
    }
    until("all have ended", || {
        (scrape(admin).sum("coracle_open_connections") == 0.0).then_some(())
    });
    let metrics = scrape(admin);
    let reasons = [
        ("plain", "done"),
        ("plain", "server_reset"),
        ("plain", "client_reset"),
        ("refused", "connect_failed"),
        ("idle", "idle_timeout"),
        ("half", "half_close_timeout"),
        ("panic", "panic"),
        ("dropped", "dropped"),
    ];
    let lines = LINES.lock().unwrap().clone();
    for (entrypoint, reason) in reasons {
        let labels = [
            format!("entrypoint=\"{entrypoint}\""),
            format!("reason=\"{reason}\""),
        ];
        let labels = labels.each_ref().map(String::as_str);
        let closed = metrics.sum_of("coracle_connections_closed_total", &labels);
        assert_eq!(closed, EACH as f64, "{labels:?}");
        let key = (entrypoint.to_owned(), reason.to_owned());
        let written = lines.get(&key);
        assert_eq!(written, Some(&(EACH as u64)), "{labels:?}: {lines:?}");
    }

    // And the connections that the drain cuts.
    let mut held: Vec<_> = (0..EACH).map(|_| visit(plain, Script::Hold)).collect();
    for stream in &mut held {
        stream.read_exact(&mut [0]).unwrap();
    }
    stop.send_blocking("test").unwrap();
    let opened = running.join().unwrap();
    let lines = LINES.lock().unwrap().clone();
    let drained = ("plain".to_owned(), "drain".to_owned());
    assert_eq!(lines.get(&drained), Some(&(EACH as u64)), "{lines:?}");
    for (name, opened) in opened {
        let of_it = lines
            .iter()
            .filter(|((entrypoint, _), _)| *entrypoint == name);
        let lines: u64 = of_it.map(|(_, n)| n).sum();
        assert_eq!(lines, opened, "{name}");
    }
}

/// How many access lines give this reason.
fn lines_with(coracle: &Coracle, reason: &str) -> usize {
    let reason = format!("reason={reason}");
    let log = coracle.log();
    let of_it = |line: &&String| line.contains("msg=closed") && line.contains(&reason);
    log.iter().filter(of_it).count()
}

#[test]
fn connections_of_a_removed_entrypoint_have_one_access_line() {
    const HELD: usize = 3;
    let to = backend::start();
    let mut rng = rng::from_env();
    let admin = lasting_address(&mut rng);
    let entrypoint =
        |name| format!("[entrypoints.{name}]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n");
    let rest = format!(
        "[log]\naccess = true\n[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n{}",
        entrypoint("stays")
    );
    let gone = format!("{}on_removed = \"close\"\n", entrypoint("gone"));
    let coracle = Coracle::start(&format!("{rest}{gone}"));
    let held: Vec<_> = (0..HELD)
        .map(|_| backend::hold(coracle.address("gone")))
        .collect();
    assert!(coracle.reload(&rest));
    until("all have their lines", || {
        (lines_with(&coracle, "removed") == HELD).then_some(())
    });
    drop(held);
    assert_eq!(lines_with(&coracle, ""), HELD);
}

#[test]
fn connections_that_lose_a_peer_have_one_access_line() {
    // The kernel gives up after the first retransmissions.
    let setup = "sysctl -qw net.ipv4.tcp_retries2=1";
    if !namespace::enter("connections_that_lose_a_peer_have_one_access_line", setup) {
        return;
    }
    const CLIENT: &str = "127.0.0.8";
    const SERVER: &str = "127.0.0.9";
    let server = TcpListener::bind((SERVER, 0)).unwrap();
    let coracle = Coracle::start(&format!(
        "[log]\naccess = true\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n",
        server.local_addr().unwrap()
    ));
    for (lost, reason) in [(CLIENT, "client_lost"), (SERVER, "server_lost")] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let own: SocketAddr = format!("{CLIENT}:0").parse().unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&coracle.address("e").into()).unwrap();
        let mut client = TcpStream::from(socket);
        client.write_all(b"x").unwrap();
        let (mut served, _) = server.accept().unwrap();
        served.set_read_timeout(Some(support::DEADLINE)).unwrap();
        served.read_exact(&mut [0]).unwrap();
        let route = |verb| {
            let route = ["route", verb, "blackhole", lost, "table", "local"];
            let done = Command::new("ip").args(route).status().unwrap();
            assert!(done.success(), "{route:?}");
        };
        route("add");
        // Only who sends notices.
        match lost {
            CLIENT => served.write_all(b"x").unwrap(),
            _ => client.write_all(b"x").unwrap(),
        }
        until(&format!("its line says {reason}"), || {
            (lines_with(&coracle, reason) == 1).then_some(())
        });
        route("del");
    }
    assert_eq!(lines_with(&coracle, ""), 2);
}

#[test]
fn access_lines_of_drained_connections_are_written_before_exit() {
    const HELD: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut coracle = Coracle::start(&format!(
        "drain_timeout = \"0s\"\n[log]\naccess = true\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let connect = |_| TcpStream::connect(coracle.address("e")).unwrap();
    let _held: Vec<_> = (0..HELD).map(connect).collect();
    until("all are open", || {
        (scrape(coracle.admin).sum("coracle_open_connections") == HELD as f64).then_some(())
    });
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
    coracle.logged("msg=drained");
    assert_eq!(lines_with(&coracle, "drain"), HELD);
}
