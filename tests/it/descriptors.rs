//! Out of descriptors: little CPU, few log lines, `/metrics` still answers, and service resumes
//! once descriptors are free.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, Start};
use crate::support::until;

fn start(descriptors: Option<u64>) -> Coracle {
    let to = backend::start();
    // A client that got in waits for its descriptor as long as the test takes.
    let config = format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\nconnect_timeout = \"1h\"\n"
    );
    Coracle::start_with(&Start {
        config: &config,
        descriptors,
    })
}

/// A client that has sent a request and may not be accepted yet.
fn ask(coracle: &Coracle) -> TcpStream {
    let mut stream = TcpStream::connect(coracle.address("e")).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream
}

fn answered(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    stream.read(&mut [0]).is_ok_and(|n| n == 1)
}

fn open(coracle: &Coracle) -> usize {
    scrape(coracle.admin).sum("coracle_open_connections") as usize
}

/// Checks that it has logged little since line `before`. At most one line a second repeats, so more
/// time allows more lines.
fn assert_quiet(coracle: &Coracle, before: usize, since: Instant) {
    let lines = coracle.log().len() - before;
    let allowed = 10 + since.elapsed().as_secs() as usize;
    assert!(lines <= allowed, "{lines} lines: {:#?}", coracle.log());
}

#[test]
fn sixty_four_descriptors_serve_200_clients_without_spinning() {
    let coracle = start(Some(64));
    let (lines_before, begun) = (coracle.log().len(), Instant::now());
    let mut waiting: Vec<TcpStream> = (0..200).map(|_| ask(&coracle)).collect();
    coracle.logged("no room for more connections");
    let full = until("it serves as many clients as fit", || {
        let open = open(&coracle);
        (open >= 10).then_some(open)
    });
    assert!(full < 32, "each connection takes two descriptors");
    coracle.assert_calm();
    assert_eq!(
        open(&coracle),
        full,
        "/metrics answers, and no client was dropped"
    );
    assert_quiet(&coracle, lines_before, begun);
    // Answered clients leave, and the next take their turn until all have had it.
    let mut served = 0;
    until("all 200 are served", || {
        waiting.retain_mut(|stream| {
            let done = answered(stream);
            served += usize::from(done);
            !done
        });
        waiting.is_empty().then_some(())
    });
    assert_eq!(served, 200);
    until("all have left", || (open(&coracle) == 0).then_some(()));
    let metrics = scrape(coracle.admin);
    let done = metrics.sum_where("coracle_connections_closed_total", "reason=\"done\"");
    assert_eq!(done, 200.0, "none was refused");
}

#[test]
fn emfile_makes_the_listener_back_off_and_recover() {
    let coracle = start(None);
    let mut held: Vec<TcpStream> = (0..5).map(|_| ask(&coracle)).collect();
    for stream in &mut held {
        stream.read_exact(&mut [0]).unwrap();
    }
    // Lowered from outside: it may keep what it has open and open no more.
    let limit = |n: usize| {
        let pid = Pid::from_raw(coracle.pid() as i32);
        let limit = Rlimit {
            current: Some(n as u64),
            maximum: Some(n as u64),
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    let open_now = coracle.settled_descriptors();
    limit(open_now);
    let (lines_before, begun) = (coracle.log().len(), Instant::now());
    let mut late: Vec<TcpStream> = (0..20).map(|_| ask(&coracle)).collect();
    // Reported by a failed accept, or for the clients waiting because one connection has no
    // descriptor for its server.
    coracle.logged("limit of open files");
    // A lower number may be free and have admitted one more.
    let full = open(&coracle);
    assert!((5..=6).contains(&full), "{full}");
    coracle.assert_calm();
    let metrics = scrape(coracle.admin);
    let label = "reason=\"process_descriptors\"";
    let accept_errors = metrics.sum_where("coracle_accept_errors_total", label);
    assert!(accept_errors > 0.0 || full == 6);
    assert_eq!(
        open(&coracle),
        full,
        "open connections are unaffected, and /metrics answers again"
    );
    assert_quiet(&coracle, lines_before, begun);
    // Two leave and two others take their places: it recovers by itself.
    held.truncate(3);
    until("two waiting clients are served", || {
        let served = late.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut [0]).is_ok_and(|n| n == 1)
        });
        (served.count() == 2).then_some(())
    });
    // As served clients leave, all take their turn.
    until("all were served", || {
        late.retain_mut(|stream| !answered(stream));
        late.is_empty().then_some(())
    });
    for stream in &mut held {
        stream.set_nonblocking(true).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
