//! The kernel agrees: its count matches the set for every kind of entrypoint, and a broken set is
//! detected.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::thread;

use coracle::sys::sockets::{Name, Query, SocketTables, TableSource};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::in_process::{InProcess, socket_without_entry};
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::until;

fn hold(mut stream: impl Read + Write) {
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

fn held(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    hold(&stream);
    stream
}

fn of(metrics: &Metrics, name: &str, entrypoint: &str) -> f64 {
    metrics.sum_where(name, &format!("entrypoint=\"{entrypoint}\""))
}

/// Scrapes until a reading of the kernel's table has this count. Returns that scrape.
fn until_kernel_counts(admin: SocketAddr, entrypoint: &str, n: f64) -> Metrics {
    until(&format!("the kernel counts {n} on {entrypoint}"), || {
        let metrics = scrape(admin);
        (of(&metrics, "coracle_kernel_connections", entrypoint) == n).then_some(metrics)
    })
}

fn audit(admin: SocketAddr, flags: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .args(["audit", "--admin", &admin.to_string()])
        .args(flags);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn kernel_and_set_agree_for_every_kind_of_entrypoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.sock");
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.v4]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n\
         [entrypoints.v6]\nlisten = \"[::1]:0\"\nto = \"{to}\"\n\
         [entrypoints.dual]\nlisten = \"*:0\"\nto = \"{to}\"\n\
         [entrypoints.unix]\nlisten = \"unix:{}\"\nto = \"{to}\"\n",
        path.display()
    ));
    // A neighbour on another port, whose connections must not count.
    let neighbour = Coracle::start(&format!(
        "[entrypoints.n]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let _neighbours: Vec<_> = (0..9).map(|_| held(neighbour.address("n"))).collect();

    let port = coracle.address("dual").port();
    let v4 = held(coracle.address("v4"));
    let _v6 = [held(coracle.address("v6")), held(coracle.address("v6"))];
    let _dual = [
        held(SocketAddr::from(([127, 0, 0, 1], port))),
        held(SocketAddr::from(([127, 0, 0, 1], port))),
        held(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))),
    ];
    let _unix: Vec<_> = (0..4)
        .map(|_| {
            let stream = UnixStream::connect(&path).unwrap();
            hold(&stream);
            stream
        })
        .collect();
    for (entrypoint, n) in [("v4", 1.0), ("v6", 2.0), ("dual", 3.0), ("unix", 4.0)] {
        let metrics = until_kernel_counts(coracle.admin, entrypoint, n);
        assert_eq!(of(&metrics, "coracle_open_connections", entrypoint), n);
        assert_eq!(of(&metrics, "coracle_connection_mismatch", entrypoint), 0.0);
        assert_eq!(of(&metrics, "coracle_accept_backlog", entrypoint), 0.0);
    }
    assert_eq!(support::kernel::unix_connections(path.to_str().unwrap()), 4);
    let output = audit(coracle.admin, &[]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(
        shown.contains("The set and the kernel agree: 10 open (sock_diag)."),
        "{shown}"
    );
    assert!(
        shown.contains(&v4.local_addr().unwrap().to_string()),
        "{shown}"
    );
    assert!(!shown.contains('!'), "{shown}");
}

/// Starts one coracle that reads sock_diag and one without netlink, which reads `/proc/net`.
fn by_each_source(config: &str, check: impl Fn(&Coracle)) {
    check(&Coracle::start(config));
    if support::has_tool("python3") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/old_kernel.py");
        let mut command = Command::new("python3");
        // AF_NETLINK is 16.
        command.args([script, "socket[0=16]=EPERM", "--", &binary()]);
        check(&Coracle::start_by(command, config));
    }
}

#[test]
fn entrypoints_sharing_a_port_across_families_count_their_own_sockets() {
    let to = backend::start();
    let port = support::lasting_address(&mut support::rng::from_env()).port();
    let config = format!(
        "[entrypoints.four]\nlisten = \"0.0.0.0:{port}\"\nto = \"{to}\"\n\
         [entrypoints.six]\nlisten = \"[::]:{port}\"\nto = \"{to}\"\n"
    );
    by_each_source(&config, |coracle| {
        let _four: Vec<_> = (0..3)
            .map(|_| held(SocketAddr::from(([127, 0, 0, 1], port))))
            .collect();
        let _six: Vec<_> = (0..2)
            .map(|_| held(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))))
            .collect();
        for (entrypoint, n) in [("four", 3.0), ("six", 2.0)] {
            let metrics = until_kernel_counts(coracle.admin, entrypoint, n);
            assert_eq!(of(&metrics, "coracle_connection_mismatch", entrypoint), 0.0);
        }
        let output = audit(coracle.admin, &[]);
        assert!(output.status.success(), "{}", text(&output.stdout));
    });
}

/// A server that has answered and finished, and reads only on request.
struct Stalled {
    address: SocketAddr,
    stream: std::sync::mpsc::Receiver<TcpStream>,
}

impl Stalled {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, stream) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.write_all(b"!").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let _ = tell.send(stream);
            }
        });
        Self { address, stream }
    }
}

/// Whether the kernel holds a TIME_WAIT entry, at the end `local`, for a connection from `peer`
/// whose socket is gone.
fn is_in_time_wait(local: SocketAddr, peer: SocketAddr) -> bool {
    let [local, peer] = [local, peer].map(|address| format!(":{:04X}", address.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|row| {
        let columns: Vec<_> = row.split_whitespace().collect();
        columns[1].ends_with(&local) && columns[2].ends_with(&peer) && columns[3] == "06"
    })
}

#[test]
fn finished_connection_with_bytes_in_flight_raises_no_mismatch() {
    const STEP: usize = 64 * 1024;
    let stalled = Stalled::start();
    let config = format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n",
        stalled.address
    );
    by_each_source(&config, |coracle| {
        loop {
            let mut client = TcpStream::connect(coracle.address("e")).unwrap();
            let peer = client.local_addr().unwrap();
            // As much as the kernel and coracle accept while the server does not read.
            client.set_nonblocking(true).unwrap();
            let (mut sent, mut refused) = (0, 0);
            while refused < 40 {
                match client.write(&[7; 65_536]) {
                    Ok(n) => (sent, refused) = (sent + n, 0),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        refused += 1;
                        thread::sleep(std::time::Duration::from_millis(5));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            client.set_nonblocking(false).unwrap();
            client.read_exact(&mut [0]).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            client.shutdown(Shutdown::Write).unwrap();
            // The server reads until the client's FIN reaches coracle, and no further.
            let mut server = stalled.stream.recv().unwrap();
            let mut received = 0;
            while !is_in_time_wait(coracle.address("e"), peer) {
                // Looking is expensive on a machine with many sockets.
                server.read_exact(&mut [0; STEP]).unwrap();
                received += STEP;
                assert!(received < sent, "everything passed before the FIN");
            }
            // What the kernel counts may be a second old, from before this connection.
            let metrics = until("the kernel's count of this connection", || {
                let metrics = scrape(coracle.admin);
                assert_eq!(of(&metrics, "coracle_connection_mismatch", "e"), 0.0);
                let open = of(&metrics, "coracle_open_connections", "e");
                (of(&metrics, "coracle_kernel_connections", "e") == open).then_some(metrics)
            });
            let output = audit(coracle.admin, &["--json"]);
            let is_open = of(&scrape(coracle.admin), "coracle_open_connections", "e") == 1.0;
            if !is_open {
                // The last step passed everything, before or between these looks. Another
                // connection may stop at a better place.
                continue;
            }
            assert_eq!(of(&metrics, "coracle_open_connections", "e"), 1.0);
            assert_eq!(of(&metrics, "coracle_connection_mismatch", "e"), 0.0);
            assert_eq!(of(&metrics, "coracle_kernel_connections", "e"), 1.0);
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(output.status.success(), "{json}");
            assert_eq!(json["connections"][0]["peer"], peer.to_string());
            assert_eq!(json["connections"][0]["kernel"], "closed");
            assert_eq!(json["connections"][0]["differs"], false);
            let rest = std::io::copy(&mut server, &mut std::io::sink()).unwrap();
            assert_eq!(received + rest as usize, sent);
            break;
        }
    });
}

#[test]
fn time_wait_does_not_hide_a_leaked_entry() {
    let proxy = InProcess::start(true);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    let peer = client.local_addr().unwrap();
    // The server finishes first, so that coracle's side enters TIME_WAIT.
    client.write_all(&Script::HoldFinished.request(0)).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    until("the connection is in TIME_WAIT", || {
        is_in_time_wait(proxy.address, peer).then_some(())
    });
    until_mismatch(proxy.admin, -1.0);
    assert_eq!(audit(proxy.admin, &[]).status.code(), Some(1));
}

#[test]
fn only_own_sockets_count_when_two_processes_share_a_port() {
    let to = backend::start();
    let listen = support::lasting_address(&mut support::rng::from_env());
    let config =
        format!("[entrypoints.e]\nlisten = \"{listen}\"\nreuse_port = true\nto = \"{to}\"\n");
    let coracles = [Coracle::start(&config), Coracle::start(&config)];
    // The kernel distributes them between the two.
    let _held: Vec<_> = (0..40).map(|_| held(listen)).collect();
    let shares = coracles.each_ref().map(|coracle| {
        let share = of(&scrape(coracle.admin), "coracle_open_connections", "e");
        let metrics = until_kernel_counts(coracle.admin, "e", share);
        assert_eq!(of(&metrics, "coracle_connection_mismatch", "e"), 0.0);
        assert!(audit(coracle.admin, &[]).status.success());
        share
    });
    assert_eq!(shares[0] + shares[1], 40.0);
    assert!(shares[0] > 0.0 && shares[1] > 0.0, "{shares:?}");
}

#[test]
fn backlog_raises_no_mismatch() {
    let to = backend::start();
    let coracle = Coracle::start_with(&support::process::Start {
        config: &format!("[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"),
        descriptors: Some(64),
    });
    let clients: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(coracle.address("e")).unwrap())
        .collect();
    coracle.logged("no room for more connections");
    let metrics = until("set and backlog make 100", || {
        let metrics = scrape(coracle.admin);
        let kernel = of(&metrics, "coracle_kernel_connections", "e");
        let backlog = of(&metrics, "coracle_accept_backlog", "e");
        (kernel + backlog == 100.0 && backlog > 50.0).then_some(metrics)
    });
    assert_eq!(of(&metrics, "coracle_connection_mismatch", "e"), 0.0);
    let output = audit(coracle.admin, &[]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("more wait in the kernel to be accepted"));
    drop(clients);
}

#[test]
fn leaked_entry_is_detected() {
    let proxy = InProcess::start(true);
    drop(held(proxy.address));
    let metrics = until_mismatch(proxy.admin, -1.0);
    assert_eq!(of(&metrics, "coracle_open_connections", "e"), 1.0);
    assert_eq!(of(&metrics, "coracle_kernel_connections", "e"), 0.0);
    let output = audit(proxy.admin, &[]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("do not agree: 1 only in the set, 0 only in the kernel"),
        "{shown}"
    );
    assert!(shown.lines().any(|line| line.starts_with('!')), "{shown}");
}

#[test]
fn entry_that_left_before_its_socket_is_detected() {
    let proxy = InProcess::start(false);
    let (kept, peer) = socket_without_entry(&proxy);
    let metrics = until_mismatch(proxy.admin, 1.0);
    assert_eq!(of(&metrics, "coracle_open_connections", "e"), 0.0);
    let output = audit(proxy.admin, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["kernel_only"], 1);
    assert_eq!(json["connections"][0]["peer"], peer.to_string());
    drop(kept);
    until_mismatch(proxy.admin, 0.0);
    assert!(audit(proxy.admin, &[]).status.success());
}

fn until_mismatch(admin: SocketAddr, n: f64) -> Metrics {
    until(&format!("a mismatch of {n}"), || {
        let metrics = scrape(admin);
        (of(&metrics, "coracle_connection_mismatch", "e") == n).then_some(metrics)
    })
}

#[test]
fn both_sources_agree() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut clients = Vec::new();
    for host in ["127.0.0.1", "::1"] {
        clients.push(TcpStream::connect((host, port)).unwrap());
    }
    let _accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
    // Not accepted.
    clients.push(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let query = Query {
        ports: vec![port],
        unix: false,
        closed: false,
    };
    let tables = [SocketTables::open(), SocketTables::without_sock_diag()].map(|mut kernel| {
        let (source, table) = kernel.read(&query).unwrap();
        let mut peers: Vec<_> = table.accepted.iter().map(|row| row.peer.unwrap()).collect();
        peers.sort();
        let listening = &table.listening[0];
        assert!(matches!(listening.local, Name::Tcp(local) if local.port() == port));
        (source, peers, table.listening.len(), listening.backlog)
    });
    assert_eq!(tables[0].0, TableSource::SockDiag);
    assert_eq!(tables[1].0, TableSource::Proc);
    assert_eq!(tables[0].1, tables[1].1);
    assert_eq!(tables[0].1.len(), 2);
    assert_eq!((tables[0].2, tables[0].3), (1, Some(1)));
    assert_eq!((tables[1].2, tables[1].3), (1, Some(1)));
}

#[test]
fn non_utf8_unix_path_does_not_break_reading_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OsStr::from_bytes(b"caf\xe9 \xff.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    let _accepted = listener.accept().unwrap();
    let query = Query {
        unix: true,
        ..Query::default()
    };
    for mut kernel in [SocketTables::open(), SocketTables::without_sock_diag()] {
        let (source, table) = kernel.read(&query).expect("a table");
        let name = Name::Unix(path.clone());
        let of_it = table.accepted.iter().filter(|row| row.local == name);
        assert_eq!(of_it.count(), 1, "{source}");
    }
}

#[test]
fn audit_reports_an_absent_or_foreign_endpoint() {
    let refusing = backend::bound_but_not_listening();
    let closed = refusing.local_addr().unwrap().as_socket().unwrap();
    let output = audit(closed, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with(&format!("coracle: no coracle is running at {closed}: ")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\n<html>hello</html>")
            .unwrap();
    });
    let output = audit(address, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("is not coracle"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn audit_watch_repeats_until_stopped_and_sums_up() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let mut child = Command::new(binary())
        .args(["audit", "--watch", "--admin", &coracle.admin.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line, "The set and the kernel agree: 0 open (sock_diag).");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let last = rest.last().unwrap();
    assert!(
        last.ends_with("the largest difference that persisted: 0 connections"),
        "{rest:?}"
    );
    assert!(child.wait().unwrap().success());
}
