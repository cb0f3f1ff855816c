//! The PROXY protocol: what servers get with `send_proxy`, by themselves and with the real HAProxy
//! and nginx.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use coracle::wire::proxy_header::{Client, Version};
use rustix::process::Signal;

use crate::support::fleet::{closed, service};
use crate::support::http;
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::program::Program;
use crate::support::{DEADLINE, backend, has_tool, lasting_address, rng, until};

const VERSIONS: [(&str, Version); 2] = [("v1", Version::V1), ("v2", Version::V2)];

/// The header of the connection of `client`.
fn header_of(version: Version, client: &TcpStream) -> Vec<u8> {
    version.header(Client::Tcp {
        source: client.local_addr().unwrap(),
        destination: client.peer_addr().unwrap(),
    })
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn accept(server: &TcpListener) -> TcpStream {
    let stream = server.accept().unwrap().0;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads as many bytes as are expected, and expects these.
fn expect(stream: &mut impl Read, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(
        bytes.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

/// A configuration whose entrypoint `e` sends the header to these servers.
fn sending(servers: &[SocketAddr], version: &str, more: &str) -> String {
    let servers: Vec<_> = servers.iter().map(|it| format!("\"{it}\"")).collect();
    service(&servers, &format!("send_proxy = \"{version}\"\n{more}"))
}

#[test]
fn the_header_comes_at_once_for_a_server_that_speaks_first() {
    for (word, version) in VERSIONS {
        let server = listener();
        let coracle = Coracle::start(&sending(&[server.local_addr().unwrap()], word, ""));
        let mut client = connect(coracle.address("e"));
        let mut accepted = accept(&server);
        expect(&mut accepted, &header_of(version, &client));
        accepted.write_all(b"220 hello").unwrap();
        expect(&mut client, b"220 hello");
        client.write_all(b"EHLO").unwrap();
        expect(&mut accepted, b"EHLO");
        drop(client);
        assert_eq!(accepted.read(&mut [0]).unwrap(), 0, "nothing follows");
        drop(accepted);
        // The header is none of the client's bytes.
        until("the connection ends", || {
            let metrics = scrape(coracle.admin);
            (closed(&metrics, "done") == 1.0).then(|| {
                let bytes = metrics.sum_where("coracle_bytes_total", "direction=\"to_server\"");
                assert_eq!(bytes, 4.0);
            })
        });
    }
}

#[test]
fn the_header_and_the_first_bytes_are_one_piece_and_come_once() {
    for (word, version) in VERSIONS {
        let server = listener();
        let at = server.local_addr().unwrap();
        let down = backend::bound_but_not_listening();
        let down = down.local_addr().unwrap().as_socket().unwrap();
        // Whichever is first, the servers that are down get their attempts before it.
        let coracle = Coracle::start(&sending(&[down, at], word, "max_fails = 0"));
        for _ in 0..4 {
            // It finds the bytes there when it goes on.
            coracle.pause();
            let mut client = connect(coracle.address("e"));
            client.write_all(b"hello").unwrap();
            coracle.signal(Signal::CONT);
            let mut accepted = accept(&server);
            let expected = [header_of(version, &client), b"hello".to_vec()].concat();
            let mut received = vec![0; 4096];
            let n = accepted.read(&mut received).unwrap();
            assert_eq!(received[..n], expected, "in one piece");
            let more = backend::pattern(100_000);
            thread::scope(|scope| {
                scope.spawn(|| client.write_all(&more).unwrap());
                expect(&mut accepted, &more);
            });
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(accepted.read(&mut [0]).unwrap(), 0, "nothing else");
        }
        let errors = scrape(coracle.admin).sum("coracle_connect_errors_total");
        assert!(errors > 0.0, "no server was down");
    }
}

#[test]
fn a_client_that_has_finished_gets_its_answer_behind_the_header() {
    let server = listener();
    let coracle = Coracle::start(&sending(&[server.local_addr().unwrap()], "v2", ""));
    let mut client = connect(coracle.address("e"));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut accepted = accept(&server);
    let mut received = Vec::new();
    accepted.read_to_end(&mut received).unwrap();
    assert_eq!(received, header_of(Version::V2, &client));
    accepted.write_all(b"bye").unwrap();
    drop(accepted);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"bye");
}

#[test]
fn unix_sockets_on_either_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (word, version) in VERSIONS {
        let server = UnixListener::bind(path(word)).unwrap();
        let entrance = path("in");
        let config = format!(
            "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
             [entrypoints.u]\nlisten = \"unix:{}\"\nservice = \"s\"\n\
             [services.s]\nservers = [\"unix:{}\"]\nsend_proxy = \"{word}\"\n",
            entrance.display(),
            path(word).display()
        );
        let coracle = Coracle::start(&config);
        let client = UnixStream::connect(&entrance).unwrap();
        let mut accepted = server.accept().unwrap().0;
        expect(&mut accepted, &version.header(Client::Unix));
        drop((client, accepted));
        let mut client = connect(coracle.address("e"));
        client.write_all(b"hello").unwrap();
        let mut accepted = server.accept().unwrap().0;
        let header = header_of(version, &client);
        expect(&mut accepted, &[&header[..], b"hello"].concat());
    }
}

#[test]
fn a_reload_changes_the_header_of_new_connections_and_checks() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let server = listener();
    let checked = listener();
    let health = format!(
        "[services.s.health]\ninterval = \"50ms\"\nport = {}\nsend = \"PING\"\n",
        checked.local_addr().unwrap().port()
    );
    let config = |send_proxy: &str| {
        let servers = [format!("\"{}\"", server.local_addr().unwrap())];
        let config = service(&servers, &format!("{send_proxy}\n{health}"));
        crate::support::fleet::reloadable(admin, listen, &config)
    };
    let coracle = Coracle::start(&config(""));
    for (word, version) in VERSIONS {
        assert!(coracle.reload(&config(&format!("send_proxy = \"{word}\""))));
        let client = connect(listen);
        expect(&mut accept(&server), &header_of(version, &client));
        // Checks from before the reload have no header, or that of the other version.
        let expected = [&version.header(Client::Local)[..], b"PING"].concat();
        until("a check has the header", || {
            let mut received = Vec::new();
            accept(&checked).read_to_end(&mut received).unwrap();
            (received == expected).then_some(())
        });
    }
    coracle.logged("send_proxy v2 instead of v1");
}

/// The addresses of a client and of what it has connected to, as the servers below print them.
fn as_printed(source: SocketAddr, destination: SocketAddr) -> String {
    let [from, to] = [source, destination].map(|it| format!("{} {}", it.ip(), it.port()));
    format!("{from} {to}")
}

/// Requests `/` over each address of the entrypoint, and expects an answer with the addresses of
/// the connection.
fn answers_name_their_clients(coracle: &Coracle, entrance: &Path) {
    for address in coracle.addresses("e") {
        let mut client = http::Client::connect(address);
        let expected = as_printed(
            client.stream().local_addr().unwrap(),
            client.stream().peer_addr().unwrap(),
        );
        assert_eq!(client.get("/").body.trim(), expected);
    }
    let mut client = UnixStream::connect(entrance).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
}

/// A coracle before an HTTP server on `port` that expects the header.
fn before(port: SocketAddr, version: &str, entrance: &Path) -> Coracle {
    Coracle::start(&format!(
        "[entrypoints.e]\nlisten = [\"{}:0\", \"[{}]:0\"]\nservice = \"s\"\n\
         [entrypoints.u]\nlisten = \"unix:{}\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"{port}\"]\nsend_proxy = \"{version}\"\n\
         [services.s.health]\nkind = \"http\"\nstatus = \"200\"\ninterval = \"1s\"\n",
        Ipv4Addr::LOCALHOST,
        Ipv6Addr::LOCALHOST,
        entrance.display()
    ))
}

#[test]
fn haproxy_understands_what_coracle_sends() {
    if !has_tool("haproxy") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = lasting_address(&mut rng::from_env());
    let config = format!(
        "frontend f\nmode http\nbind {port} accept-proxy\n\
         http-request return status 200 content-type text/plain \
         lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"\n"
    );
    let _haproxy = Program::haproxy(folder.path(), &config, &[port]);
    for (word, _) in VERSIONS {
        let entrance = folder.path().join(word);
        let coracle = before(port, word, &entrance);
        answers_name_their_clients(&coracle, &entrance);
        is_checked(&coracle);
    }
}

#[test]
fn nginx_understands_what_coracle_sends() {
    if !has_tool("nginx") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = lasting_address(&mut rng::from_env());
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|it| format!("{it}_temp_path {it};\n")).concat();
    let config = format!(
        "http {{\naccess_log off;\n{paths}server {{\nlisten {port} proxy_protocol;\n\
         location / {{\ndefault_type text/plain;\n\
         return 200 \"$proxy_protocol_addr $proxy_protocol_port \
         $proxy_protocol_server_addr $proxy_protocol_server_port\";\n}}\n}}\n}}\n"
    );
    let _nginx = Program::nginx(folder.path(), &config, &[port]);
    for (word, _) in VERSIONS {
        let entrance = folder.path().join(word);
        let coracle = before(port, word, &entrance);
        answers_name_their_clients(&coracle, &entrance);
        is_checked(&coracle);
    }
}

/// Waits until a health check has succeeded.
fn is_checked(coracle: &Coracle) {
    until("a check has succeeded", || {
        let metrics = scrape(coracle.admin);
        let up = metrics.sum("coracle_server_up");
        assert_eq!(up, 1.0, "{:#?}", coracle.log());
        let checks = metrics.sum("coracle_server_check_duration_seconds_count");
        (checks > 0.0).then_some(())
    });
}
