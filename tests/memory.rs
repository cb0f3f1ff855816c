//! Clients that do not read: their memory stays within the limit and is released, no connection is
//! cut, and no byte is lost.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use socket2::{Domain, Socket, Type};
use support::backend::{self, Script};
use support::memory_group::MemoryGroup;
use support::metrics::{Metrics, scrape};
use support::process::Coracle;
use support::until;

const MIB: u64 = 1 << 20;

/// The peers' buffers: the machine must not run out of memory because of them.
const PEERS_BUFFER: usize = 16 * 1024;

/// The period of a flood's bytes: a prime, so that no lost or doubled piece goes unnoticed.
const PERIOD: usize = 251;

/// One at a time: each needs many descriptors.
static ALONE: Mutex<()> = Mutex::new(());

/// A server that reads one byte, and then sends endlessly (`floods`) or nothing more.
fn server(floods: bool) -> SocketAddr {
    let socket = backend::bound_but_not_listening();
    socket.set_send_buffer_size(PEERS_BUFFER).unwrap();
    socket.set_recv_buffer_size(PEERS_BUFFER).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let executor = Rc::new(LocalExecutor::new());
        let own = executor.clone();
        smol::block_on(executor.run(async move {
            let listener = smol::Async::new(listener).unwrap();
            loop {
                let Ok((mut stream, _)) = listener.accept().await else {
                    continue;
                };
                let serving = async move {
                    let begun = stream.read_exact(&mut [0]).await;
                    let pattern = backend::pattern(64 * PERIOD);
                    while floods && begun.is_ok() && stream.write_all(&pattern).await.is_ok() {}
                    // Open as long as the test runs.
                    std::future::pending::<()>().await;
                };
                own.spawn(serving).detach();
            }
        }));
    });
    address
}

/// A client that does not read yet.
fn silent(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(PEERS_BUFFER).unwrap();
    socket.set_send_buffer_size(PEERS_BUFFER).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

/// Reads `n` bytes of a flood, and fails if one is missing.
fn read_flood(stream: &mut TcpStream, n: usize) {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).unwrap();
    let wrong = (0..n).find(|i| usize::from(bytes[*i]) != i % PERIOD);
    assert_eq!(wrong, None, "a byte was lost, doubled or changed");
}

/// Entrypoint `flood` leads to a server that sends endlessly, `stuck` to one that does not read,
/// and `e` to one that does what its client asks.
fn config() -> String {
    let entrypoint =
        |name, to| format!("[entrypoints.{name}]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n");
    let entrypoints = [
        entrypoint("flood", server(true)),
        entrypoint("stuck", server(false)),
        entrypoint("e", backend::start()),
    ];
    entrypoints.concat()
}

/// Connects clients, but no more at once than the backlog holds.
fn connect(clients: &mut Vec<TcpStream>, n: usize, coracle: &Coracle, entrypoint: &str) {
    let to = coracle.address(entrypoint);
    for _ in 0..n / 500 {
        clients.extend((0..500).map(|_| silent(to)));
        let n = clients.len();
        until("they are served", || {
            (open(&scrape(coracle.admin)) == n).then_some(())
        });
    }
}

/// Exchanges bytes through entrypoint `e`.
fn an_ordinary_connection_gets_through(coracle: &Coracle) {
    let mut ordinary = TcpStream::connect(coracle.address("e")).unwrap();
    ordinary.set_read_timeout(Some(support::DEADLINE)).unwrap();
    ordinary.write_all(&Script::Echo.request(0)).unwrap();
    let sent = backend::pattern(1 << 20);
    let mut sending = ordinary.try_clone().unwrap();
    let bytes = sent.clone();
    let sender = thread::spawn(move || {
        sending.write_all(&bytes).unwrap();
        sending.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    ordinary.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert!(received == sent, "the echo differs");
}

fn assert_below(limit: u64, group: &MemoryGroup) {
    let (peak, tcp) = (group.peak(), group.tcp());
    println!("at most {} KiB, now {} KiB of TCP", peak / 1024, tcp / 1024);
    assert!(peak < limit, "{peak} of {limit} bytes used");
}

fn resident(coracle: &Coracle) -> u64 {
    let path = format!("/proc/{}/status", coracle.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

fn open(metrics: &Metrics) -> usize {
    metrics.sum("coracle_open_connections") as usize
}

/// Waits until nothing moves: every receiver is blocked. `go_on` does what the senders do
/// meanwhile.
fn all_blocked(coracle: &Coracle, mut go_on: impl FnMut()) {
    let mut last = 0.0;
    let mut quiet = 0;
    until("nothing moves", || {
        go_on();
        let passed = scrape(coracle.admin).sum("coracle_bytes_total");
        quiet = if passed == last { quiet + 1 } else { 0 };
        last = passed;
        (quiet == 20).then_some(())
    });
}

/// Raises the descriptor limit as far as possible.
fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn four_thousand_clients_that_do_not_read_end_neither_process_nor_connection() {
    const CLIENTS: usize = 4000;
    const LIMIT: u64 = 128 * MIB;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_limit();
    let Some(group) = MemoryGroup::new("flood", LIMIT) else {
        return;
    };
    let mut coracle = Coracle::start_by(group.command(), &config());
    let ready = coracle.logged("msg=ready");
    assert!(ready.contains("by=memory memory_limit=128MiB"), "{ready}");
    let before = resident(&coracle);

    // The first half requests at once; the others are idle for a while, and then all request
    // together.
    let mut clients = Vec::new();
    connect(&mut clients, CLIENTS / 2, &coracle, "flood");
    for client in &mut clients {
        client.write_all(b"!").unwrap();
    }
    all_blocked(&coracle, || {});
    connect(&mut clients, CLIENTS / 2, &coracle, "flood");
    for client in &mut clients[CLIENTS / 2..] {
        client.write_all(b"!").unwrap();
    }
    all_blocked(&coracle, || {});
    assert_below(LIMIT, &group);
    an_ordinary_connection_gets_through(&coracle);

    let held = scrape(coracle.admin).sum("coracle_memory_held_bytes");
    let may_be_held = (LIMIT - 8 * MIB) / 16;
    assert!(
        held > 0.0 && held <= may_be_held as f64,
        "{held} bytes are held"
    );

    // A client that starts to read gets every byte.
    for client in clients.iter_mut().step_by(40) {
        read_flood(client, 300_000);
    }
    let metrics = scrape(coracle.admin);
    assert_eq!(open(&metrics), CLIENTS);
    let closed = metrics.sum_where("coracle_connections_closed_total", "entrypoint=\"flood\"");
    assert_eq!(closed, 0.0, "a connection was cut");
    assert_below(LIMIT, &group);

    drop(clients);
    until("all have left", || {
        (open(&scrape(coracle.admin)) == 0).then_some(())
    });
    assert_eq!(scrape(coracle.admin).sum("coracle_memory_held_bytes"), 0.0);
    until("the memory is released", || {
        (resident(&coracle) < before + 6 * MIB).then_some(())
    });
    coracle.signal(Signal::TERM);
    assert!(coracle.wait().success());
}

#[test]
fn four_thousand_uploads_to_a_stalled_server_end_neither_process_nor_connection() {
    const CLIENTS: usize = 4000;
    const LIMIT: u64 = 128 * MIB;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_limit();
    let Some(group) = MemoryGroup::new("stuck", LIMIT) else {
        return;
    };
    let coracle = Coracle::start_by(group.command(), &config());
    let mut clients = Vec::new();
    connect(&mut clients, CLIENTS, &coracle, "stuck");
    for client in &clients {
        client.set_nonblocking(true).unwrap();
    }
    let piece = [b'!'; 65_536];
    all_blocked(&coracle, || {
        for client in &mut clients {
            if let Err(error) = client.write(&piece) {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            }
        }
    });
    assert_below(LIMIT, &group);
    an_ordinary_connection_gets_through(&coracle);
    assert_eq!(open(&scrape(coracle.admin)), CLIENTS);
}

#[test]
fn clients_beyond_the_memory_limit_wait_and_the_log_says_why() {
    let Some(group) = MemoryGroup::new("small", 10 * MIB) else {
        return;
    };
    let coracle = Coracle::start_by(group.command(), &config());
    let ready = coracle.logged("msg=ready");
    let at_most = ready.split("connections_at_most=").nth(1).unwrap();
    let at_most: usize = at_most.split(' ').next().unwrap().parse().unwrap();
    assert!(at_most < 500, "{ready}");
    let ask = || {
        let mut stream = TcpStream::connect(coracle.address("e")).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        stream.write_all(&Script::Hold.request(0)).unwrap();
        stream
    };
    let mut served: Vec<TcpStream> = (0..at_most).map(|_| ask()).collect();
    for stream in &mut served {
        stream.read_exact(&mut [0]).unwrap();
    }
    let mut next = ask();
    let line = coracle.logged("no room for more connections");
    assert!(line.contains("memory limit"), "{line}");
    assert_eq!(open(&scrape(coracle.admin)), at_most);
    drop(served.pop());
    next.read_exact(&mut [0]).unwrap();
    assert_eq!(open(&scrape(coracle.admin)), at_most);
    assert_below(10 * MIB, &group);
}

#[test]
fn two_thousand_clients_that_do_not_read_stay_below_the_configured_ceiling() {
    const CLIENTS: usize = 2000;
    const CEILING: u64 = 32 * MIB;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_limit();
    let Some(group) = MemoryGroup::new("ceiling", 64 * MIB) else {
        return;
    };
    // A backlog holds a thousand clients or so.
    let second = "[entrypoints.second]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n";
    let service = format!("[services.s]\nservers = [\"{}\"]\n", server(true));
    let limits = "[limits]\nmemory = \"32MiB\"\n";
    let config = [limits, &config(), second, &service].concat();
    let coracle = Coracle::start_by(group.command(), &config);
    let ready = coracle.logged("msg=ready");
    assert!(
        ready.contains("by=limits.memory memory_limit=32MiB"),
        "{ready}"
    );
    let to = [coracle.address("flood"), coracle.address("second")];
    let clients = (0..CLIENTS).map(|n| silent(to[n % 2]));
    let mut clients: Vec<TcpStream> = clients.collect();
    for client in &mut clients {
        client.write_all(b"!").unwrap();
    }
    let line = coracle.logged("no room for more connections");
    assert!(line.contains("limits.memory"), "{line}");
    all_blocked(&coracle, || {});
    assert_below(CEILING, &group);
    // Those that wait are served when the others have read and left, and nobody was cut.
    for mut client in clients {
        read_flood(&mut client, 50_000);
    }
    assert_below(CEILING, &group);
    let metrics = scrape(coracle.admin);
    let cut = metrics.sum_where("coracle_connections_closed_total", "reason=\"memory\"");
    assert_eq!(cut, 0.0, "a connection was cut");
}

#[test]
fn program_above_its_ceiling_stops_accepting_and_ends_idle_connections() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let admin = support::lasting_address(&mut support::rng::from_env());
    let admin = format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n");
    let limits = "[limits]\nmemory = \"16MiB\"\n";
    let config = [limits, &admin, &config()].concat();
    let coracle = Coracle::start(&config);
    let hold = |_| {
        let mut stream = TcpStream::connect(coracle.address("e")).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        stream.write_all(&Script::Hold.request(0)).unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (0..20).map(hold).collect();
    for stream in &mut held {
        stream.read_exact(&mut [0]).unwrap();
    }
    // Servers that nobody uses take memory all the same.
    let servers = |n: usize| {
        let servers: Vec<_> = (0..1000)
            .map(|it| format!("\"10.{n}.1.1:{}\"", it + 1))
            .collect();
        format!("[services.s{n}]\nservers = [{}]\n", servers.join(", "))
    };
    let services: String = (0..20).map(servers).collect();
    // Nobody scrapes meanwhile: 20,000 servers make a long answer.
    coracle.write_config(&format!("{config}{services}"));
    coracle.signal(Signal::HUP);
    coracle.logged("new connections wait; raise it (limits.memory)");
    let mut waiting = hold(0);
    coracle.logged("connections that were idle the longest; raise it (limits.memory)");
    coracle.write_config(&config);
    coracle.signal(Signal::HUP);
    coracle.logged("accepting again");
    waiting.read_exact(&mut [0]).unwrap();
    let metrics = scrape(coracle.admin);
    let ended = metrics.sum_where("coracle_connections_closed_total", "reason=\"memory\"");
    assert!(ended > 0.0, "no connection has been ended");
    assert_eq!(ended + open(&metrics) as f64, 21.0);
    for action in ["stop_accepting", "stop_reading", "end_idle"] {
        let action = format!("action=\"{action}\"");
        let times = metrics.sum_where("coracle_memory_pressure_total", &action);
        assert!(times >= 1.0, "{action}");
    }
}

#[test]
fn memory_of_clients_that_did_not_read_is_released() {
    const CLIENTS: usize = 600;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    raise_limit();
    let coracle = Coracle::start(&config());
    let before = resident(&coracle);
    let to = coracle.address("flood");
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| silent(to)).collect();
    for client in &mut clients {
        client.write_all(b"!").unwrap();
    }
    until("much is held for them", || {
        let held = scrape(coracle.admin).sum("coracle_memory_held_bytes");
        (held > 8.0 * MIB as f64).then_some(())
    });
    // The latest bytes stay, above everything that will be freed.
    let mut last = TcpStream::connect(coracle.address("e")).unwrap();
    last.write_all(&Script::Hold.request(0)).unwrap();
    last.read_exact(&mut [0]).unwrap();
    assert!(resident(&coracle) > before + 8 * MIB);
    drop(clients);
    until("the memory is released", || {
        (resident(&coracle) < before + 3 * MIB).then_some(())
    });
    assert_eq!(open(&scrape(coracle.admin)), 1);
}
