//! Names that move: servers come and go with the answers of a real resolver, dnsmasq, and of
//! /etc/hosts. Each test has a network of its own and its own /etc/resolv.conf.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::{self, has_tool, namespace, until};

/// Only files and the resolver at 127.0.0.1 answer.
pub(crate) const SETUP: &str = "mount -t tmpfs none /mnt; \
     printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' >/mnt/resolv.conf; \
     mount --bind /mnt/resolv.conf /etc/resolv.conf; \
     printf '127.0.0.1 localhost\\n' >/mnt/hosts; \
     mount --bind /mnt/hosts /etc/hosts; \
     printf 'hosts: files dns\\n' >/mnt/nsswitch.conf; \
     if [ -e /etc/nsswitch.conf ]; then mount --bind /mnt/nsswitch.conf /etc/nsswitch.conf; fi";

/// The port of every server.
pub(crate) const PORT: u16 = 5001;

/// A dnsmasq at 127.0.0.1 that answers with the addresses in a file.
pub(crate) struct Dnsmasq(Child);

impl Dnsmasq {
    const RECORDS: &str = "/mnt/records";

    fn start(records: &str) -> Self {
        Self::start_with(records, &[])
    }

    pub(crate) fn start_with(records: &str, more: &[&str]) -> Self {
        std::fs::write(Self::RECORDS, records).unwrap();
        let mut child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--log-facility=-",
            ])
            .args(["--listen-address=127.0.0.1", "--user=root", "--group=root"])
            .arg(format!("--addn-hosts={}", Self::RECORDS))
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Its last line at the start says that it has read the records.
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let ready = lines.any(|line| line.contains(Self::RECORDS));
        assert!(ready, "dnsmasq does not start");
        thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn change(&self, records: &str) {
        std::fs::write(Self::RECORDS, records).unwrap();
        kill_process(Pid::from_child(&self.0), Signal::HUP).unwrap();
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server at 127.0.0.`last` that begins with its number and then returns what it receives. Sends
/// on what each connection sends first.
pub(crate) fn serve(last: u8) -> Receiver<String> {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), PORT)).unwrap();
    let (send, said) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, send) = (stream.unwrap(), send.clone());
            thread::spawn(move || {
                let _ = stream.write_all(&[last]);
                let mut buffer = [0; 512];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let _ = send.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
                    let _ = stream.write_all(&buffer[..n]);
                }
            });
        }
    });
    said
}

pub(crate) struct Client(TcpStream);

impl Client {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        Self(stream)
    }

    /// Returns the next byte, which at first is the server's number.
    fn read(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        byte[0]
    }

    fn echoes(&mut self) {
        self.0.write_all(b"x").unwrap();
        assert_eq!(self.read(), b'x');
    }
}

/// Connects clients at once. Returns how many each server got, and the clients.
pub(crate) fn connect(coracle: &Coracle, n: usize) -> (BTreeMap<u8, usize>, Vec<(u8, Client)>) {
    let mut count = BTreeMap::new();
    let clients = (0..n).map(|_| {
        let mut client = Client::connect(coracle.address("e"));
        let server = client.read();
        *count.entry(server).or_default() += 1;
        (server, client)
    });
    let clients = clients.collect();
    (count, clients)
}

pub(crate) fn config(rest: &str) -> String {
    format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nresolve_interval = \"100ms\"\n{rest}\n"
    )
}

fn label(last: u8) -> String {
    format!("127.0.0.{last}:{PORT} (nas.test:{PORT})")
}

/// Waits until exactly these addresses are servers; `left` have connections but are none any more.
fn are(coracle: &Coracle, now: &[u8], left: &[u8]) {
    servers_are(
        coracle,
        now.iter().chain(left).map(|it| label(*it)).collect(),
    );
}

/// Waits until the servers have exactly these labels.
pub(crate) fn servers_are(coracle: &Coracle, mut expected: Vec<String>) {
    expected.sort();
    until(&format!("the servers are {expected:?}"), || {
        let metrics = scrape(coracle.admin);
        let series = metrics
            .0
            .keys()
            .filter(|it| it.starts_with("coracle_server_up{"));
        let labels = series.filter_map(|it| it.split("server=\"").nth(1)?.split('"').next());
        let mut labels: Vec<_> = labels.map(str::to_owned).collect();
        labels.sort();
        (labels == expected).then_some(())
    });
}

fn lines_with(coracle: &Coracle, text: &str) -> usize {
    coracle.log().iter().filter(|it| it.contains(text)).count()
}

#[test]
fn addresses_of_a_real_resolver_come_and_go_without_ending_connections() {
    let name = "resolve::addresses_of_a_real_resolver_come_and_go_without_ending_connections";
    if !has_tool("dnsmasq") || !namespace::enter(name, SETUP) {
        return;
    }
    let _servers = [2, 3, 4].map(serve);
    let dnsmasq = Dnsmasq::start("127.0.0.2 nas.test\n127.0.0.3 nas.test\n");
    let servers = format!("resolve = \"all\"\nservers = [\"nas.test:{PORT}\"]");
    let coracle = Coracle::start(&config(&servers));
    are(&coracle, &[2, 3], &[]);
    let (count, mut old) = connect(&coracle, 4);
    assert_eq!(count, [(2, 2), (3, 2)].into());

    dnsmasq.change("127.0.0.3 nas.test\n127.0.0.4 nas.test\n");
    coracle.logged(&format!(
        "the name has this address\" service=s server=\"{}\"",
        label(4)
    ));
    coracle.logged(&format!(
        "the name no longer has this address\" service=s server=\"{}\"",
        label(2)
    ));
    are(&coracle, &[3, 4], &[2]);
    let (count, new) = connect(&coracle, 4);
    assert_eq!(count, [(3, 2), (4, 2)].into());
    old.iter_mut().for_each(|(_, client)| client.echoes());
    // A server that is gone lives as long as its connections.
    drop((old, new));
    are(&coracle, &[3, 4], &[]);

    // Without a resolver the last answer stays.
    drop(dnsmasq);
    coracle.logged("cannot resolve the name; retrying");
    are(&coracle, &[3, 4], &[]);
    assert_eq!(connect(&coracle, 2).0, [(3, 1), (4, 1)].into());
    let _dnsmasq = Dnsmasq::start("127.0.0.2 nas.test\n");
    coracle.logged("the name resolves again");
    are(&coracle, &[2], &[]);
    assert_eq!(connect(&coracle, 2).0, [(2, 2)].into());
    // One line for each: 2, 3, 4, and 2 again.
    assert_eq!(lines_with(&coracle, "the name has this address"), 4);
    assert_eq!(
        lines_with(&coracle, "the name no longer has this address"),
        3
    );
}

#[test]
fn one_name_is_one_server_by_default() {
    let name = "resolve::one_name_is_one_server_by_default";
    if !namespace::enter(name, SETUP) {
        return;
    }
    let _servers = [2, 3].map(serve);
    std::fs::write("/mnt/hosts", "127.0.0.2 nas.test\n127.0.0.3 nas.test\n").unwrap();
    let coracle = Coracle::start(&config(&format!("servers = [\"nas.test:{PORT}\"]")));
    let (count, _clients) = connect(&coracle, 4);
    assert_eq!(count.len(), 1, "always the first that answers: {count:?}");
    std::fs::write("/mnt/hosts", "127.0.0.3 nas.test\n").unwrap();
    until("its address is another one", || {
        connect(&coracle, 1).0.contains_key(&3).then_some(())
    });
    assert_eq!(lines_with(&coracle, "this address"), 0);
    let metrics = scrape(coracle.admin);
    let of = format!("server=\"nas.test:{PORT}\"");
    assert_eq!(metrics.sum_where("coracle_server_up", &of), 1.0);
}

#[test]
fn client_in_the_queue_gets_a_server_that_appears() {
    let name = "resolve::client_in_the_queue_gets_a_server_that_appears";
    if !namespace::enter(name, SETUP) {
        return;
    }
    let _servers = [2, 3].map(serve);
    std::fs::write("/mnt/hosts", "127.0.0.2 nas.test\n").unwrap();
    let servers = format!("servers = [{{ address = \"nas.test:{PORT}\", max_connections = 1 }}]");
    let servers = format!("resolve = \"all\"\nqueue_timeout = \"1h\"\n{servers}");
    let coracle = Coracle::start(&config(&servers));
    are(&coracle, &[2], &[]);
    let (_, mut first) = connect(&coracle, 1);
    let mut second = Client::connect(coracle.address("e"));
    until("it waits", || {
        let queued = scrape(coracle.admin).sum("coracle_queue_length");
        (queued == 1.0).then_some(())
    });
    std::fs::write("/mnt/hosts", "127.0.0.3 nas.test\n").unwrap();
    assert_eq!(second.read(), 3);
    second.echoes();
    first[0].1.echoes();
}

#[test]
fn checks_follow_the_addresses_and_ask_for_the_name() {
    let name = "resolve::checks_follow_the_addresses_and_ask_for_the_name";
    if !namespace::enter(name, SETUP) {
        return;
    }
    let said = [2, 3].map(serve);
    std::fs::write("/mnt/hosts", "127.0.0.2 nas.test\n").unwrap();
    let health = "health = { kind = \"http\", interval = \"200ms\", fall = 2 }\nmax_fails = 0";
    let servers = format!("resolve = \"all\"\nservers = [\"nas.test:{PORT}\"]\n{health}");
    let coracle = Coracle::start(&config(&servers));
    let host = format!("\r\nHost: nas.test:{PORT}\r\n").to_lowercase();
    for (last, said) in [2, 3].into_iter().zip(said) {
        std::fs::write("/mnt/hosts", format!("127.0.0.{last} nas.test\n")).unwrap();
        let request = said.recv().unwrap();
        assert!(request.to_lowercase().contains(&host), "{request}");
        are(&coracle, &[last], &[]);
        // It speaks no HTTP.
        until("it is down", || {
            let log = coracle.log();
            let of =
                |line: &&String| line.contains("server is down: ") && line.contains(&label(last));
            log.iter().find(of).map(drop)
        });
    }
}

#[test]
fn reload_keeps_the_addresses_and_switches_between_one_server_and_all() {
    let name = "resolve::reload_keeps_the_addresses_and_switches_between_one_server_and_all";
    if !namespace::enter(name, SETUP) {
        return;
    }
    let _servers = [2, 3].map(serve);
    std::fs::write("/mnt/hosts", "127.0.0.2 nas.test\n127.0.0.3 nas.test\n").unwrap();
    let admin = "[admin]\nlisten = \"127.0.0.1:5002\"\nsocket = \"off\"\n";
    let with = |rest: &str| {
        let config = config(&format!("servers = [\"nas.test:{PORT}\"]\n{rest}"));
        config.replace("127.0.0.1:0", "127.0.0.1:5000") + admin
    };
    let coracle = Coracle::start(&with("resolve = \"all\""));
    are(&coracle, &[2, 3], &[]);
    let (_, clients) = connect(&coracle, 2);
    assert!(coracle.reload(&with("resolve = \"all\"\nbalance = \"random\"")));
    are(&coracle, &[2, 3], &[]);
    let open = scrape(coracle.admin).sum_where("coracle_service_open_connections", "(nas.test");
    assert_eq!(open, 2.0, "the servers are the same ones");
    assert!(coracle.reload(&with("resolve = \"first\"")));
    assert_eq!(connect(&coracle, 4).0.len(), 1);
    assert!(coracle.reload(&with("resolve = \"all\"")));
    are(&coracle, &[2, 3], &[]);
    assert_eq!(connect(&coracle, 4).0, [(2, 2), (3, 2)].into());
    drop(clients);
    // The answer was known all the time.
    assert_eq!(lines_with(&coracle, "the name has this address"), 2);
}

#[test]
fn resolver_that_hangs_blocks_or_truncates_takes_no_address_away() {
    let name = "resolve::resolver_that_hangs_blocks_or_truncates_takes_no_address_away";
    if !has_tool("dnsmasq") || !namespace::enter(name, SETUP) {
        return;
    }
    let _servers = [2, 3].map(serve);
    let dnsmasq = Dnsmasq::start("127.0.0.2 nas.test\n");
    let servers = format!("resolve = \"all\"\nservers = [\"nas.test:{PORT}\"]");
    let coracle = Coracle::start(&config(&servers));
    are(&coracle, &[2], &[]);
    // It blocks the name.
    dnsmasq.change("0.0.0.0 nas.test\n:: nas.test\n");
    coracle.logged("the resolver blocks the name");
    assert_eq!(connect(&coracle, 1).0, [(2, 1)].into());
    dnsmasq.change("127.0.0.3 nas.test\n");
    are(&coracle, &[3], &[]);
    // It hangs.
    let failures = lines_with(&coracle, "cannot resolve the name; retrying");
    kill_process(Pid::from_child(&dnsmasq.0), Signal::STOP).unwrap();
    until("the look-up fails", || {
        let now = lines_with(&coracle, "cannot resolve the name; retrying");
        (now > failures).then_some(())
    });
    assert_eq!(connect(&coracle, 1).0, [(3, 1)].into());
    kill_process(Pid::from_child(&dnsmasq.0), Signal::CONT).unwrap();
    // Its answer has more addresses than fit into 512 bytes, so it comes over TCP.
    let lasts: Vec<u8> = (2..102).collect();
    let records = lasts.iter().map(|it| format!("127.0.0.{it} nas.test\n"));
    dnsmasq.change(&records.collect::<String>());
    are(&coracle, &lasts, &[]);
}
