//! Limits of the bandwidth, over real sockets. How fast connections are at most is shown by what
//! coracle counts itself: how long they were open.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;

use serde_json::Value;

use crate::support::backend::{self, Script};
use crate::support::clients::connect_from;
use crate::support::http::get;
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::Coracle;
use crate::support::until;

const LIMITED: &str = "coracle_bandwidth_limited_seconds_total";

/// Connects as the client 127.0.0.`host`.
fn connect(to: SocketAddr, host: u8) -> TcpStream {
    connect_from(Ipv4Addr::new(127, 0, 0, host), to).unwrap()
}

/// Has the server send `n` bytes over a connection that begins with `preface`, and reads to the end.
fn fetch(mut stream: TcpStream, preface: &str, n: u64) {
    stream.write_all(preface.as_bytes()).unwrap();
    stream.write_all(&Script::SendAndClose.request(n)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len() as u64, n);
}

/// Runs these, each in a thread.
fn at_once(all: Vec<Box<dyn FnOnce() + Send>>) {
    let all: Vec<_> = all.into_iter().map(thread::spawn).collect();
    all.into_iter().for_each(|it| it.join().unwrap());
}

/// An entrypoint `e` with these keys.
fn config(to: SocketAddr, keys: &str) -> String {
    format!("[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n{keys}\n")
}

/// The numbers once no connection is open.
fn at_rest(admin: SocketAddr) -> Metrics {
    until("all connections have left", || {
        let metrics = scrape(admin);
        (metrics.sum("coracle_open_connections") == 0.0).then_some(metrics)
    })
}

/// How long connections were open, all together.
fn duration(metrics: &Metrics) -> f64 {
    metrics.sum("coracle_connection_duration_seconds_sum")
}

fn state_of(admin: SocketAddr) -> Option<String> {
    let (_, _, body) = get(admin, "/api/v1/connections");
    let body: Value = serde_json::from_str(&body).unwrap();
    let state = body["connections"][0]["state"].as_str();
    state.map(str::to_owned)
}

#[test]
fn a_connection_has_its_rate_in_each_direction() {
    let to = backend::start();
    let way = "bandwidth_per_connection = { to_client = \"1MiB/s\", burst = \"32KiB\" }";
    let coracle = Coracle::start(&config(to, way));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    fetch(connect(address, 1), "", 2 << 20);
    let metrics = at_rest(admin);
    let down = duration(&metrics);
    assert!(down >= (2.0 * 1024.0 - 32.0) / 1024.0, "{down} s");
    let waited = metrics.sum_where(LIMITED, "limit=\"connection\"");
    assert!(waited > 0.5 && metrics.sum(LIMITED) == waited, "{waited} s");
    // The other direction is as fast as it can be, and each connection has a rate of its own.
    let way = "bandwidth_per_connection = { to_server = \"1MiB/s\", burst = \"32KiB\" }";
    let admin_table = format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n");
    assert!(coracle.reload(&format!("{}{admin_table}", config(to, way))));
    let address = coracle.address("e");
    let upload = move || {
        let mut stream = connect(address, 1);
        let request = Script::AnswerAfterEnd.request(1 << 20);
        stream.write_all(&request).unwrap();
        stream.write_all(&vec![7; 2 << 20]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), 1 << 20);
    };
    at_once(vec![Box::new(upload), Box::new(upload)]);
    let up = duration(&at_rest(admin)) - down;
    assert!(up >= 2.0 * (2.0 * 1024.0 - 32.0) / 1024.0, "{up} s");
}

#[test]
fn connections_of_a_client_share_its_rate_whatever_proxy_they_come_through() {
    let to = backend::start();
    let keys = "bandwidth_per_client = { to_client = \"128KiB/s\", burst = \"16KiB\" }\n\
                accept_proxy = true\ntrusted = [\"127.0.0.0/8\"]";
    let coracle = Coracle::start(&config(to, keys));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    let of_client = |client: &str, proxy: u8| {
        let header = format!("PROXY TCP4 {client} 10.0.0.1 1000 80\r\n");
        Box::new(move || fetch(connect(address, proxy), &header, 96 << 10))
            as Box<dyn FnOnce() + Send>
    };
    at_once(vec![of_client("10.0.0.2", 2), of_client("10.0.0.2", 3)]);
    let metrics = at_rest(admin);
    // The second one ends when both have all.
    let shared = duration(&metrics);
    assert!(shared >= (2.0 * 96.0 - 16.0) / 128.0, "{shared} s");
    let waited = metrics.sum_where(LIMITED, "limit=\"client\"");
    assert!(waited > 0.5 && metrics.sum(LIMITED) == waited, "{waited} s");
}

#[test]
fn connections_to_a_service_share_its_rate_and_each_gets_through() {
    let to = backend::start();
    let mut text = String::new();
    for name in ["e", "f"] {
        let listen = "listen = \"127.0.0.1:0\"\nservice = \"s\"";
        writeln!(text, "[entrypoints.{name}]\n{listen}").unwrap();
    }
    let service = "bandwidth = { to_client = \"512KiB/s\", burst = \"16KiB\" }";
    writeln!(text, "[services.s]\nservers = [\"{to}\"]\n{service}").unwrap();
    let coracle = Coracle::start(&text);
    let admin = coracle.admin;
    let from = |entrypoint: &str, host: u8| {
        let address = coracle.address(entrypoint);
        Box::new(move || fetch(connect(address, host), "", 128 << 10)) as Box<dyn FnOnce() + Send>
    };
    at_once(
        (1..=8)
            .map(|n| from(if n % 2 == 0 { "e" } else { "f" }, n))
            .collect(),
    );
    let metrics = at_rest(admin);
    // The one that ends last took as long as all the bytes.
    let all = duration(&metrics);
    assert!(all >= (8.0 * 128.0 - 16.0) / 512.0, "{all} s");
    let waited = metrics.sum_where(LIMITED, "limit=\"service\"");
    assert!(waited > 0.5 && metrics.sum(LIMITED) == waited, "{waited} s");
}

#[test]
fn service_that_a_rule_chooses_limits_its_connections() {
    let to = backend::start();
    // The first byte of the request is the script.
    let script = Script::SendAndClose as u8;
    let config = |bandwidth: &str| {
        format!(
            "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"fast\"\n\
             routes = [{{ from = \"127.0.0.2\", starts_with = \"hex:{script:02x}\", service = \"slow\" }}]\n\
             [services.fast]\nservers = [\"{to}\"]\n\
             [services.slow]\nservers = [\"{to}\"]\n{bandwidth}\n"
        )
    };
    let limit = "bandwidth = { to_client = \"512KiB/s\", burst = \"16KiB\" }";
    let coracle = Coracle::start(&config(limit));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    // By the default.
    fetch(connect(address, 1), "", 1 << 20);
    let metrics = at_rest(admin);
    assert_eq!(metrics.sum(LIMITED), 0.0);
    let unlimited = duration(&metrics);
    // By the rule: two connections share the rate.
    let chosen = || Box::new(move || fetch(connect(address, 2), "", 256 << 10)) as Box<_>;
    at_once(vec![chosen(), chosen()]);
    let metrics = at_rest(admin);
    let shared = duration(&metrics) - unlimited;
    assert!(shared >= (2.0 * 256.0 - 16.0) / 512.0, "{shared} s");
    let waited = metrics.sum_where(LIMITED, "limit=\"service\"");
    assert!(waited > 0.5 && metrics.sum(LIMITED) == waited, "{waited} s");
}

/// A connection that gets 1 KiB of 64 MiB each second, and waits. The kernel's buffers hold less.
fn crawl(address: SocketAddr, admin: SocketAddr) -> TcpStream {
    let mut stream = connect(address, 1);
    stream
        .write_all(&Script::SendAndClose.request(64 << 20))
        .unwrap();
    stream.read_exact(&mut [0; 512]).unwrap();
    until("it waits", || {
        (state_of(admin).as_deref() == Some("limited")).then_some(())
    });
    stream
}

const CRAWL: &str = "bandwidth_per_connection = { to_client = \"1KiB/s\", burst = \"1KiB\" }";

#[test]
fn a_client_that_resets_while_its_bytes_wait_is_noticed() {
    let to = backend::start();
    let coracle = Coracle::start(&config(to, CRAWL));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    let stream = crawl(address, admin);
    socket2::SockRef::from(&stream)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(stream);
    let metrics = at_rest(admin);
    let resets = metrics.sum_where(
        "coracle_connections_closed_total",
        "reason=\"client_reset\"",
    );
    assert_eq!(resets, 1.0);
}

#[test]
fn waiting_is_no_silence_and_can_be_killed() {
    let to = backend::start();
    // With pauses of four seconds.
    let crawls = CRAWL.replace("burst = \"1KiB\"", "burst = \"8KiB\"");
    let coracle = Coracle::start(&config(to, &format!("{crawls}\nidle_timeout = \"2s\"")));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    let mut stream = crawl(address, admin);
    stream.read_exact(&mut [0; 8 << 10]).unwrap();
    assert_eq!(state_of(admin).as_deref(), Some("limited"));
    assert!(
        crate::support::http::get(admin, "/api/v1/connections?state=limited")
            .2
            .contains("\"limited\"")
    );
    coracle.signal(rustix::process::Signal::TERM);
    coracle.signal(rustix::process::Signal::TERM);
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reload_frees_connections_that_wait() {
    let to = backend::start();
    let admin_table =
        |admin: SocketAddr| format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n");
    let coracle = Coracle::start(&config(to, CRAWL));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    let mut slow = crawl(address, admin);
    // At this rate it would take most of a day.
    let other = CRAWL.replace("1KiB", "1GiB");
    assert!(coracle.reload(&format!("{}{}", config(to, &other), admin_table(admin))));
    slow.read_exact(&mut vec![0; 1 << 20]).unwrap();
    assert!(coracle.reload(&format!("{}{}", config(to, ""), admin_table(admin))));
    slow.read_exact(&mut vec![0; 1 << 20]).unwrap();
    // And the other way round.
    assert!(coracle.reload(&format!("{}{}", config(to, CRAWL), admin_table(admin))));
    until("it waits again", || {
        // What is under way in the kernel is read first.
        slow.set_nonblocking(true).unwrap();
        while matches!(slow.read(&mut [0; 1 << 16]), Ok(1..)) {}
        (state_of(admin).as_deref() == Some("limited")).then_some(())
    });
}
