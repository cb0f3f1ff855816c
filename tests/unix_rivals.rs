//! Several that start on one Unix path at the same moment. Alone in its process, since a process that another test forks would have the
//! sockets until its exec, and a socket that somebody else has keeps its file.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use coracle::net::{Listener, Reactor, UnixSocket};

/// Rounds of as many starts at the same time.
const ROUNDS: usize = 1000;
const RIVALS: usize = 4;

/// Leaves a socket's file at `path` that nobody has any more.
fn abandon(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(path.exists());
}

#[test]
fn of_many_that_find_the_same_abandoned_socket_one_replaces_it() {
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
                        let listener = bound.and_then(|it| Listener::listen_unix(&reactor, it));
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
        assert_eq!(winners, [true], "round {round}: who has it can be reached");
        assert!(!path.exists(), "round {round}: its file is removed");
    }
}
