//! A restart under a service manager that stores the listening sockets: clients wait meanwhile and
//! are then served.
//!
//! These tests have a process of their own: the descriptors that they pass to their program must not
//! leak into the programs of other tests.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use support::backend::{self, Script, hold};
use support::manager::Manager;
use support::process::Coracle;
use support::rng;

const CLIENTS: usize = 50;

/// The descriptors that one test passes to its coracle must not leak into another's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

fn unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

/// Requests `n` bytes; the response is read later.
fn ask<S: Write>(mut stream: S, n: usize) -> (S, usize) {
    let request = Script::SendAndClose.request(n as u64);
    stream.write_all(&request).unwrap();
    (stream, n)
}

fn is_served((mut stream, n): (impl Read, usize)) {
    let answer = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert_eq!(answer, n as u64);
}

/// Stops it although a connection is open.
fn end(mut coracle: Coracle) {
    coracle.logged("draining");
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
}

#[test]
fn restart_with_an_idle_connection_refuses_no_client() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let to = backend::start();
    let mut rng = rng::from_env();
    let address = support::lasting_address(&mut rng);
    let v4 = support::lasting_address(&mut rng);
    let config = format!(
        "drain_timeout = \"1h\"\n\
         [entrypoints.e]\nlisten = [\"{address}\", \"*:{}\", \"unix:{}\"]\nto = \"{to}\"\n",
        v4.port(),
        path.display()
    );
    let manager = Manager::start(Duration::ZERO);
    let first = manager.run(&config);
    assert_eq!(manager.kept(), ["entrypoint"; 3]);

    let mut held = hold(address);
    first.signal(Signal::TERM);
    first.logged("draining");
    let waiting: Vec<_> = (0..CLIENTS).map(|n| ask(tcp(address), n)).collect();
    let waiting_v4: Vec<_> = (0..CLIENTS).map(|n| ask(tcp(v4), n)).collect();
    let waiting_unix: Vec<_> = (0..CLIENTS).map(|n| ask(unix(&path), n)).collect();
    // The open connection lives. Clients waiting for the next process no longer wake this one:
    // epoll would report them endlessly.
    held.write_all(b"still here").unwrap();
    let watched = first.watched();
    assert!(!watched.is_empty());
    let ended: Vec<_> = manager
        .inodes()
        .into_iter()
        .filter(|it| watched.contains(it))
        .collect();
    assert!(
        ended.is_empty(),
        "listeners {ended:?} are still in the epoll set"
    );
    end(first);
    assert!(held.read(&mut [0]).is_err(), "a cut looks like EOF");

    let second = manager.run(&config);
    second.logged("inherited=true");
    for client in waiting.into_iter().chain(waiting_v4) {
        is_served(client);
    }
    waiting_unix.into_iter().for_each(is_served);
    // Each socket is stored once and can be handed over again.
    assert_eq!(manager.kept(), ["entrypoint"; 3]);
    second.signal(Signal::TERM);
    let (again, again_unix) = (ask(tcp(address), 7), ask(unix(&path), 7));
    drop(second);
    let third = manager.run(&config);
    is_served(again);
    is_served(again_unix);

    // A full stop: the Unix socket's file stays, since its path may still be needed, and is
    // replaced.
    third.signal(Signal::TERM);
    drop(third);
    manager.discard();
    assert!(TcpStream::connect(address).is_err());
    assert!(UnixStream::connect(&path).is_err());
    let mut fourth = manager.run(&config);
    is_served(ask(unix(&path), 7));
    manager.discard();
    fourth.signal(Signal::TERM);
    assert_eq!(fourth.wait().code(), Some(0));
    assert!(
        !path.exists(),
        "the file of an unused socket is left behind"
    );
}

#[test]
fn unwanted_stored_socket_is_returned_before_its_address_is_needed() {
    let _alone = alone();
    let to = backend::start();
    let address = support::lasting_address(&mut rng::from_env());
    let any = format!("0.0.0.0:{}", address.port());
    let entrypoint = |listen: &str, more: &str| {
        format!("[entrypoints.e]\nlisten = \"{listen}\"\nto = \"{to}\"\n{more}")
    };
    // The manager is slow: without waiting for it to close its socket, the port is still taken.
    let manager = Manager::start(Duration::from_millis(200));
    let narrow = entrypoint(&address.to_string(), "");
    for config in [
        narrow.clone(),
        entrypoint(&any, ""),
        narrow.clone(),
        entrypoint(&any, "keepalive = \"off\"\n"),
    ] {
        let mut coracle = manager.run(&config);
        assert_eq!(manager.kept().len(), 1);
        is_served(ask(tcp(address), 9));
        coracle.signal(Signal::TERM);
        assert_eq!(coracle.wait().code(), Some(0));
    }
    // With `reuse_port` another process may serve meanwhile: a socket that nothing accepts from
    // must not take clients from it.
    let shared = manager.run(&entrypoint(&any, "reuse_port = true\n"));
    assert_eq!(manager.kept().len(), 0);
    is_served(ask(tcp(address), 9));
    drop(shared);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn matching_activation_sockets_are_used_and_others_reported() {
    let _alone = alone();
    let to = backend::start();
    let wanted = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = wanted.local_addr().unwrap();
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    let stray_address = stray.local_addr().unwrap();
    let early = ask(tcp(address), 11);
    let manager = Manager::start(Duration::ZERO);
    manager.hand_over("stray.socket", stray.into());
    manager.hand_over("web.socket", wanted.into());
    let config = format!("[entrypoints.e]\nlisten = \"{address}\"\nto = \"{to}\"\n");
    let coracle = manager.run(&config);
    is_served(early);
    let line = coracle.logged("no entrypoint listens on this socket");
    assert!(line.contains(&stray_address.to_string()), "{line}");
    assert!(line.contains("stray.socket"), "{line}");
    // The manager keeps them regardless.
    assert_eq!(manager.kept(), ["stray.socket", "web.socket"]);
    let told = manager.told();
    assert!(
        !told.iter().any(|text| text.contains("FDSTORE")),
        "{told:?}"
    );
    is_served(ask(tcp(address), 11));
}

#[test]
fn descriptors_for_another_process_are_left_alone() {
    let to = backend::start();
    let mut command = std::process::Command::new(support::process::binary());
    command.env("LISTEN_PID", "1");
    command.env("LISTEN_FDS", "3");
    let config = format!("[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n");
    let coracle = Coracle::start_by(command, &config);
    is_served(ask(tcp(coracle.address("e")), 3));
    let log = coracle.log();
    assert!(
        !log.iter().any(|line| line.contains("service manager")),
        "{log:?}"
    );
}
