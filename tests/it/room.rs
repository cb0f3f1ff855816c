//! Capacity: never more connections than there is room for, no polling for it, and everyone is
//! served once there is some.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::backend::{self, Script};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, Start, binary};
use crate::support::rng;
use crate::support::{has_tool, lasting_address, until};

fn open(coracle: &Coracle) -> usize {
    scrape(coracle.admin).sum("coracle_open_connections") as usize
}

#[test]
fn two_thousand_clients_of_a_full_unix_backlog_are_served_in_order_without_polling() {
    const CLIENTS: u32 = 2_000;
    assert!(coracle::sys::descriptors::raise_limit() > 3 * u64::from(CLIENTS));
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let server = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    server.bind(&SockAddr::unix(&back).unwrap()).unwrap();
    server.listen(4).unwrap();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"unix:{}\"\nto = \"unix:{}\"\nconnect_timeout = \"1h\"\n",
        front.display(),
        back.display()
    ));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let mut client = UnixStream::connect(&front).unwrap();
            client.write_all(&n.to_be_bytes()).unwrap();
            client
        })
        .collect();
    until("all are in the set", || {
        (open(&coracle) == CLIENTS as usize).then_some(())
    });
    let before = coracle.cpu_time();
    coracle.assert_calm();
    let used = coracle.cpu_time() - before;
    assert!(
        used < Duration::from_millis(100),
        "waiting clients poll: {used:?} of CPU"
    );
    for n in 0..CLIENTS {
        let (mut stream, _) = server.accept().unwrap();
        let mut number = [0; 4];
        stream.read_exact(&mut number).unwrap();
        assert_eq!(
            u32::from_be_bytes(number),
            n,
            "clients are served out of order"
        );
    }
    drop(clients);
    until("the set is empty", || (open(&coracle) == 0).then_some(()));
    let errors = scrape(coracle.admin).sum("coracle_connect_errors_total");
    assert_eq!(errors, 0.0);
}

#[test]
fn forty_listeners_together_admit_no_more_than_capacity() {
    const LISTENERS: usize = 40;
    const ROUNDS: usize = 3;
    let to = backend::start();
    // Their addresses are chosen in advance, since the log limits repeated lines.
    let port = lasting_address(&mut rng::from_env()).port();
    let address = |n: usize| SocketAddr::from(([127, 0, 1, n as u8], port));
    let entrypoint = |n| {
        let listen = address(n);
        format!("[entrypoints.e{n}]\nlisten = \"{listen}\"\nto = \"{to}\"\n")
    };
    let config: String = (1..=LISTENERS).map(entrypoint).collect();
    let mut coracle = Coracle::start_with(&Start {
        config: &config,
        descriptors: Some(140),
    });
    let ready = coracle.logged("msg=ready");
    let capacity = ready.split("connections_at_most=").nth(1).unwrap();
    let capacity: usize = capacity.split_whitespace().next().unwrap().parse().unwrap();
    assert!(capacity < LISTENERS, "{ready}");
    // All listeners have clients in the same iteration of the loop.
    coracle.pause();
    let mut waiting: Vec<TcpStream> = (0..ROUNDS * LISTENERS)
        .map(|n| {
            let mut client = TcpStream::connect(address(1 + n % LISTENERS)).unwrap();
            client.write_all(&Script::Hold.request(0)).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    coracle.signal(Signal::CONT);
    until("it is full", || (open(&coracle) >= capacity).then_some(()));
    assert_eq!(open(&coracle), capacity);
    coracle.assert_calm();
    until("all were served", || {
        waiting.retain_mut(|client| client.read(&mut [0]).is_err());
        assert!(open(&coracle) <= capacity);
        waiting.is_empty().then_some(())
    });
    until("the set is empty", || (open(&coracle) == 0).then_some(()));
    let metrics = scrape(coracle.admin);
    let closed = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        metrics.sum_where("coracle_connections_closed_total", &label)
    };
    assert_eq!(closed("done"), (ROUNDS * LISTENERS) as f64);
    assert_eq!(metrics.sum("coracle_connect_errors_total"), 0.0);
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
}

/// A coracle whose accept4 fails with this error at these calls, and the trace of the calls. The
/// first call happens at startup, to probe whether the kernel has it. There is no admin endpoint,
/// which would accept too.
fn with_failing_accept(error: &str, when: &str) -> Option<(Coracle, tempfile::NamedTempFile)> {
    if !has_tool("strace") {
        return None;
    }
    let to = backend::start();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    let inject = format!("inject=accept4:error={error}:when={when}");
    command.args(["-D", "-f", "-e", "trace=accept4", "-e", &inject, "-o"]);
    command.arg(trace.path()).arg(binary());
    let config = format!(
        "[admin]\nlisten = \"off\"\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    );
    Some((Coracle::start_by(command, &config), trace))
}

fn injected(trace: &tempfile::NamedTempFile) -> usize {
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    trace.matches("(INJECTED)").count()
}

#[test]
fn persistent_accept_error_backs_off_whatever_its_kind() {
    for (error, text) in [
        ("EPERM", "repeated failures"),
        ("EMFILE", "out of file descriptors"),
    ] {
        let Some((coracle, trace)) = with_failing_accept(error, "2+") else {
            return;
        };
        let _client = TcpStream::connect(coracle.address("e")).unwrap();
        coracle.logged(text);
        // 10 ms, 20 ms, ... 1 s: after ten errors, one a second.
        until("accept4 has failed ten times", || {
            (injected(&trace) >= 10).then_some(())
        });
        coracle.assert_calm();
        let errors = injected(&trace);
        assert!(errors < 100, "{errors} errors");
    }
}

#[test]
fn single_network_accept_error_causes_no_delay() {
    let Some((coracle, trace)) = with_failing_accept("EPERM", "2") else {
        return;
    };
    let mut client = TcpStream::connect(coracle.address("e")).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert_eq!(injected(&trace), 1);
    let log = coracle.log().join("\n");
    assert!(!log.contains("new connections wait"), "{log}");
}
