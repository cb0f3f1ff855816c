//! One health check over a real socket: what it finds out, and how it leaves the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use coracle::net::{Check, Expect, Expression, Failure, Limit, Reactor, To, probe};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support;
use crate::support::backend::{Silent, bound_but_not_listening};
use crate::support::namespace;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// For checks that are to run into their timeout.
const SHORT: Duration = Duration::from_millis(100);

fn connecting() -> Check {
    Check::Tcp {
        send: Vec::new(),
        expect: None,
    }
}

fn asking(send: &str, expect: Expect) -> Check {
    Check::Tcp {
        send: send.into(),
        expect: Some(expect),
    }
}

fn pong() -> Check {
    asking("PING\r\n", Expect::Bytes(b"+PONG".to_vec()))
}

fn http() -> Check {
    Check::http("/healthz", "example.org", 200..=399)
}

/// Runs one check to its end.
fn checked(to: To<'_>, check: &Check, timeout: Duration) -> Result<(), Failure> {
    let reactor = Reactor::new().unwrap();
    reactor.block_on(async {
        let probed = probe(&reactor, to, None, check, limit(&reactor, timeout)).await;
        if let Some(leaving) = probed.leaving {
            leaving.leave().await;
        }
        probed.outcome
    })
}

fn limit(reactor: &Rc<Reactor>, timeout: Duration) -> Limit {
    Limit {
        deadline: reactor.now() + timeout,
        timeout,
    }
}

fn good(to: SocketAddr, check: &Check) {
    let outcome = checked(To::Tcp(&[to.ip()], to.port()), check, support::DEADLINE);
    assert_eq!(outcome, Ok(()));
}

fn why(to: SocketAddr, check: &Check, timeout: Duration) -> String {
    text(checked(To::Tcp(&[to.ip()], to.port()), check, timeout))
}

fn text(outcome: Result<(), Failure>) -> String {
    match outcome {
        Err(Failure::Server(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// A server that serves one connection, and what it returns.
fn once<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind((V4, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        serve(stream)
    });
    (address, thread)
}

/// A server that reads a request up to its last bytes, answers, and then reads to the end. Returns
/// the request, and how the connection ended.
fn answering(
    end: &'static str,
    answer: Vec<u8>,
) -> (SocketAddr, JoinHandle<(String, std::io::Result<usize>)>) {
    once(move |mut stream| {
        let mut request = Vec::new();
        while !request.ends_with(end.as_bytes()) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let written = stream.write_all(&answer);
        let ended = written.and_then(|()| stream.read(&mut [0]));
        (String::from_utf8(request).unwrap(), ended)
    })
}

#[test]
fn connection_is_enough_if_nothing_is_asked() {
    let (to, server) = once(|mut stream| stream.read(&mut [0]));
    good(to, &connecting());
    assert_eq!(server.join().unwrap().unwrap(), 0, "an ordinary end");
}

#[test]
fn refused_and_silent_servers_are_told_apart() {
    let refusing = bound_but_not_listening();
    let to = refusing.local_addr().unwrap().as_socket().unwrap();
    let refused = why(to, &connecting(), support::DEADLINE);
    assert_eq!(refused, "connect: connection refused");
    let silent = why(Silent::start().address, &connecting(), SHORT);
    assert_eq!(silent, "connect: no answer within 100ms");
}

#[test]
fn every_address_of_a_name_is_tried() {
    let (to, server) = once(drop);
    let to = To::Tcp(&[V6, V4], to.port());
    assert_eq!(checked(to, &connecting(), support::DEADLINE), Ok(()));
    server.join().unwrap();
}

#[test]
fn expected_answer_is_awaited() {
    let (to, server) = answering("PING\r\n", b"+PONG\r\n".to_vec());
    good(to, &pong());
    let (request, ended) = server.join().unwrap();
    assert_eq!((request.as_str(), ended.unwrap()), ("PING\r\n", 0));

    let (to, _server) = once(|mut stream| {
        stream.write_all(b"-NOAUTH\r\n").unwrap();
        stream.read_exact(&mut [0; 6]).unwrap();
    });
    let wrong = why(to, &pong(), support::DEADLINE);
    assert_eq!(wrong, r"the answer does not contain `+PONG`: `-NOAUTH\r\n`");

    let greeting = Expect::Match(Expression::new("^SSH-[12]").unwrap());
    let (to, _server) = answering("", b"SSH-2.0-example\r\n".to_vec());
    good(to, &asking("", greeting));
}

#[test]
fn server_that_accepts_but_does_not_answer_is_found_out() {
    // The kernel accepts for it.
    let listener = TcpListener::bind((V4, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    assert_eq!(why(to, &pong(), SHORT), "no answer within 100ms");
    assert_eq!(why(to, &http(), SHORT), "no answer within 100ms");
    let (to, _server) = once(|mut stream| {
        stream.read_exact(&mut [0; 6]).unwrap();
    });
    let closed = why(to, &pong(), support::DEADLINE);
    assert_eq!(closed, "the server closed the connection without an answer");
}

#[test]
fn http_status_decides() {
    let answer = |text: &str| answering("\r\n\r\n", text.as_bytes().to_vec());
    let (to, server) = answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    good(to, &http());
    let (request, ended) = server.join().unwrap();
    assert!(
        request.starts_with("GET /healthz HTTP/1.1\r\nHost: example.org\r\n"),
        "{request}"
    );
    assert_eq!(ended.unwrap(), 0);
    let (to, _server) = answer("HTTP/1.1 503 Service Unavailable\r\n\r\n");
    assert_eq!(why(to, &http(), support::DEADLINE), "HTTP status 503");
    let (to, _server) = answer("220 mail.example.org ESMTP\r\n");
    let other = why(to, &http(), support::DEADLINE);
    assert_eq!(
        other,
        r"the answer is not HTTP: `220 mail.example.org ESMTP\r\n`"
    );
}

#[test]
fn endless_answer_is_read_to_a_limit() {
    let (to, _server) = once(|mut stream| while stream.write_all(&[b'x'; 1024]).is_ok() {});
    let wrong = why(to, &pong(), support::DEADLINE);
    assert!(wrong.ends_with("xxxxx...`"), "{wrong}");
}

#[test]
fn server_that_still_sends_sees_an_ordinary_end() {
    // A page of 40 kB, of which only the first line matters.
    let mut page = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    page.resize(40_000, b'x');
    let (to, server) = answering("\r\n\r\n", page);
    good(to, &http());
    assert_eq!(server.join().unwrap().1.unwrap(), 0);
}

#[test]
fn unix_sockets_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let missing = text(checked(To::Unix(&path), &connecting(), support::DEADLINE));
    assert_eq!(missing, "connect: no such file or directory");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"+PONG").unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    });
    assert_eq!(checked(To::Unix(&path), &pong(), support::DEADLINE), Ok(()));
    assert_eq!(serving.join().unwrap(), "PING\r\n");
}

#[test]
fn full_backlog_of_a_unix_socket_is_awaited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let full = text(checked(To::Unix(&path), &connecting(), SHORT));
    assert_eq!(full, "connect: the server's backlog is full");
    // With room it goes on.
    let accepting = std::thread::spawn(move || {
        let first = socket.accept().unwrap();
        (first, socket.accept().unwrap())
    });
    let outcome = checked(To::Unix(&path), &connecting(), support::DEADLINE);
    assert_eq!(outcome, Ok(()));
    accepting.join().unwrap();
}

#[test]
fn connection_with_itself_is_no_server() {
    // The only local port is the one that is checked.
    let setup = "sysctl -qw net.ipv4.ip_local_port_range='40000 40000'";
    if !namespace::enter("probe::connection_with_itself_is_no_server", setup) {
        return;
    }
    let to = SocketAddr::new(V4, 40_000);
    let mut itself = TcpStream::connect(to).unwrap();
    itself.write_all(b"!").unwrap();
    itself.read_exact(&mut [0]).unwrap();
    support::backend::reset_on_close(&itself);
    drop(itself);
    let refused = why(to, &connecting(), support::DEADLINE);
    assert_eq!(refused, "connect: connection refused");
}

#[test]
fn shortage_of_ports_is_not_the_servers_failure() {
    let setup = "sysctl -qw net.ipv4.ip_local_port_range='40000 40000'";
    let name = "probe::shortage_of_ports_is_not_the_servers_failure";
    if !namespace::enter(name, setup) {
        return;
    }
    let server = TcpListener::bind((V4, 5001)).unwrap();
    let _only = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let outcome = checked(To::Tcp(&[V4], 5001), &connecting(), support::DEADLINE);
    assert!(matches!(outcome, Err(Failure::Lack(_))), "{outcome:?}");
}

#[test]
fn cut_check_ends_ordinarily_too() {
    let (to, server) = once(|mut stream| {
        stream.read_exact(&mut [0; 6]).unwrap();
        stream.read(&mut [0])
    });
    // It is dropped without waiting for the server, as by a reload.
    let reactor = Reactor::new().unwrap();
    let limit = limit(&reactor, SHORT);
    let probed = reactor.block_on(probe(
        &reactor,
        To::Tcp(&[V4], to.port()),
        None,
        &pong(),
        limit,
    ));
    drop(probed);
    let ended = server.join().unwrap();
    assert_ne!(
        ended.as_ref().map_err(std::io::Error::kind),
        Err(ErrorKind::ConnectionReset)
    );
    assert_eq!(ended.unwrap(), 0);
}
