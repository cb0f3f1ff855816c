//! The PROXY protocol from proxies before coracle (`accept_proxy`): whom it believes, what it shows,
//! and what it closes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use coracle::wire::proxy_header::{Client, Version};
use serde_json::Value;

use crate::support::fleet::{Member, Session, addresses, closed, reloadable, service};
use crate::support::http::get;
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::program::Program;
use crate::support::{DEADLINE, backend, clients, has_tool, lasting_address, rng, until};

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];
const SOURCE: &str = "192.0.2.7:51000";
const DESTINATION: &str = "192.0.2.1:443";

fn tcp(source: &str, destination: &str) -> Client {
    Client::Tcp {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn accept(server: &TcpListener) -> TcpStream {
    let stream = server.accept().unwrap().0;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// An entrypoint `e` that accepts the header from loopback, with more keys, and its server.
fn accepting(server: SocketAddr, more: &str) -> String {
    format!(
        "[log]\naccess = true\n[entrypoints.e]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\n\
         to = \"{server}\"\naccept_proxy = true\ntrusted = [\"127.0.0.0/8\", \"::1\"]\n{more}\n"
    )
}

/// The peer and the socket's peer of each open connection, the oldest first.
fn peers(coracle: &Coracle) -> Vec<(String, Option<String>)> {
    let answer = get(coracle.admin, "/api/v1/connections?order=desc").2;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let connections = answer["connections"].as_array().unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let peers = |it: &Value| (text(&it["peer"]).unwrap(), text(&it["socket_peer"]));
    connections.iter().map(peers).collect()
}

/// Expects a reset, or the reset that sending meets.
fn is_reset(mut client: TcpStream) {
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn wait_closed(coracle: &Coracle, reason: &str, n: usize) {
    until(&format!("{n} have closed by {reason}"), || {
        (closed(&scrape(coracle.admin), reason) == n as f64).then_some(())
    });
}

#[test]
fn the_client_is_the_one_that_the_header_names() {
    let server = listener();
    let coracle = Coracle::start(&accepting(server.local_addr().unwrap(), ""));
    let mut done = 0;
    for address in coracle.addresses("e") {
        for version in VERSIONS {
            for (source, shown) in [
                (SOURCE, SOURCE),
                ("[2001:db8::7]:1", "[2001:db8::7]:1"),
                ("[::ffff:192.0.2.8]:2", "192.0.2.8:2"),
            ] {
                let mut client = connect(address);
                let socket = client.local_addr().unwrap().to_string();
                let header = version.header(tcp(source, source));
                client.write_all(&[&header[..], b"hello"].concat()).unwrap();
                let mut accepted = accept(&server);
                let mut hello = [0; 5];
                accepted.read_exact(&mut hello).unwrap();
                assert_eq!(&hello, b"hello");
                let expected = (shown.to_owned(), Some(socket.clone()));
                assert_eq!(peers(&coracle), [expected]);
                let metrics = scrape(coracle.admin);
                assert_eq!(metrics.sum("coracle_connection_mismatch"), 0.0);
                drop((client, accepted));
                done += 1;
                wait_closed(&coracle, "done", done);
                let line = coracle.logged(&format!("peer={shown} socket_peer={socket}"));
                assert!(line.contains("to_server_bytes=5"), "{line}");
            }
        }
    }
}

#[test]
fn headers_without_a_client_leave_the_socket_s_address() {
    let server = listener();
    let coracle = Coracle::start(&accepting(server.local_addr().unwrap(), ""));
    let unspecified = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x03abc".to_vec();
    let unknown = b"PROXY UNKNOWN what ever\r\n".to_vec();
    let local = Version::V2.header(Client::Local);
    for header in [unspecified, unknown, local] {
        let mut client = connect(coracle.address("e"));
        client.write_all(&header).unwrap();
        // The server may speak first.
        let mut accepted = accept(&server);
        accepted.write_all(b"!").unwrap();
        client.read_exact(&mut [0]).unwrap();
        let socket = client.local_addr().unwrap().to_string();
        assert_eq!(peers(&coracle), [(socket, None)]);
        drop((client, accepted));
        until("it has left", || peers(&coracle).is_empty().then_some(()));
    }
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let server = listener();
    let coracle = Coracle::start(&accepting(server.local_addr().unwrap(), ""));
    let payload = backend::pattern(3 * 4096);
    for version in VERSIONS {
        let header = version.header(tcp(SOURCE, DESTINATION));
        let whole = [&header[..], &payload[..]].concat();
        // In two pieces, cut at each byte, and byte by byte.
        let cuts = (1..header.len() + 2).map(|cut| vec![cut]);
        for cuts in cuts.chain([(1..header.len() + 2).collect()]) {
            let mut client = connect(coracle.address("e"));
            let mut begin = 0;
            for cut in cuts.into_iter().chain([whole.len()]) {
                client.write_all(&whole[begin..cut]).unwrap();
                begin = cut;
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut received = Vec::new();
            accept(&server).read_to_end(&mut received).unwrap();
            assert!(received == payload);
        }
    }
    let metrics = scrape(coracle.admin);
    assert_eq!(closed(&metrics, "prologue"), 0.0);
}

#[test]
fn malformed_headers_are_closed_and_reach_no_server() {
    let server = listener();
    let coracle = Coracle::start(&accepting(server.local_addr().unwrap(), ""));
    let mut damaged = Version::V2.header(tcp(SOURCE, DESTINATION));
    damaged[15] += 7;
    damaged.extend([3, 0, 4, 1, 2, 3, 4]);
    let cases = [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "there is none"),
        (b"PROXY TCP4 1.2.3.4\r\n".to_vec(), "its line is malformed"),
        (vec![b'P'; 1], "the header is cut off"),
        (
            [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
            "it is too long",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(),
            "it is too long",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x31".to_vec(),
            "its version, command or family is unknown",
        ),
        (damaged, "its checksum is wrong"),
    ];
    for (bytes, why) in &cases {
        let mut client = connect(coracle.address("e"));
        client.write_all(bytes).unwrap();
        // The reset may be faster.
        let _ = client.shutdown(std::net::Shutdown::Write);
        is_reset(client);
        coracle.logged(why);
    }
    // This one leaves without a word, and none is logged.
    drop(connect(coracle.address("e")));
    wait_closed(&coracle, "prologue", cases.len() + 1);
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let log = coracle.log();
    let lines = log.iter().filter(|it| it.contains("PROXY protocol"));
    assert_eq!(lines.count(), cases.len(), "{log:#?}");
}

#[test]
fn others_are_closed_whatever_they_send() {
    let server = listener();
    let config = accepting(server.local_addr().unwrap(), "");
    let coracle = Coracle::start(&config.replace("127.0.0.0/8", "127.0.0.2"));
    let header = Version::V1.header(tcp("127.0.0.2:1", DESTINATION));
    for bytes in [&header[..], b"", b"GET / HTTP/1.1\r\n\r\n"] {
        clients::is_cut(connect(coracle.addresses("e")[0]), bytes);
    }
    wait_closed(&coracle, "untrusted", 3);
    coracle.logged("the peer is none of the `trusted`");
    let mut client = connect(coracle.addresses("e")[1]);
    client.write_all(&header).unwrap();
    accept(&server);
    assert_eq!(
        scrape(coracle.admin).sum("coracle_connections_opened_total"),
        4.0
    );
}

#[test]
fn lists_and_limits_judge_the_client_that_the_header_names() {
    let server = listener();
    let more = "deny = [\"203.0.113.0/24\"]\nmax_connections_per_client = 1";
    let coracle = Coracle::start(&accepting(server.local_addr().unwrap(), more));
    let from = |source: &str| {
        let mut client = connect(coracle.address("e"));
        let header = Version::V2.header(tcp(source, DESTINATION));
        client.write_all(&header).unwrap();
        client
    };
    is_reset(from("203.0.113.7:1"));
    // Two clients of one proxy, each of which may have one connection.
    let first = (from("198.51.100.1:1"), accept(&server));
    let _second = from("198.51.100.2:1");
    accept(&server);
    is_reset(from("198.51.100.1:2"));
    coracle.logged("refused (client_limit), as the proxy's header names the client");
    wait_closed(&coracle, "refused", 2);
    let metrics = scrape(coracle.admin);
    for reason in ["denied", "client_limit"] {
        let label = format!("reason=\"{reason}\"");
        let refused = metrics.sum_where("coracle_connections_refused_total", &label);
        assert_eq!(refused, 1.0, "{reason}");
    }
    drop(first);
    wait_closed(&coracle, "done", 1);
    let _third = from("198.51.100.1:3");
    accept(&server);
}

#[test]
fn slow_prologues_delay_nobody_and_are_cut_at_the_deadline() {
    const SLOW: usize = 2_000;
    let to = backend::start();
    let coracle = Coracle::start(&accepting(to, "prologue_timeout = \"3s\""));
    let address = coracle.address("e");
    // It promises more bytes than will come in time.
    let promise = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xf0";
    let mut slow: Vec<_> = (0..SLOW).map(|_| connect(address)).collect();
    for client in &mut slow {
        client.write_all(promise).unwrap();
    }
    let header = Version::V2.header(tcp(SOURCE, DESTINATION));
    until("all are cut", || {
        for client in &mut slow {
            let _ = client.write(&[0]);
        }
        // Neither these nor any before them have to wait for those.
        let mut client = connect(address);
        client.write_all(&header).unwrap();
        client.write_all(&backend::Script::Echo.request(0)).unwrap();
        client.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        client.read_exact(&mut hello).unwrap();
        (closed(&scrape(coracle.admin), "prologue") == SLOW as f64).then_some(())
    });
    coracle.logged("no whole header within 3s (prologue_timeout); closed");
}

#[test]
fn servers_are_told_the_client_that_the_header_names() {
    let server = listener();
    let at = server.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let entrance = folder.path().join("in");
    for version in VERSIONS {
        let word = if version == Version::V1 { "v1" } else { "v2" };
        let coracle = Coracle::start(&format!(
            "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\naccept_proxy = true\n\
             trusted = \"127.0.0.1\"\n[entrypoints.u]\nlisten = \"unix:{}\"\nservice = \"s\"\n\
             accept_proxy = true\n[services.s]\nservers = [\"{at}\"]\nsend_proxy = \"{word}\"\n",
            entrance.display()
        ));
        for told in [
            tcp(SOURCE, DESTINATION),
            tcp("[2001:db8::7]:1", "[2001:db8::1]:2"),
        ] {
            let expected = version.header(told);
            let mut tcp = connect(coracle.address("e"));
            let mut unix = UnixStream::connect(&entrance).unwrap();
            let clients: [&mut dyn Write; 2] = [&mut tcp, &mut unix];
            for client in clients {
                client.write_all(&Version::V2.header(told)).unwrap();
                let mut received = vec![0; expected.len()];
                accept(&server).read_exact(&mut received).unwrap();
                assert_eq!(received, expected);
            }
        }
    }
}

#[test]
fn the_named_client_decides_about_the_server_and_a_kill() {
    let mut rng = rng::from_env();
    let members = Member::several(4, &mut rng);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control");
    let config = service(&addresses(&members), "balance = \"source\"");
    let config = config.replace(
        "service = \"s\"\n",
        "service = \"s\"\naccept_proxy = true\ntrusted = \"127.0.0.1\"\n",
    );
    let coracle = Coracle::start(&format!(
        "{config}[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\n",
        socket.display()
    ));
    let open = |source: &str| {
        let mut client = connect(coracle.address("e"));
        let header = Version::V2.header(tcp(source, DESTINATION));
        client.write_all(&header).unwrap();
        Session::over(client)
    };
    let mut used = std::collections::BTreeSet::new();
    for client in 0..32 {
        let [a, b] = [1, 2].map(|port| open(&format!("192.0.2.{client}:{port}")).server);
        assert_eq!(a, b, "one client, two servers");
        used.insert(a);
    }
    assert!(used.len() > 1, "all have the same server");
    until("all have left", || peers(&coracle).is_empty().then_some(()));
    let kept = open("192.0.2.8:1");
    let killed = open("192.0.2.7:1");
    let mut command = std::process::Command::new(crate::support::process::binary());
    command.args(["kill", "--peer", "192.0.2.7", "--socket"]);
    let output = command.arg(&socket).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    is_reset(killed.stream);
    assert_eq!(peers(&coracle)[0].0, "192.0.2.8:1");
    drop(kept);
}

#[test]
fn a_reload_changes_whom_it_believes() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let server = listener();
    let config = |more: &str| {
        let servers = [format!("\"{}\"", server.local_addr().unwrap())];
        let config = service(&servers, "");
        let config = config.replace("service = \"s\"\n", &format!("service = \"s\"\n{more}"));
        reloadable(admin, listen, &config)
    };
    let coracle = Coracle::start(&config(""));
    let header = Version::V1.header(tcp(SOURCE, DESTINATION));
    let sent = || {
        let mut client = connect(listen);
        client.write_all(&header).unwrap();
        client
    };
    let received = |client: TcpStream| {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        accept(&server).read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(received(sent()), header, "without, it is passed on");
    assert!(coracle.reload(&config("accept_proxy = true\ntrusted = \"127.0.0.1\"\n")));
    assert_eq!(received(sent()), b"");
    assert!(coracle.reload(&config("accept_proxy = true\ntrusted = \"::1\"\n")));
    clients::is_cut(connect(listen), &header);
}

/// Starts coracle behind a proxy, and its server.
fn behind() -> (Coracle, SocketAddr) {
    let coracle = Coracle::start(&accepting(backend::start(), ""));
    let address = coracle.address("e");
    (coracle, address)
}

/// Connects through a proxy, and expects coracle to know the client.
fn is_known(coracle: &Coracle, proxy: SocketAddr) {
    let client = backend::hold(proxy);
    let client_address = client.local_addr().unwrap().to_string();
    let peers = peers(coracle);
    let (peer, socket) = &peers[0];
    assert_eq!((peers.len(), peer), (1, &client_address));
    assert!(
        socket
            .as_ref()
            .is_some_and(|socket| *socket != client_address)
    );
    drop(client);
    until("it has left", || {
        self::peers(coracle).is_empty().then_some(())
    });
}

#[test]
fn coracle_understands_what_haproxy_sends() {
    if !has_tool("haproxy") {
        return;
    }
    let mut rng = rng::from_env();
    let (coracle, at) = behind();
    let folder = tempfile::tempdir().unwrap();
    let options = [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        "send-proxy-v2 check inter 100ms check-send-proxy",
    ];
    let ports: Vec<SocketAddr> = options.iter().map(|_| lasting_address(&mut rng)).collect();
    let mut config = String::new();
    for (port, options) in ports.iter().zip(options) {
        let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port.port()));
        config += &format!(
            "listen l{}\nmode tcp\nunique-id-format %pid\nbind {port}\nbind {six}\n\
             server s {at} {options}\n",
            port.port()
        );
    }
    let unix = folder.path().join("u");
    config += &format!(
        "listen u\nmode tcp\nbind unix@{}\nserver s {at} send-proxy-v2\n",
        unix.display()
    );
    let _haproxy = Program::haproxy(folder.path(), &config, &ports);
    for port in &ports[..3] {
        is_known(&coracle, *port);
        is_known(&coracle, ([0, 0, 0, 0, 0, 0, 0, 1], port.port()).into());
    }
    // Its client has no address, so it says LOCAL.
    let mut client = UnixStream::connect(unix).unwrap();
    client.write_all(&backend::Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert_eq!(peers(&coracle)[0].1, None);
    let log = coracle.log();
    assert!(
        !log.iter().any(|it| it.contains("PROXY protocol")),
        "{log:#?}"
    );
}

#[test]
fn coracle_understands_what_nginx_sends() {
    if !has_tool("nginx") {
        return;
    }
    if !Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "nginx has no stream module");
        eprintln!("skipped: nginx has no stream module");
        return;
    }
    let mut rng = rng::from_env();
    let (coracle, at) = behind();
    let folder = tempfile::tempdir().unwrap();
    let port = lasting_address(&mut rng);
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port.port()));
    let config = format!(
        "stream {{\nserver {{\nlisten {port};\nlisten {six};\nproxy_pass {at};\n\
         proxy_protocol on;\n}}\n}}\n"
    );
    let _nginx = Program::nginx(folder.path(), &config, &[port]);
    is_known(&coracle, port);
    is_known(&coracle, six);
}
