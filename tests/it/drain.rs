//! Shutdown: SIGTERM, SIGINT and SIGQUIT drain, a second signal ends immediately, and the log
//! reports each.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use coracle::config::Config;
use coracle::proxy::{Drained, Proxy};
use rustix::process::Signal;

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
    for stream in &mut held {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReset,
            "a cut looks like EOF"
        );
    }
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
    until("new connections are refused", || {
        TcpStream::connect(address).err()
    });
    held.shutdown(std::net::Shutdown::Write).unwrap();
    let end = held.read(&mut [0]).expect("EOF, not a reset");
    assert_eq!(end, 0);
    assert_eq!(running.join().unwrap(), Drained { ended: 1, cut: 0 });
}
