//! How entrypoints listen: ranges of ports, interfaces, the backlog, fast open, and IPv6 alone. Each
//! test has a network namespace of its own, and so all ports.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;

use crate::support::kernel::tcp_sockets;
use crate::support::metrics::{check, scrape};
use crate::support::namespace::{PEER, enter, in_peer};
use crate::support::process::{Coracle, binary};
use crate::support::{DEADLINE, has_tool, until};

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:2672\"\nsocket = \"off\"\n";

/// Starts servers that tell each client on which port they are, and then echo.
fn servers(ports: std::ops::RangeInclusive<u16>) {
    for port in ports {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let _ = writeln!(stream, "{port}");
                    let mut copy = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut stream, &mut copy);
                });
            }
        });
    }
}

/// Connects, and returns the connection once the server has told its port.
fn connect(to: &str) -> (TcpStream, u16) {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        told.push(byte[0]);
    }
    let text = String::from_utf8(told).unwrap();
    (stream, text.trim().parse().unwrap())
}

/// The listening sockets on these ports: port and inode.
fn listeners(ports: std::ops::RangeInclusive<u16>) -> BTreeMap<u16, String> {
    let all = tcp_sockets().into_iter();
    let ours = all.filter(|it| it.listens && ports.contains(&it.local_port));
    ours.map(|it| (it.local_port, it.inode)).collect()
}

fn refuses(to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    let refused = TcpStream::connect(to).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
}

fn output(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert!(
        status.success(),
        "{text}{}",
        String::from_utf8_lossy(&stderr)
    );
    text
}

fn status() -> String {
    output(Command::new(binary()).args(["status"]))
}

#[test]
fn each_port_of_a_range_leads_to_its_own() {
    if !enter("listening::each_port_of_a_range_leads_to_its_own", "true") {
        return;
    }
    servers(6000..=6006);
    let config = |last: u16| {
        format!(
            "{ADMIN}[entrypoints.range]\nlisten = [\"127.0.0.1:5000-{last}\", \"[::1]:5000-{last}\"]\n\
             service = \"many\"\n[services.many]\nservers = [\"127.0.0.1:6000-{}\"]\n\
             [services.many.health]\ninterval = \"1d\"\n\
             [entrypoints.one]\nlisten = \"127.0.0.1:7000-7002\"\nto = \"127.0.0.1:6003\"\n",
            last + 1000
        )
    };
    let coracle = Coracle::start(&config(5004));
    coracle.logged("address=127.0.0.1:5000-5004");
    coracle.logged("to=127.0.0.1:6000-6004");
    let mut open = Vec::new();
    for port in 5000..=5004 {
        for ip in ["127.0.0.1", "[::1]"] {
            let (stream, told) = connect(&format!("{ip}:{port}"));
            assert_eq!(told, port + 1000);
            open.push(stream);
        }
    }
    for port in 7000..=7002 {
        let (stream, told) = connect(&format!("127.0.0.1:{port}"));
        assert_eq!(told, 6003);
        open.push(stream);
    }
    refuses("127.0.0.1:4999");
    refuses("127.0.0.1:5005");

    // One entrypoint, and the kernel agrees on all of its ports.
    let agree = |range: f64, one: f64| {
        until("the kernel has all", || {
            let metrics = scrape(coracle.admin);
            check(&metrics, &metrics);
            assert_eq!(metrics.sum("coracle_connection_mismatch"), 0.0);
            let open = |name| metrics.sum_where(name, "entrypoint=\"range\"");
            assert_eq!(open("coracle_open_connections"), range);
            assert_eq!(
                metrics.sum_where("coracle_open_connections", "entrypoint=\"one\""),
                one
            );
            let series = metrics.series("coracle_open_connections").count();
            assert_eq!(series, 2);
            (open("coracle_kernel_connections") == range).then_some(())
        });
    };
    agree(10.0, 3.0);
    let told = status();
    assert!(
        told.contains("127.0.0.1:5000-5004, [::1]:5000-5004"),
        "{told}"
    );
    assert!(told.contains("127.0.0.1:7000-7002"), "{told}");
    assert!(told.contains("127.0.0.1:6000-6004"), "{told}");

    // A range that grows keeps its listeners and connections, and one that shrinks keeps the rest.
    let before = listeners(5000..=5010);
    assert_eq!(before.len(), 5);
    assert!(coracle.reload(&config(5006)));
    coracle.logged("address=127.0.0.1:5005-5006");
    let grown = listeners(5000..=5010);
    assert_eq!(grown.len(), 7);
    assert!(before.iter().all(|(port, inode)| grown[port] == *inode));
    let (stream, told) = connect("[::1]:5006");
    assert_eq!(told, 6006);
    open.push(stream);
    agree(11.0, 3.0);
    assert!(coracle.reload(&config(5001)));
    let shrunk = listeners(5000..=5010);
    assert_eq!(shrunk.len(), 2);
    assert!(shrunk.iter().all(|(port, inode)| before[port] == *inode));
    refuses("127.0.0.1:5006");
    // Those that came in by ports that are gone still count.
    agree(11.0, 3.0);
    for stream in &mut open {
        stream.write_all(b"still").unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"still");
    }
}

#[test]
fn a_range_beyond_the_limit_of_open_files_is_one_error() {
    if !enter(
        "listening::a_range_beyond_the_limit_of_open_files_is_one_error",
        "true",
    ) {
        return;
    }
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    write!(
        file,
        "{ADMIN}[entrypoints.e]\nlisten = \"127.0.0.1:5000-5999\"\nto = \"127.0.0.1:80\"\n"
    )
    .unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 256; exec \"$0\" run -c \"$1\""]);
    shell.arg(binary()).arg(file.path());
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = told.lines().filter(|it| it.contains("coracle:")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    assert!(
        lines[0].contains("entrypoint e: listen on 127.0.0.1:5"),
        "{told}"
    );
    assert!(lines[0].contains("raise the limit of open files"), "{told}");
}

#[test]
fn only_clients_that_come_in_by_the_interface_are_taken() {
    if !enter(
        "listening::only_clients_that_come_in_by_the_interface_are_taken",
        PEER,
    ) {
        return;
    }
    servers(6000..=6000);
    let config = |interface: &str| {
        format!("{ADMIN}[entrypoints.e]\nlisten = \"*:5000\"\nto = \"127.0.0.1:6000\"\n{interface}")
    };
    let coracle = Coracle::start(&config("interface = \"lan0\"\n"));
    let mut open = Vec::new();
    open.push(in_peer(|| connect("10.9.0.1:5000")).0);
    open.push(in_peer(|| connect("[fd09::1]:5000")).0);
    refuses("127.0.0.1:5000");
    // This machine's own connections count for the interface that has the address.
    open.push(connect("10.9.0.1:5000").0);

    assert!(coracle.reload(&config("")));
    open.push(connect("127.0.0.1:5000").0);
    assert!(coracle.reload(&config("interface = \"lo\"\n")));
    open.push(connect("127.0.0.1:5000").0);
    in_peer(|| refuses("10.9.0.1:5000"));
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_open_connections"), 5.0);
    assert_eq!(metrics.sum("coracle_connection_mismatch"), 0.0);

    // One that is not there is refused, and what is in force stays.
    assert!(!coracle.reload(&config("interface = \"lan1\"\n")));
    coracle.logged("there is no interface lan1 (interface)");
    open.push(connect("127.0.0.1:5000").0);
}

#[test]
fn listening_at_an_interface_without_the_capability_says_so() {
    let test = "listening::listening_at_an_interface_without_the_capability_says_so";
    if !has_tool("python3") || !enter(test, PEER) {
        return;
    }
    // A kernel of today asks for it only if the socket is bound to another interface already, so
    // the old one is imitated.
    let rule = "setsockopt[1=1,2=25]=EPERM";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/old_kernel.py");
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    write!(
        file,
        "{ADMIN}[entrypoints.e]\nlisten = \"*:5000\"\nto = \"127.0.0.1:80\"\ninterface = \"lan0\"\n"
    )
    .unwrap();
    let mut python = Command::new("python3");
    python.args(["-I", script, rule, "--"]);
    python.arg(binary()).args(["run", "-c"]).arg(file.path());
    let output = python.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("before Linux 5.7 this needs CAP_NET_RAW"),
        "{told}"
    );
    assert!(told.contains("setcap cap_net_raw+ep"), "{told}");
    assert!(told.contains("AmbientCapabilities="), "{told}");
}

/// The backlog of the listener on port 5000, which `ss` shows as its send queue.
fn backlog() -> u32 {
    let told = output(Command::new("ss").args(["-Hltn", "sport = :5000"]));
    told.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn backlog_is_the_kernels_and_changes_in_place() {
    let test = "listening::backlog_is_the_kernels_and_changes_in_place";
    if !has_tool("ss") || !enter(test, "echo 200 > /proc/sys/net/core/somaxconn") {
        return;
    }
    servers(6000..=6000);
    let config = |key: &str| {
        format!(
            "{ADMIN}[entrypoints.e]\nlisten = \"127.0.0.1:5000\"\nto = \"127.0.0.1:6000\"\n{key}"
        )
    };
    let coracle = Coracle::start(&config("backlog = 7\n"));
    let before = listeners(5000..=5000);
    assert_eq!(backlog(), 7);
    let capped = "the kernel caps the backlog";
    assert!(!coracle.log().iter().any(|line| line.contains(capped)));
    assert!(coracle.reload(&config("backlog = 300\n")));
    assert_eq!(backlog(), 200);
    coracle.logged("the kernel caps the backlog of 300 at 200; raise it");
    // Nobody asked for the default.
    assert!(coracle.reload(&config("")));
    assert_eq!(backlog(), 200);
    assert_eq!(listeners(5000..=5000), before);
    assert_eq!(connect("127.0.0.1:5000").1, 6000);
}

/// How many clients this namespace has let in with data in their first packet.
fn passive_fast_opens() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = text.lines().filter(|it| it.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names
        .split_whitespace()
        .position(|it| it == "TCPFastOpenPassive");
    values
        .split_whitespace()
        .nth(at.unwrap())
        .unwrap()
        .parse()
        .unwrap()
}

/// Connects twice by TCP Fast Open: the first connection gets the cookie, and the second one sends
/// its bytes with its first packet. Each gets its bytes back.
fn fast_open_clients() {
    const CLIENT: &str = "\
import socket
for _ in range(2):
    s = socket.socket()
    s.sendto(b'hello', socket.MSG_FASTOPEN, ('127.0.0.1', 5000))
    got = b''
    while not got.endswith(b'hello'):
        more = s.recv(100)
        assert more, got
        got += more
    s.close()
";
    output(Command::new("python3").args(["-I", "-c", CLIENT]));
}

#[test]
fn first_bytes_come_with_the_first_packet() {
    let test = "listening::first_bytes_come_with_the_first_packet";
    let setup = "echo 1 > /proc/sys/net/ipv4/tcp_fastopen";
    if !has_tool("python3") || !enter(test, setup) {
        return;
    }
    servers(6000..=6000);
    let config = |fast_open: bool| {
        format!(
            "{ADMIN}[entrypoints.e]\nlisten = \"127.0.0.1:5000\"\nto = \"127.0.0.1:6000\"\n\
             fast_open = {fast_open}\n"
        )
    };
    let coracle = Coracle::start(&config(true));
    coracle.logged(
        "fast_open has no effect, because the kernel does not let listeners use TCP Fast Open; \
         allow it (sysctl -w net.ipv4.tcp_fastopen=3)",
    );
    fast_open_clients();
    assert_eq!(passive_fast_opens(), 0);
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").unwrap();
    fast_open_clients();
    assert_eq!(passive_fast_opens(), 1);

    let before = listeners(5000..=5000);
    assert!(coracle.reload(&config(false)));
    fast_open_clients();
    assert_eq!(passive_fast_opens(), 1);
    assert!(coracle.reload(&config(true)));
    fast_open_clients();
    assert!(passive_fast_opens() > 1);
    assert_eq!(listeners(5000..=5000), before);
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_connections_opened_total"), 8.0);
    assert_eq!(metrics.sum("coracle_connection_mismatch"), 0.0);
}

#[test]
fn ipv6_alone_leaves_ipv4_to_others() {
    let test = "listening::ipv6_alone_leaves_ipv4_to_others";
    if !enter(test, "true") {
        return;
    }
    servers(6000..=6000);
    let config = |key: &str| {
        format!(
            "{ADMIN}[entrypoints.e]\nlisten = \"[::]:5000-5001\"\nto = \"127.0.0.1:6000\"\n{key}"
        )
    };
    let coracle = Coracle::start(&config("only_v6 = true\n"));
    connect("[::1]:5001");
    refuses("127.0.0.1:5000");
    // So another program can have it.
    drop(TcpListener::bind("127.0.0.1:5000").unwrap());
    assert!(coracle.reload(&config("only_v6 = false\n")));
    connect("[::1]:5001");
    connect("127.0.0.1:5000");
    assert!(coracle.reload(&config("")));
    connect("127.0.0.1:5001");
}
