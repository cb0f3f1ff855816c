//! From where connections to servers leave: addresses, ports, interfaces, marks, classes, and the
//! client's own address. The servers are on other machines: network namespaces behind `lan0`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::support::namespace::{PEER, enter, in_namespace, in_peer};
use crate::support::process::{Coracle, binary};
use crate::support::{DEADLINE, has_tool};

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:2672\"\nsocket = \"off\"\n";

/// Starts a server in the peer's namespace that tells each client the address that it sees. Also
/// returns these addresses.
fn server(port: u16) -> Receiver<SocketAddr> {
    let listener = in_peer(|| TcpListener::bind(("::", port)).unwrap());
    let (tell, told) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Ok(peer) = stream.peer_addr() else {
                continue;
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let _ = tell.send(peer);
            thread::spawn(move || {
                let _ = writeln!(stream, "{peer}");
                let _ = stream.read(&mut [0]);
            });
        }
    });
    told
}

/// The address that the server sees of a client that connects to `to`, and the connection.
fn seen(to: &str) -> (SocketAddr, TcpStream) {
    let (seen, stream) = seen_after(to, b"");
    (seen.expect("the server answers"), stream)
}

/// The same after the client has sent `first`; `None` if its connection is reset.
fn seen_after(to: &str, first: &[u8]) -> (Option<SocketAddr>, TcpStream) {
    let mut stream = TcpStream::connect(to.parse::<SocketAddr>().unwrap()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(first).unwrap();
    let mut line = String::new();
    let read = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
    let seen = read.ok().and_then(|_| line.trim().parse().ok());
    (seen, stream)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(service: &str) -> String {
    format!(
        "{ADMIN}[entrypoints.e]\nlisten = \"127.0.0.1:5000\"\nservice = \"s\"\n[services.s]\n{service}\n"
    )
}

fn command(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {told}");
}

#[test]
fn connections_leave_from_the_address_and_the_ports() {
    let test = "source_address::connections_leave_from_the_address_and_the_ports";
    let setup = format!("{PEER}; ip addr add 10.9.0.7/24 dev lan0");
    if !enter(test, &setup) {
        return;
    }
    let told = server(6000);
    server(6001);
    let both = "servers = [\"10.9.0.2:6000\"]\n";
    let coracle = Coracle::start(&config(both));
    let (first, _open) = seen("127.0.0.1:5000");
    assert_eq!(first.ip(), ip("10.9.0.1"));
    assert_eq!(told.recv().unwrap(), first);

    // A check leaves from there too.
    let with = format!("{both}bind = \"10.9.0.7\"\n[services.s.health]\ninterval = \"100ms\"\n");
    assert!(coracle.reload(&config(&with)));
    assert_eq!(told.recv().unwrap().ip(), ip("10.9.0.7"));
    assert_eq!(seen("127.0.0.1:5000").0.ip(), ip("10.9.0.7"));
    let status = Command::new(binary()).arg("status").output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("round_robin, from 10.9.0.7"), "{status}");

    // Two ports serve two connections to each server.
    let with =
        "servers = [\"10.9.0.2:6000\", \"10.9.0.2:6001\"]\nbind = \"10.9.0.7:40000-40001\"\n";
    assert!(coracle.reload(&config(with)));
    let connections: Vec<_> = (0..4).map(|_| seen("127.0.0.1:5000")).collect();
    let ports: Vec<_> = connections.iter().map(|(seen, _)| seen.port()).collect();
    let distinct = BTreeSet::from_iter(ports.iter().copied());
    assert_eq!(distinct, BTreeSet::from([40000, 40001]), "{ports:?}");
    // No port is left, and nothing is wrong with the servers.
    let waits = TcpStream::connect("127.0.0.1:5000").unwrap();
    coracle.logged("no room within");
    drop(waits);

    // The other family is passed over, and told if there is no other.
    let with = "servers = [\"[fd09::2]:6000\"]\nbind = \"10.9.0.7\"\nretries = 0\n";
    assert!(coracle.reload(&config(with)));
    assert_eq!(seen_after("127.0.0.1:5000", b"").0, None);
    coracle.logged("bind: 10.9.0.7 is of another family");
    let with = "servers = [\"[fd09::2]:6000\"]\nbind = \"fd09::1\"\n";
    assert!(coracle.reload(&config(with)));
    assert_eq!(seen("127.0.0.1:5000").0.ip(), ip("fd09::1"));

    // One that is not there yet is a warning.
    let with = format!("{both}bind = \"10.9.0.8\"\nretries = 0\n");
    assert!(coracle.reload(&config(&with)));
    coracle.logged("this machine does not have 10.9.0.8 yet (bind)");
    assert_eq!(seen_after("127.0.0.1:5000", b"").0, None);
    coracle.logged("dial: bind: ");
    command("ip", &["addr", "add", "10.9.0.8/24", "dev", "lan0"]);
    assert_eq!(seen("127.0.0.1:5000").0.ip(), ip("10.9.0.8"));
}

#[test]
fn connections_leave_by_the_interface() {
    let test = "source_address::connections_leave_by_the_interface";
    if !has_tool("ss") || !enter(test, PEER) {
        return;
    }
    server(6000);
    let coracle = Coracle::start(&config("servers = [\"10.9.0.2:6000\"]\nbind = \"lan0\"\n"));
    let (from, _open) = seen("127.0.0.1:5000");
    assert_eq!(from.ip(), ip("10.9.0.1"));
    let output = Command::new("ss")
        .args(["-Htn", "dport = :6000"])
        .output()
        .unwrap();
    let sockets = String::from_utf8(output.stdout).unwrap();
    assert!(sockets.contains("10.9.0.1%lan0:"), "{sockets}");
    assert!(coracle.reload(&config(
        "servers = [\"10.9.0.2:6000\"]\nbind = \"wg9\"\nretries = 0\n"
    )));
    coracle.logged("this machine does not have wg9 yet (bind)");
    assert_eq!(seen_after("127.0.0.1:5000", b"").0, None);
    coracle.logged("dial: bind: No such device");
}

/// Reads the class in the first packet to a port of the peer, for each of two connections.
const SNIFFER: &str = "\
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
print('ready', flush=True)
while True:
    packet = s.recv(2000)
    if packet[0] >> 4 == 4 and packet[9] == 6:
        head, tos = (packet[0] & 15) * 4, packet[1]
    elif packet[0] >> 4 == 6 and packet[6] == 6:
        head, tos = 40, (packet[0] & 15) << 4 | packet[1] >> 4
    else:
        continue
    port = int.from_bytes(packet[head + 2:head + 4], 'big')
    if port == 6000 and packet[head + 13] == 2:
        print(tos, flush=True)
";

#[test]
fn packets_have_the_mark_and_the_class() {
    let test = "source_address::packets_have_the_mark_and_the_class";
    // Only packets with the mark have a route to the server.
    let setup = format!(
        "{PEER}; ip route del 10.9.0.0/24 dev lan0; ip rule add fwmark 7 lookup 100; \
         ip route add 10.9.0.0/24 dev lan0 src 10.9.0.1 table 100"
    );
    if !has_tool("python3") || !enter(test, &setup) {
        return;
    }
    let told = server(6000);
    let mut sniffer = Command::new("ip")
        .args(["netns", "exec", "peer", "python3", "-I", "-c", SNIFFER])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(sniffer.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let mut class = move || lines.next().unwrap().unwrap().parse::<u8>().unwrap() >> 2;

    let to = "servers = [\"10.9.0.2:6000\"]\nretries = 0\n";
    let coracle = Coracle::start(&config(to));
    assert_eq!(seen_after("127.0.0.1:5000", b"").0, None);
    coracle.logged("unreachable");
    assert!(coracle.reload(&config(&format!("{to}mark = 7\n"))));
    seen("127.0.0.1:5000");
    assert_eq!(class(), 0);
    assert!(coracle.reload(&config(&format!("{to}mark = 7\ndscp = \"AF21\"\n"))));
    seen("127.0.0.1:5000");
    assert_eq!(class(), 18);
    // IPv6 has a route in any case.
    let to = "servers = [\"[fd09::2]:6000\"]\ndscp = 46\n";
    assert!(coracle.reload(&config(to)));
    seen("127.0.0.1:5000");
    assert_eq!(class(), 46);
    // Checks too.
    let to = "servers = [\"10.9.0.2:6000\"]\nmark = 7\ndscp = \"cs1\"\n";
    while told.try_recv().is_ok() {}
    let checked = format!("{to}[services.s.health]\ninterval = \"100ms\"\n");
    assert!(coracle.reload(&config(&checked)));
    assert_eq!(class(), 8);
    told.recv().unwrap();
    sniffer.kill().unwrap();
    sniffer.wait().unwrap();
}

/// The clients' machine, and the way back from the server to coracle.
const CLIENTS: &str = "\
    ip netns add clients; ip link add wan0 type veth peer name d0 netns clients; \
    ip addr add 10.8.0.1/24 dev wan0; ip addr add fd08::1/64 dev wan0 nodad; ip link set wan0 up; \
    ip netns exec clients sh -c 'ip addr add 10.8.0.2/24 dev d0; \
        ip addr add fd08::2/64 dev d0 nodad; ip link set d0 up'; \
    ip netns exec peer sh -c 'ip route add default via 10.9.0.1; ip route add default via fd09::1'; \
    ip rule add iif lan0 lookup 100; ip route add local 0.0.0.0/0 dev lo table 100; \
    ip -6 rule add iif lan0 lookup 100; ip -6 route add local ::/0 dev lo table 100";

#[test]
fn server_sees_the_clients_own_address() {
    let test = "source_address::server_sees_the_clients_own_address";
    if !enter(test, &format!("{PEER}; {CLIENTS}")) {
        return;
    }
    let told = server(6000);
    let service = |servers: &str, key: &str| {
        format!(
            "{ADMIN}[entrypoints.e]\nlisten = \"*:5000\"\nservice = \"s\"\n\
             [entrypoints.proxied]\nlisten = \"127.0.0.1:5001\"\nservice = \"s\"\n\
             accept_proxy = true\ntrusted = \"127.0.0.1\"\n\
             [services.s]\nservers = [{servers}]\ntransparent = true\n{key}"
        )
    };
    let checked = "retries = 0\n[services.s.health]\ninterval = \"100ms\"\n";
    let coracle = Coracle::start(&service("\"10.9.0.2:6000\"", checked));
    assert_eq!(told.recv().unwrap().ip(), ip("10.9.0.1"), "of the check");
    let client = || in_namespace("clients", || seen("10.8.0.1:5000"));
    let (from, _open) = client();
    assert_eq!(from.ip(), ip("10.8.0.2"));
    // The address that a proxy names.
    let header = b"PROXY TCP4 10.8.0.99 10.8.0.1 1 2\r\n";
    let (from, _open) = seen_after("127.0.0.1:5001", header);
    assert_eq!(from.unwrap().ip(), ip("10.8.0.99"));
    // Not the other family.
    let client6 = || in_namespace("clients", || seen_after("[fd08::1]:5000", b""));
    assert_eq!(client6().0, None);
    coracle.logged("transparent: the client's address fd08::2 is of another family");
    assert!(coracle.reload(&service("\"[fd09::2]:6000\"", "")));
    assert_eq!(client6().0.unwrap().ip(), ip("fd08::2"));
    let metrics = crate::support::metrics::scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_connection_mismatch"), 0.0);
}

#[test]
fn start_says_which_capability_is_missing() {
    let test = "source_address::start_says_which_capability_is_missing";
    if !has_tool("setpriv") || !enter(test, PEER) {
        return;
    }
    for (key, missing, message) in [
        (
            "mark = 7",
            "-net_admin,-net_raw",
            "service s: mark: permission denied: marks need CAP_NET_ADMIN; run as root, add it with `setcap cap_net_admin+ep`",
        ),
        (
            "transparent = true",
            "-net_admin,-net_raw",
            "service s: transparent: permission denied: addresses of clients need CAP_NET_RAW; run",
        ),
        (
            "bind = \"10.9.0.1:1000-1001\"",
            "-net_bind_service",
            "service s: bind: permission denied: ports below 1024 need CAP_NET_BIND_SERVICE; run",
        ),
    ] {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let text = config(&format!("servers = [\"10.9.0.2:80\"]\n{key}\n"));
        file.write_all(text.as_bytes()).unwrap();
        let output = Command::new("setpriv")
            .args(["--inh-caps=-all", &format!("--bounding-set={missing}")])
            .arg(binary())
            .args(["run", "-c"])
            .arg(file.path())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{key}: {told}");
        assert!(told.contains(message), "{key}: {told}");
        assert!(told.contains("AmbientCapabilities="), "{key}: {told}");
    }
}
