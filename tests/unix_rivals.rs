//! Several processes start on one Unix path at the same moment. The only test here: a process
//! forked by another test would hold the sockets until its exec, and a socket that is held keeps
//! its file.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use coracle::net::{Listener, Reactor, UnixSocket};

/// Rounds of that many simultaneous starts.
const ROUNDS: usize = 1000;
const RIVALS: usize = 4;

/// Leaves an abandoned socket file at `path`.
fn abandon(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(path.exists());
}

#[test]
fn one_of_many_rivals_replaces_an_abandoned_socket() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let path = dir.path().join(format!("{round}.sock"));
        abandon(&path);
        let together = Barrier::new(RIVALS);
        let winners = thread::scope(|scope| {
            let rivals: Vec<_> = (0..RIVALS)
                .map(|_| {
                    scope.spawn(|| {
                        let reactor = Reactor::new().unwrap();
                        together.wait();
                        let bound = UnixSocket::bind(&path);
                        let listener = bound.and_then(|it| Listener::listen_unix(&reactor, it, 16));
                        together.wait();
                        let Err(error) = listener else {
                            let connected = UnixStream::connect(&path);
                            return Some(connected.is_ok());
                        };
                        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
                        None
                    })
                })
                .collect();
            let ended = rivals.into_iter().map(|rival| rival.join().unwrap());
            ended.flatten().collect::<Vec<_>>()
        });
        assert_eq!(winners, [true], "round {round}: its owner is unreachable");
        assert!(!path.exists(), "round {round}: its file is left behind");
    }
}
