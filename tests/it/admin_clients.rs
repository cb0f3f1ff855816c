//! The admin endpoint's limits: on time, on clients, and on what one client can do to others.
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use coracle::admin::ClientLimits;
use socket2::{Domain, Socket, Type};

use crate::support;
use crate::support::DEADLINE;
use crate::support::admin::{Admin, PATIENT};
use crate::support::http::{Client, get, http};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn unfinished_request_times_out_with_408_and_idle_connection_closes_silently() {
    let limits = ClientLimits {
        request: SHORT,
        ..PATIENT
    };
    let admin = Admin::start(limits);
    for unfinished in [
        "G",
        "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc",
    ] {
        let mut client = Client::connect(admin.address);
        client.send(unfinished);
        let answer = client.answer();
        assert_eq!(answer.status, 408);
        assert_eq!(answer.headers.value("connection"), Some("close"));
        client.expect_end();
    }
    let limits = ClientLimits {
        request: SHORT,
        idle: SHORT,
        ..PATIENT
    };
    let admin = Admin::start(limits);
    let mut never_said_anything = Client::connect(admin.address);
    // If this thread stalls beyond the limit, its request is late and it tries again.
    let answer = support::until("a response to a request within its time", || {
        let mut stream = TcpStream::connect(admin.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
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
fn client_that_does_not_read_is_dropped() {
    let limits = ClientLimits {
        clients: 1,
        answer: SHORT,
        ..PATIENT
    };
    // One response exceeds the kernel's buffers.
    let names = (0..2000).map(|n| format!("entrypoint-{n}")).collect();
    let admin = Admin::with_entrypoints(limits, names);
    let mut client = ask_and_stop(&admin);
    // Another client takes its place before it has read anything.
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
fn clients_that_stall_after_one_byte_do_not_lock_out_others() {
    // No time limit ends them.
    let admin = Admin::start(PATIENT);
    let stopped: Vec<_> = (0..200)
        .map(|_| {
            let mut client = Client::connect(admin.address);
            client.send("G");
            client
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(get(admin.address, "/healthz").0, 200);
    }
    drop(stopped);
}

#[test]
fn one_unfinished_request_yields_to_the_next_client_and_the_rest_are_served() {
    let admin = Admin::start(PATIENT);
    let mut unfinished: Vec<_> = (0..PATIENT.clients)
        .map(|_| {
            let mut client = Client::connect(admin.address);
            assert_eq!(client.get("/healthz").status, 200);
            client.send("GET /healthz HTTP/1.1\r\n");
            client
        })
        .collect();
    admin.settle();
    let mut next = Client::connect(admin.address);
    assert_eq!(next.get("/healthz").status, 200);
    let mut ended = 0;
    for client in &mut unfinished {
        // It may have been reset in between.
        let _ = client.stream().write_all(b"Host: localhost\r\n\r\n");
        match client.stream().read(&mut [0; 1024]) {
            Ok(0) | Err(_) => ended += 1,
            Ok(_) => {}
        }
    }
    assert_eq!(ended, 1);
}

/// A client that requests a response larger than the kernel's buffers and does not read it.
fn ask_and_stop(admin: &Admin) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&admin.address.into()).unwrap();
    let mut client = Client::over(TcpStream::from(socket));
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client
}

#[test]
fn clients_that_do_not_read_yield_their_memory_to_the_next_response() {
    let limits = ClientLimits {
        clients: 2,
        patience: SHORT,
        ..PATIENT
    };
    let names = (0..2000).map(|n| format!("entrypoint-{n}")).collect();
    let admin = Admin::with_entrypoints(limits, names);
    // The second may share the first's response, or wait until that has been read.
    let _stopped = [ask_and_stop(&admin), ask_and_stop(&admin)];
    for _ in 0..3 {
        assert_eq!(get(admin.address, "/healthz").0, 200);
    }
    let limits = ClientLimits {
        answer: SHORT,
        ..PATIENT
    };
    let names = (0..2000).map(|n| format!("entrypoint-{n}")).collect();
    let admin = Admin::with_entrypoints(limits, names);
    let _stopped: Vec<_> = (0..8).map(|_| ask_and_stop(&admin)).collect();
    // A client that waits for its own response has as long as the others take to read.
    let answer = support::until("a response read within its time", || {
        let mut stream = TcpStream::connect(admin.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.contains("process_threads ").then_some(answer)
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..80]);
}

#[test]
fn concurrent_requests_share_one_scrape() {
    const ASKERS: usize = 16;
    let admin = Admin::start(PATIENT);
    let mut clients: Vec<_> = (0..ASKERS)
        .map(|_| Client::connect(admin.address))
        .collect();
    // Each snapshot of the state differs.
    admin.with(|world| {
        let entrypoint = world.entrypoints[0].clone();
        let counting = async move {
            loop {
                entrypoint.counters.opened.increment();
                smol::future::yield_now().await;
            }
        };
        world.executor.spawn(counting).detach();
    });
    support::until("a scrape shared by all requests", || {
        for client in &mut clients {
            client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let bodies: BTreeSet<_> = clients
            .iter_mut()
            .map(|client| client.answer().body)
            .collect();
        (bodies.len() == 1).then_some(())
    });
    // A request after another's response gets a later snapshot.
    let first = clients[0].get("/metrics").body;
    assert_ne!(clients[1].get("/metrics").body, first);
}

#[test]
fn hung_loop_is_reported_and_does_not_hang_the_endpoint() {
    let limits = ClientLimits {
        silence: SHORT,
        answer: SHORT,
        ..PATIENT
    };
    let admin = Admin::start(limits);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (hangs, is_hanging) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            admin.with(move |_| {
                hangs.send(()).unwrap();
                let _ = released.recv();
            });
        });
        is_hanging.recv().unwrap();
        for path in ["/healthz", "/readyz", "/metrics", "/api/v1/agreement"] {
            let (status, _, body) = get(admin.address, path);
            assert_eq!(status, 503, "{path}");
            assert_eq!(body, "the loop that moves data does not answer\n", "{path}");
        }
        assert_eq!(get(admin.address, "/").0, 200);
        drop(release);
    });
    support::until("it answers again", || {
        (get(admin.address, "/healthz").0 == 200).then_some(())
    });
}

#[test]
fn host_of_a_web_page_is_refused() {
    let admin = Admin::start(PATIENT);
    let status = |request: &str| {
        let (status, _, body) = http(admin.address, request);
        (status, body)
    };
    let (refused, why) =
        status("GET /api/v1/agreement HTTP/1.1\r\nHost: evil.example:2672\r\n\r\n");
    assert_eq!(refused, 421);
    assert!(
        why.contains("add hosts = [\"evil.example\"] to [admin]"),
        "{why}"
    );
    for request in [
        "GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n",
        "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ] {
        assert_eq!(status(request).0, 421, "{request}");
    }
    let own = rustix::system::uname()
        .nodename()
        .to_str()
        .unwrap()
        .to_owned();
    for request in [
        "GET /healthz HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address),
        format!("GET /healthz HTTP/1.1\r\nHost: {own}:2672\r\n\r\n"),
        "GET http://[::1]:1/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: listed.example\r\n\r\n".to_owned(),
    ] {
        assert_eq!(status(&request).0, 200, "{request}");
    }
}

#[test]
fn idle_clients_make_room_one_at_a_time() {
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
    // The longest idle client is gone; the others are still served.
    idle.remove(0).expect_end();
    for client in &mut idle {
        assert_eq!(client.get("/healthz").status, 200);
    }
}

#[test]
fn dropping_the_endpoint_disconnects_its_clients() {
    let admin = Admin::start(PATIENT);
    let mut idle = Client::connect(admin.address);
    assert_eq!(idle.get("/").status, 200);
    let mut busy = Client::connect(admin.address);
    assert_eq!(busy.get("/").status, 200);
    busy.send("GET");
    admin.with(|world| drop(world.endpoint.take()));
    idle.expect_end();
    // What it sent may or may not have been read.
    let end = busy.stream().read(&mut [0]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    let refused = || TcpStream::connect_timeout(&admin.address, DEADLINE).err();
    support::until("the listener is closed", refused);
}
