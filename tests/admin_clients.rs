//! The admin endpoint's bounds: on time, on clients, on what one client can do to the others.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use coracle::admin::Limits;
use coracle::state::{Entrypoint, Guard, Peer, Protocol};
use socket2::{Domain, Socket, Type};
use support::DEADLINE;
use support::admin::{Admin, PATIENT};
use support::http::{Client, get};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn an_unfinished_request_is_told_so_and_an_idle_connection_is_not() {
    let limits = Limits {
        request: SHORT,
        ..PATIENT
    };
    let admin = Admin::start(limits);
    for unfinished in [
        "G",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    ] {
        let mut client = Client::connect(admin.address);
        client.send(unfinished);
        let answer = client.answer();
        assert_eq!(answer.status, 408);
        assert_eq!(answer.headers.value("connection"), Some("close"));
        client.expect_end();
    }
    let limits = Limits {
        request: SHORT,
        idle: SHORT,
        ..PATIENT
    };
    let admin = Admin::start(limits);
    let mut never_said_anything = Client::connect(admin.address);
    // Where this thread stalls for longer than the limit, it comes too late with its request, and tries again.
    let answer = support::until("an answer to a request that is in time", || {
        let mut stream = TcpStream::connect(admin.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        let length = stream.read_to_string(&mut answer).ok()?;
        (length > 0).then_some(answer)
    });
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    never_said_anything.expect_end();
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let limits = Limits {
        clients: 1,
        answer: SHORT,
        ..PATIENT
    };
    // One answer is more than the kernel's buffers take.
    let names = (0..2000).map(|n| format!("entrypoint-{n}")).collect();
    let admin = Admin::with_entrypoints(limits, names);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&admin.address.into()).unwrap();
    let mut client = Client::over(TcpStream::from(socket));
    client.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    // Somebody else gets its place without its having read anything.
    assert_eq!(get(admin.address, "/healthz").0, 200);
    let head = client.answer_to_head();
    let length: usize = head
        .headers
        .value("content-length")
        .unwrap()
        .parse()
        .unwrap();
    let mut received = Vec::new();
    let end = client.stream().read_to_end(&mut received);
    assert!(end.is_ok() || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    assert!(received.len() < length, "{} of {length}", received.len());
}

#[test]
fn all_places_taken_by_busy_clients_lets_the_next_wait() {
    let admin = Admin::start(PATIENT);
    let mut busy: Vec<_> = (0..PATIENT.clients)
        .map(|_| {
            let mut client = Client::connect(admin.address);
            assert_eq!(client.get("/healthz").status, 200);
            client.send("GET /healthz HTTP/1.1\r\n");
            client
        })
        .collect();
    admin.settle();
    let mut next = Client::connect(admin.address);
    next.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    // Who is done while others wait may not stay; the answer that says so comes once the endpoint knows that somebody waits. Until
    // then a next request has begun with each end of one, so that this client is never idle, and would go without a word.
    let mut leaving = busy.remove(7);
    support::until("a client that is done has to leave", || {
        assert!(!next.has_received(), "served beyond the limit");
        leaving.send("Host: a\r\n\r\nGET /healthz HTTP/1.1\r\n");
        let answer = leaving.answer();
        assert_eq!(answer.body, "ok\n");
        (answer.headers.value("connection") == Some("close")).then_some(())
    });
    drop(leaving);
    assert_eq!(next.answer().body, "ok\n");
    for client in &mut busy {
        client.send("Host: a\r\n\r\n");
        assert_eq!(client.answer().body, "ok\n");
    }
}

#[test]
fn idle_clients_make_room_one_for_one() {
    let admin = Admin::start(PATIENT);
    let mut idle: Vec<_> = (0..PATIENT.clients)
        .map(|_| {
            let mut client = Client::connect(admin.address);
            assert_eq!(client.get("/healthz").status, 200);
            client
        })
        .collect();
    admin.settle();
    let mut next = Client::connect(admin.address);
    assert_eq!(next.get("/healthz").status, 200);
    // The one that was idle for the longest has gone; the others are still served.
    idle.remove(0).expect_end();
    for client in &mut idle {
        assert_eq!(client.get("/healthz").status, 200);
    }
}

#[test]
fn a_bug_in_one_answer_does_not_end_the_endpoint() {
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        let stray = Entrypoint::new(99, "an index that no entrypoint has", Protocol::Tcp).into();
        let service = &world.shared.services[0];
        let guard = Guard::insert(
            &world.shared.conns,
            &stray,
            service,
            Peer::Unix,
            Instant::now(),
        );
        world.guards.push(guard);
    });
    let mut client = Client::connect(admin.address);
    client.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_end();
    assert_eq!(get(admin.address, "/healthz").0, 200);
    admin.with(|world| world.guards.clear());
    assert_eq!(get(admin.address, "/metrics").0, 200);
}

#[test]
fn dropping_the_endpoint_ends_its_clients() {
    let admin = Admin::start(PATIENT);
    let mut idle = Client::connect(admin.address);
    assert_eq!(idle.get("/").status, 200);
    let mut busy = Client::connect(admin.address);
    assert_eq!(busy.get("/").status, 200);
    busy.send("GET");
    admin.with(|world| drop(world.endpoint.take()));
    idle.expect_end();
    // What it had sent may have been read or not.
    let end = busy.stream().read(&mut [0]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    let refused = || TcpStream::connect_timeout(&admin.address, DEADLINE).err();
    support::until("the listener is closed", refused);
}
