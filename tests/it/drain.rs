//! Shutdown: SIGTERM, SIGINT and SIGQUIT drain, a second signal ends immediately, orders over the
//! control socket do the same, and the log reports each.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use coracle::config::Config;
use coracle::proxy::{Drained, Proxy};
use rustix::process::Signal;

use crate::control::{ask, post};
use crate::support;
use crate::support::backend::{self, Script, hold};
use crate::support::process::Coracle;
use crate::support::until;

fn start(drain_timeout: &str) -> Coracle {
    let to = backend::start();
    Coracle::start(&format!(
        "drain_timeout = \"{drain_timeout}\"\n\
         [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ))
}

/// A coracle with a control socket and a `drain_timeout` that never passes.
fn controlled(dir: &Path) -> (Coracle, PathBuf) {
    let (to, socket) = (backend::start(), dir.join("control.sock"));
    let coracle = Coracle::start(&format!(
        "drain_timeout = \"1h\"\n[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\n\
         [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n",
        socket.display()
    ));
    (coracle, socket)
}

fn expect_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionReset,
        "a cut looks like EOF"
    );
}

fn status_of(coracle: &Coracle, path: &str) -> String {
    let mut stream = TcpStream::connect(coracle.admin).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn drained_connections_end_by_themselves_and_exit_code_is_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut coracle = start("1h");
        assert_eq!(status_of(&coracle, "/readyz"), "200");
        let held = hold(coracle.address("e"));
        coracle.signal(signal);
        coracle.logged("draining");
        until("new connections are refused", || {
            TcpStream::connect(coracle.address("e")).err()
        });
        assert_eq!(status_of(&coracle, "/readyz"), "503");
        assert_eq!(status_of(&coracle, "/healthz"), "200");
        // Open connections continue.
        let mut sending = held.try_clone().unwrap();
        sending.write_all(b"still here").unwrap();
        drop((held, sending));
        assert_eq!(coracle.wait().code(), Some(0));
        coracle.logged("msg=drained ended=1 cut=0");
    }
}

#[test]
fn connections_left_after_drain_timeout_are_cut() {
    let mut coracle = start("200ms");
    let mut held = [hold(coracle.address("e")), hold(coracle.address("e"))];
    coracle.signal(Signal::TERM);
    held.iter_mut().for_each(expect_reset);
    assert_eq!(coracle.wait().code(), Some(0));
    coracle.logged("msg=drained ended=0 cut=2");
}

#[test]
fn second_signal_ends_immediately() {
    let mut coracle = start("1h");
    let mut held = hold(coracle.address("e"));
    coracle.signal(Signal::TERM);
    coracle.logged("draining");
    coracle.signal(Signal::TERM);
    let error = held.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(coracle.wait().code(), Some(0));
    coracle.logged("msg=drained ended=0 cut=1");
}

#[test]
fn stop_stream_that_ends_after_the_first_request_still_drains() {
    let to = backend::start();
    let text = format!(
        "drain_timeout = \"1h\"\n[admin]\nlisten = \"off\"\n\
         [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    );
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stops) = smol::channel::bounded(1);
    let running = std::thread::spawn(move || {
        let config = Config::parse("test.toml", &text, &[]).unwrap();
        let proxy = Proxy::bind(&config).unwrap();
        tell.send(proxy.addresses("e")[0]).unwrap();
        proxy.run(Box::pin(stops)).unwrap()
    });
    let address = told.recv().unwrap();
    let mut held = TcpStream::connect(address).unwrap();
    held.set_read_timeout(Some(support::DEADLINE)).unwrap();
    held.write_all(&Script::Hold.request(0)).unwrap();
    held.read_exact(&mut [0]).unwrap();
    stop.send_blocking("once").unwrap();
    // Dropping the only sender ends the stream.
    drop(stop);
    // Until the drain begins, each look may be a connection that it counts.
    let mut looks = 0;
    until("new connections are refused", || {
        let refused = TcpStream::connect(address).err();
        looks += usize::from(refused.is_none());
        refused
    });
    held.shutdown(std::net::Shutdown::Write).unwrap();
    let end = held.read(&mut [0]).expect("EOF, not a reset");
    assert_eq!(end, 0);
    let Drained { ended, cut } = running.join().unwrap();
    assert!((1..=1 + looks).contains(&ended), "{ended} of {looks}");
    assert_eq!(cut, 0);
}

#[test]
fn ordered_drain_lets_connections_end_and_takes_one_signal_without_cutting_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut coracle, socket) = controlled(dir.path());
    let order = |path: &str| ask(&socket, post(path, ""));
    let held = hold(coracle.address("e"));
    let told = "draining: 1 connection may continue for 1h\n";
    assert_eq!(order("/api/v1/drain"), (200, told.to_owned()));
    let line = coracle.logged("draining; a second signal");
    assert!(line.contains("by=\"control socket\" open=1"), "{line}");
    let refused = TcpStream::connect(coracle.address("e")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(status_of(&coracle, "/readyz"), "503");
    let told = "draining already: 1 connection left\n";
    assert_eq!(order("/api/v1/drain"), (200, told.to_owned()));
    let (status, why) = order("/api/v1/reload");
    assert_eq!(status, 422);
    assert!(why.contains("the proxy is draining"), "{why}");
    // A service manager that stops a draining coracle sends its first signal.
    coracle.signal(Signal::TERM);
    until("the signal is logged", || {
        let log = coracle.log();
        let is_about = |line: &&String| line.contains("msg=\"draining already\" by=SIGTERM");
        log.iter().find(is_about).map(|_| ())
    });
    drop(held);
    assert_eq!(coracle.wait().code(), Some(0));
    coracle.logged("msg=drained ended=1 cut=0");
}

#[test]
fn ordered_stop_resets_connections_and_is_answered_before_the_end() {
    for drains in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut coracle, socket) = controlled(dir.path());
        let mut held = [(); 2].map(|()| hold(coracle.address("e")));
        if drains {
            assert_eq!(ask(&socket, post("/api/v1/drain", "")).0, 200);
        }
        let told = "stopped: 2 connections reset\n";
        assert_eq!(
            ask(&socket, post("/api/v1/stop", "")),
            (200, told.to_owned())
        );
        held.iter_mut().for_each(expect_reset);
        assert_eq!(coracle.wait().code(), Some(0));
        coracle.logged("msg=drained ended=0 cut=2");
        assert!(!socket.exists());
    }
}

#[test]
fn drain_without_connections_is_answered_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut coracle, socket) = controlled(dir.path());
    let told = "draining: 0 connections may continue for 1h\n";
    assert_eq!(
        ask(&socket, post("/api/v1/drain", "")),
        (200, told.to_owned())
    );
    assert_eq!(coracle.wait().code(), Some(0));
}
