//! One connection, several servers or addresses: unreachable ones are skipped immediately, under
//! one deadline for all.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use coracle::net::{Dial, EarlyData, Reactor, dial_tcp};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support;
use crate::support::backend::{self, Script, Silent};
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::{namespace, until};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// An entrypoint `e` with these servers. No wait of these tests may depend on a timeout.
fn config(servers: &[SocketAddr], timeouts: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|it| format!("\"{it}\"")).collect();
    format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [{}]\n{timeouts}\n",
        servers.join(", ")
    )
}

const FOR_EVER: &str = "connect_timeout = \"1h\"\ndial_timeout = \"1h\"";

/// A client that a server holds.
fn held(coracle: &Coracle) -> TcpStream {
    let mut client = asking(coracle);
    client.read_exact(&mut [0]).unwrap();
    client
}

/// A client that asks to be held.
fn asking(coracle: &Coracle) -> TcpStream {
    let mut client = TcpStream::connect(coracle.address("e")).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client
}

fn connect_errors(coracle: &Coracle, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    scrape(coracle.admin).sum_where("coracle_connect_errors_total", &label)
}

#[test]
fn unreachable_ipv6_is_skipped_immediately() {
    let setup = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1";
    let name = "servers::unreachable_ipv6_is_skipped_immediately";
    if !namespace::enter(name, setup) {
        return;
    }
    let to = backend::start();
    let v6 = SocketAddr::new(V6, to.port());
    // A service.
    let coracle = Coracle::start(&config(&[v6, to], FOR_EVER));
    let clients: Vec<_> = (0..4).map(|_| held(&coracle)).collect();
    assert_eq!(
        connect_errors(&coracle, "unreachable"),
        2.0,
        "every other dial starts with [::1]"
    );
    assert_eq!(connect_errors(&coracle, "exhausted"), 0.0);
    drop(clients);
    // A name with both addresses.
    let reactor = Reactor::new().unwrap();
    let dial = Dial {
        deadline: reactor.now() + Duration::from_secs(3600),
        keepalive: None,
        outgoing: None,
        client: None,
    };
    let early_data = EarlyData::none();
    let dialling = dial_tcp(&reactor, &[V6, V4], to.port(), dial, &early_data);
    reactor.block_on(dialling).unwrap();
    // With nothing else left, it fails at once.
    let dialling = dial_tcp(&reactor, &[V6], to.port(), dial, &early_data);
    let error = reactor.block_on(dialling).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
}

#[test]
fn exhausted_ports_towards_a_server_try_the_next_and_then_wait() {
    // One local port towards each address and port.
    let setup = "sysctl -qw net.ipv4.ip_local_port_range='40000 40000'";
    let name = "servers::exhausted_ports_towards_a_server_try_the_next_and_then_wait";
    if !namespace::enter(name, setup) {
        return;
    }
    // Servers and clients use non-ephemeral ports, so that they do not exhaust the ephemeral ones.
    let first = serve(([127, 0, 0, 1], 5001));
    let second = serve(([127, 0, 0, 2], 5001));
    let config = config(&[first, second], FOR_EVER).replace("127.0.0.1:0", "127.0.0.3:5000");
    let config = format!("{config}[admin]\nlisten = \"127.0.0.3:5002\"\n");
    let coracle = Coracle::start(&config);
    let client = |port: u16| {
        let socket = bound(port);
        socket.connect(&coracle.address("e").into()).unwrap();
        let client = TcpStream::from(socket);
        client.set_read_timeout(Some(support::DEADLINE)).unwrap();
        client
    };
    // A reset leaves nothing behind in the kernel.
    let resets = |client: TcpStream| backend::reset_on_close(&client);
    // The metrics readers have no ephemeral ports either.
    let ports = Cell::new(2000);
    let metric = |start: &str| {
        let mut client = TcpStream::from(bound(ports.replace(ports.get() + 1)));
        SockRef::from(&client)
            .connect(&coracle.admin.into())
            .unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.3\r\nConnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let open = |n: f64| {
        until(&format!("{n} are in the set"), || {
            (metric("coracle_open_connections{") == n).then_some(())
        });
    };
    let mut a = client(1000);
    a.read_exact(&mut [0]).unwrap();
    let mut b = client(1001);
    b.read_exact(&mut [0]).unwrap();
    resets(b);
    open(1.0);
    // It is the turn of the first server, towards which no port is left. The second has one.
    let mut c = client(1002);
    c.read_exact(&mut [0]).unwrap();
    let line = coracle.logged("dial: Cannot assign requested address");
    assert!(line.contains("server=127.0.0.1:5001"), "{line}");
    // Neither has one until one is released.
    let mut d = client(1003);
    open(3.0);
    d.set_nonblocking(true).unwrap();
    assert_eq!(d.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    d.set_nonblocking(false).unwrap();
    resets(a);
    d.read_exact(&mut [0]).unwrap();
    let failed = "coracle_connections_closed_total{entrypoint=\"e\",protocol=\"TCP\",reason=\"connect_failed\"";
    assert_eq!(metric(failed), 0.0);
}

fn bound(port: u16) -> Socket {
    let any: SocketAddr = ([127, 0, 0, 4], port).into();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

fn serve(at: ([u8; 4], u16)) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(at)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                stream.write_all(b"!").unwrap();
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    address
}

#[test]
fn dial_timeout_bounds_the_dial_across_all_servers() {
    let silent: Vec<_> = (0..5).map(|_| Silent::start()).collect();
    let servers: Vec<_> = silent.iter().map(|it| it.address).collect();
    // On a machine that stalls for the time left to the second server, the first takes all of it.
    // Then the test tries longer timeouts.
    let mut seconds = 1;
    while !dials_two(&servers, seconds) {
        seconds *= 4;
        assert!(seconds < support::DEADLINE.as_secs(), "{seconds} s");
    }
}

/// One server has twice `seconds`, all together have three times as long. Returns false if only the
/// first was tried.
fn dials_two(servers: &[SocketAddr], seconds: u64) -> bool {
    let (one, all) = (2 * seconds, 3 * seconds);
    // Written as the messages show them.
    let text = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let (one, all) = (text(one), text(all));
    let timeouts = format!("connect_timeout = \"{one}\"\ndial_timeout = \"{all}\"");
    let coracle = Coracle::start(&config(servers, &timeouts));
    let mut client = asking(&coracle);
    let error = client.read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let end = coracle.logged(&format!("no server reached within {all} (dial_timeout)"));
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_open_connections"), 0.0);
    if end.contains("4 of 5 not tried") {
        assert_eq!(connect_errors(&coracle, "timeout"), 1.0);
        return false;
    }
    // The first has its own limit; the second has what is left of the total.
    let first = coracle.logged(&format!("server={}", servers[0]));
    let own = format!("no answer within {one} (connect_timeout)");
    assert!(first.contains(&own), "{first}");
    let second = coracle.logged(&format!("server={}", servers[1]));
    let left = format!("no answer within {all} (dial_timeout)");
    assert!(second.contains(&left), "{second}");
    assert!(end.contains("3 of 5 not tried"), "{end}");
    assert_eq!(connect_errors(&coracle, "timeout"), 2.0);
    true
}
