//! Health checks of a running coracle: who gets connections, and what a reload changes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use socket2::Socket;

use crate::support;
use crate::support::backend::{self, Silent, bound_but_not_listening, hold};
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::{Coracle, Start};
use crate::support::rng;
use crate::support::{lasting_address, namespace, until};

/// An entrypoint `e` with these servers. Only checks take a server down.
fn config(servers: &[SocketAddr], health: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|it| format!("\"{it}\"")).collect();
    with_servers(&servers.join(", "), &format!("health = {{ {health} }}"))
}

fn with_servers(servers: &str, rest: &str) -> String {
    format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [{servers}]\nmax_fails = 0\n{rest}\n"
    )
}

/// The same with an admin endpoint that a reload leaves where it is.
fn reloadable(admin: SocketAddr, listen: SocketAddr, rest: &str) -> String {
    let rest = rest.replace("127.0.0.1:0", &listen.to_string());
    format!("{rest}[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n")
}

/// Checks whose first comes at once, and the next one not during a test.
const ONCE: &str = "interval = \"2h\", timeout = \"1h\", jitter = \"0s\", fall = 1";

fn up(metrics: &Metrics, server: SocketAddr) -> f64 {
    metrics.sum_where("coracle_server_up", &format!("server=\"{server}\""))
}

fn is_up(coracle: &Coracle, server: SocketAddr, expected: f64) {
    until(&format!("{server} is up: {expected}"), || {
        (up(&scrape(coracle.admin), server) == expected).then_some(())
    });
}

fn checks(coracle: &Coracle) -> f64 {
    scrape(coracle.admin).sum("coracle_server_check_duration_seconds_count")
}

#[test]
fn dead_server_gets_no_connections_until_it_is_back() {
    let good = backend::start();
    let dead = bound_but_not_listening();
    let at = dead.local_addr().unwrap().as_socket().unwrap();
    let health = "kind = \"tcp\", interval = \"200ms\", rise = 3, fall = 2";
    let coracle = Coracle::start(&config(&[good, at], health));
    let line = coracle.logged("server is down: ");
    let reason = "2 checks in a row failed: connect: connection refused";
    assert!(line.contains(reason), "{line}");
    assert!(line.contains(&format!("server={at}")), "{line}");
    is_up(&coracle, good, 1.0);
    let clients: Vec<_> = (0..6).map(|_| hold(coracle.address("e"))).collect();
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_connect_errors_total"), 0.0);
    assert_eq!(up(&metrics, at), 0.0);
    // It comes back.
    dead.listen(128).unwrap();
    let words = serve(TcpListener::from(dead));
    let line = coracle.logged("server is up: ");
    assert!(line.contains("3 checks in a row succeeded"), "{line}");
    is_up(&coracle, at, 1.0);
    let _next: Vec<_> = (0..2)
        .map(|_| {
            let mut client = TcpStream::connect(coracle.address("e")).unwrap();
            client.write_all(b"client").unwrap();
            client
        })
        .collect();
    // Its checks say nothing.
    until("a client reaches it", || {
        (next(&words) == "client").then_some(())
    });
    drop(clients);
}

#[test]
fn server_that_accepts_but_does_not_answer_is_taken_out() {
    for kind in [
        "kind = \"tcp\", send = \"PING\\r\\n\", expect = \"PONG\"",
        "kind = \"http\"",
    ] {
        let good = backend::start();
        // The kernel accepts for it.
        let hanging = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = hanging.local_addr().unwrap();
        let health = format!("{kind}, interval = \"200ms\", fall = 2");
        let coracle = Coracle::start(&config(&[at, good], &health));
        until("it is down", || {
            let log = coracle.log();
            let found = log.iter().find(|line| {
                line.contains("server is down: ") && line.contains(&format!("server={at}"))
            });
            found.map(|line| {
                let reason = "2 checks in a row failed: no answer within 100ms";
                assert!(line.contains(reason), "{line}");
            })
        });
    }
}

#[test]
fn silent_servers_delay_no_checks_of_others() {
    // This process has ten descriptors of each.
    let _ = coracle::sys::descriptors::raise_limit();
    let silent: Vec<_> = (0..200).map(|_| Silent::start()).collect();
    let refusing: Vec<_> = (0..5).map(|_| bound_but_not_listening()).collect();
    let address = |it: &Socket| it.local_addr().unwrap().as_socket().unwrap();
    let refusing_at: Vec<_> = refusing.iter().map(address).collect();
    let servers: Vec<_> = silent.iter().map(|it| it.address).collect();
    let servers = [servers, refusing_at.clone()].concat();
    let coracle = Coracle::start(&config(&servers, &format!("kind = \"tcp\", {ONCE}")));
    // The others hang for an hour.
    until("the five are down", || {
        (checks(&coracle) == 5.0).then_some(())
    });
    let log = coracle.log();
    for server in refusing_at {
        let is_down = |line: &&String| {
            line.contains("server is down: 1 check failed: connect: connection refused")
                && line.contains(&format!("server={server}"))
        };
        assert_eq!(log.iter().filter(is_down).count(), 1, "{log:#?}");
    }
}

/// A server that passes on what each connection sends first, in order, and answers it.
fn listening() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    (listener.local_addr().unwrap(), serve(listener))
}

/// What the server's next connection sends.
fn next(words: &Receiver<String>) -> String {
    words.recv_timeout(support::DEADLINE).unwrap()
}

fn serve(listener: TcpListener) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut word = [0; 256];
            let n = stream.read(&mut word).unwrap_or(0);
            let _ = stream.write_all(b"OK");
            let word = String::from_utf8_lossy(&word[..n]).into_owned();
            if tell.send(word).is_err() {
                break;
            }
        }
    });
    told
}

#[test]
fn reload_keeps_changes_and_removes_checks() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let (server, words) = listening();
    let with = |send: &str, expect: &str, more: &str| {
        let kind = format!("kind = \"tcp\", send = \"{send}\", expect = \"{expect}\", {ONCE}");
        reloadable(
            admin,
            listen,
            &format!("{}{more}", config(&[server], &kind)),
        )
    };
    let coracle = Coracle::start(&with("one", "OK", ""));
    assert_eq!(next(&words), "one");
    // The settings stay: it is not checked again, although something else has changed.
    assert!(coracle.reload(&with("one", "OK", "[log]\nlevel = \"debug\"\n")));
    let mut client = TcpStream::connect(listen).unwrap();
    client.write_all(b"client").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(next(&words), "client");
    // They change: it is checked at once.
    assert!(coracle.reload(&with("two", "NO", "")));
    assert_eq!(next(&words), "two");
    coracle.logged("server is down: 1 check failed: the answer does not contain");
    is_up(&coracle, server, 0.0);
    // The checks go, and what they have said is forgotten.
    let without = with_servers(&format!("\"{server}\""), "");
    assert!(coracle.reload(&reloadable(admin, listen, &without)));
    coracle.logged("server is up: it is no longer checked");
    is_up(&coracle, server, 1.0);
}

#[test]
fn name_that_moves_to_another_address_is_checked_there() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let (one, two) = (listening(), listening());
    let with = |server: SocketAddr| {
        let server = format!("{{ address = \"{server}\", name = \"x\" }}");
        let health = format!("health = {{ kind = \"tcp\", send = \"check\", {ONCE} }}");
        reloadable(admin, listen, &with_servers(&server, &health))
    };
    let coracle = Coracle::start(&with(one.0));
    assert_eq!(next(&one.1), "check");
    assert!(coracle.reload(&with(two.0)));
    assert_eq!(next(&two.1), "check");
    let mut client = TcpStream::connect(listen).unwrap();
    client.write_all(b"client").unwrap();
    assert_eq!(next(&two.1), "client");
}

#[test]
fn checks_are_no_connections() {
    let (server, words) = listening();
    let health = format!("kind = \"http\", path = \"/up\", {ONCE}");
    let coracle = Coracle::start(&config(&[server], &health));
    let request = next(&words);
    assert!(
        request.starts_with(&format!("GET /up HTTP/1.1\r\nHost: {server}\r\n")),
        "{request}"
    );
    until("the check is over", || {
        (checks(&coracle) == 1.0).then_some(())
    });
    let metrics = scrape(coracle.admin);
    for name in [
        "coracle_connections_opened_total",
        "coracle_service_open_connections",
        "coracle_connect_duration_seconds_count",
        "coracle_connect_errors_total",
    ] {
        assert_eq!(metrics.sum(name), 0.0, "{name}");
    }
    assert_eq!(metrics.sum("coracle_server_check_failures_total"), 1.0);
}

#[test]
fn other_port_is_checked() {
    let server = backend::start();
    let (beside, words) = listening();
    let port = beside.port();
    let health = format!("kind = \"tcp\", send = \"there?\", port = {port}, {ONCE}");
    let coracle = Coracle::start(&config(&[server], &health));
    assert_eq!(next(&words), "there?");
    drop(hold(coracle.address("e")));
}

#[test]
fn name_that_does_not_resolve_takes_the_server_down() {
    let health = format!("health = {{ kind = \"tcp\", {ONCE} }}");
    let coracle = Coracle::start(&with_servers("\"no-such-host.invalid:1\"", &health));
    coracle.logged("server is down: 1 check failed: cannot resolve the name: ");
}

#[test]
fn lack_of_ports_takes_no_server_down() {
    let setup = "sysctl -qw net.ipv4.ip_local_port_range='40000 40000'";
    if !namespace::enter("health::lack_of_ports_takes_no_server_down", setup) {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 5001)).unwrap();
    let server = listener.local_addr().unwrap();
    // It has the only port towards the server.
    let only = TcpStream::connect(server).unwrap();
    let health = format!("kind = \"tcp\", send = \"check\", {ONCE}");
    let config = config(&[server], &health).replace("127.0.0.1:0", "127.0.0.3:5000");
    let admin = "[admin]\nlisten = \"127.0.0.3:5002\"\nsocket = \"off\"\n";
    let coracle = Coracle::start(&format!("{config}{admin}"));
    coracle.logged("cannot check servers, retrying: connect: ");
    // A reset leaves nothing behind in the kernel.
    backend::reset_on_close(&only);
    drop(only);
    let words = serve(listener);
    until("it is checked", || (next(&words) == "check").then_some(()));
    let down = |line: &String| line.contains("server is down");
    assert!(!coracle.log().iter().any(down), "{:#?}", coracle.log());
}

#[test]
fn no_more_checks_run_at_once_than_there_are_descriptors_for() {
    // The kernel accepts for them, and they never answer.
    let hanging: Vec<_> = (0..50)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let addresses = hanging.iter().map(|it| it.local_addr().unwrap());
    let servers: Vec<_> = addresses.collect();
    let health = format!("kind = \"tcp\", expect = \"hello\", {ONCE}");
    let coracle = Coracle::start_with(&Start {
        config: &config(&servers, &health),
        descriptors: Some(160),
    });
    let running = || {
        let ports: BTreeSet<u16> = servers.iter().map(SocketAddr::port).collect();
        let sockets = support::kernel::tcp_sockets();
        let checks = sockets.iter().filter(|it| ports.contains(&it.remote_port));
        checks.count()
    };
    until("a quarter of the descriptors is in use", || {
        (running() == 40).then_some(())
    });
    for _ in 0..5 {
        // The loop has gone round.
        let _ = scrape(coracle.admin);
        assert_eq!(running(), 40);
    }
    // Each that is over makes room for the next.
    for (over, listener) in hanging.into_iter().enumerate() {
        drop(listener);
        let expected = 40.min(servers.len() - over - 1);
        until("the next one is checked", || {
            (running() == expected).then_some(())
        });
    }
}
