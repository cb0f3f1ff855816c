//! The admin endpoint with no descriptor left. The only test here: it takes all descriptors of the
//! process.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{DirEntry, File};
use std::net::{Shutdown, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use support::admin::{Admin, PATIENT};
use support::http::Client;
use support::metrics::Metrics;

#[test]
fn metrics_are_served_with_all_descriptors_taken() {
    // The parent process may have passed on descriptors beyond the limit set next.
    let names = std::fs::read_dir("/proc/self/fd").unwrap();
    let number = |entry: DirEntry| entry.file_name().to_str().unwrap().parse::<u64>().unwrap();
    let beyond = names
        .filter_map(Result::ok)
        .map(number)
        .filter(|n| *n >= 128)
        .count();
    let few = Rlimit {
        current: Some(128),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let admin = Admin::start(PATIENT);
    // Kept open, so that its descriptors are not freed later.
    let mut early = Client::connect(admin.address);
    assert!(Metrics::parse(&early.get("/metrics").body)["process_open_fds"] < 128.0);
    // This test's own ends need descriptors too, so they are made before the last one is taken.
    let sockets: Vec<_> = (0..6)
        .map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .collect();
    let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());

    let mut clients = sockets.into_iter().map(|socket| {
        socket.connect(&admin.address.into()).unwrap();
        Client::over(TcpStream::from(socket))
    });
    // One after another: each leaves the spare descriptor to the next. This side closes none of
    // them, since that would free a descriptor.
    let mut served = Vec::new();
    for mut client in clients.by_ref().take(3) {
        let answer = client.get("/metrics");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.value("connection"), Some("close"));
        let series = Metrics::parse(&answer.body);
        assert_eq!(series["process_open_fds"], 128.0 + beyond as f64);
        assert_eq!(series["process_max_fds"], 128.0);
        client.expect_end();
        client.stream().shutdown(Shutdown::Both).unwrap();
        served.push(client);
    }
    // Two at once: the first, whose request is incomplete, yields its descriptor to the second.
    let (mut first, mut second) = (clients.next().unwrap(), clients.next().unwrap());
    first.send("GET /healthz HTTP/1.1\r\n");
    assert_eq!(second.get("/healthz").body, "ok\n");
    first.expect_cut();
    for client in [&first, &second] {
        // The first may be gone entirely.
        let _ = client.stream().shutdown(Shutdown::Both);
    }

    // Earlier clients are still served, and once descriptors are free so is everyone.
    assert_eq!(early.get("/metrics").status, 200);
    drop(taken);
    let mut last = clients.next().unwrap();
    let of_last = support::until("keep-alive again", || {
        let answer = last.get("/healthz");
        if answer.headers.value("connection").is_some() {
            last = Client::connect(admin.address);
            return None;
        }
        Some(answer)
    });
    assert_eq!(of_last.body, "ok\n");
}
