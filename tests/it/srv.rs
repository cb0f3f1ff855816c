//! SRV names: servers with the ports, weights and priorities that dnsmasq answers with, and
//! resolvers that lie, hang and truncate. Each test has a network of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::{has_tool, namespace, until};

use super::resolve::{Dnsmasq, PORT, SETUP, config, connect, serve, servers_are};

const NAME: &str = "_e._tcp.test";
const HOSTS: &str = "127.0.0.2 a.test\n127.0.0.3 b.test\n127.0.0.4 c.test\n";

fn are(coracle: &Coracle, name: &str, lasts: &[u8]) {
    let label = |last| format!("127.0.0.{last}:{PORT} ({name})");
    servers_are(coracle, lasts.iter().map(label).collect());
}

fn record(target: &str, priority: u16, weight: u16) -> String {
    format!("--srv-host={NAME},{target}.test,{PORT},{priority},{weight}")
}

fn dnsmasq(records: &[(&str, u16, u16)]) -> Dnsmasq {
    let records = records
        .iter()
        .map(|(target, priority, weight)| record(target, *priority, *weight));
    let records: Vec<_> = records.collect();
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    Dnsmasq::start_with(HOSTS, &records)
}

#[test]
fn records_of_a_real_resolver_give_ports_weights_and_priorities() {
    let name = "srv::records_of_a_real_resolver_give_ports_weights_and_priorities";
    if !has_tool("dnsmasq") || !namespace::enter(name, SETUP) {
        return;
    }
    let _servers = [2, 3, 4].map(serve);
    let resolver = dnsmasq(&[("a", 10, 1), ("b", 10, 3), ("c", 20, 9)]);
    let coracle = Coracle::start(&config(&format!("servers = [\"{NAME}\"]")));
    are(&coracle, NAME, &[2, 3, 4]);
    let (count, old) = connect(&coracle, 8);
    assert_eq!(count, [(2, 2), (3, 6)].into(), "the third is a backup");

    // The same servers with other weights, of which 0 is a small share.
    drop(resolver);
    let resolver = dnsmasq(&[("a", 10, 3), ("b", 10, 0), ("c", 20, 9)]);
    until("the weights are others", || {
        (connect(&coracle, 4).0 == [(2, 3), (3, 1)].into()).then_some(())
    });

    drop(resolver);
    let resolver = dnsmasq(&[("a", 10, 1), ("c", 5, 0)]);
    coracle.logged(&format!(
        "the name no longer has this address\" service=s server=\"127.0.0.3:{PORT} ({NAME})\""
    ));
    drop(old);
    are(&coracle, NAME, &[2, 4]);
    assert_eq!(connect(&coracle, 4).0, [(4, 4)].into());

    // Without a resolver the last answer stays.
    drop(resolver);
    coracle.logged("cannot resolve the name; retrying");
    assert_eq!(connect(&coracle, 2).0, [(4, 2)].into());
    are(&coracle, NAME, &[2, 4]);
}

#[test]
fn search_domains_complete_a_name() {
    let name = "srv::search_domains_complete_a_name";
    if !has_tool("dnsmasq") || !namespace::enter(name, SETUP) {
        return;
    }
    let conf = "search nowhere.test test\nnameserver 127.0.0.9\nnameserver 127.0.0.1\n";
    std::fs::write("/mnt/resolv.conf", conf).unwrap();
    let _servers = [2].map(serve);
    let _resolver = dnsmasq(&[("a", 10, 1)]);
    let coracle = Coracle::start(&config("servers = [\"_e._tcp\"]"));
    assert_eq!(connect(&coracle, 1).0, [(2, 1)].into());
    are(&coracle, "_e._tcp", &[2]);
}

/// What the resolver at 127.0.0.1 does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Answers,
    /// Three wrong answers and one from another port come first.
    Lies,
    /// The name in the answer points at itself.
    Loops,
    Hangs,
    /// The answer comes over TCP, in single bytes.
    Truncates,
    /// As [`Mode::Truncates`], but nothing comes.
    HangsOverTcp,
    /// The service is not offered.
    OffersNothing,
}

/// A resolver whose records have one target: a letter and `.test`.
#[derive(Clone)]
struct Resolver(Arc<Mutex<(Mode, u8)>>);

impl Resolver {
    fn start() -> Self {
        let resolver = Self(Arc::new(Mutex::new((Mode::Answers, b'a'))));
        let udp = UdpSocket::bind("127.0.0.1:53").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:53").unwrap();
        let of_udp = resolver.clone();
        thread::spawn(move || {
            let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut query = [0; 512];
            while let Ok((n, from)) = udp.recv_from(&mut query) {
                of_udp.datagram(&udp, &elsewhere, &query[..n], from);
            }
        });
        let of_tcp = resolver.clone();
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in tcp.incoming() {
                hanging.extend(of_tcp.stream(stream.unwrap()));
            }
        });
        resolver
    }

    fn set(&self, mode: Mode, target: u8) {
        *self.0.lock().unwrap() = (mode, target);
    }

    /// Answers over TCP. Returns the connection if no answer comes.
    fn stream(&self, mut stream: TcpStream) -> Option<TcpStream> {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).ok()?;
        let (mode, target) = *self.0.lock().unwrap();
        if mode != Mode::Truncates {
            return Some(stream);
        }
        let answer = answer(&query, Some(target));
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        for byte in [&length, answer.as_slice()].concat() {
            let _ = stream.write_all(&[byte]);
        }
        None
    }

    fn datagram(&self, udp: &UdpSocket, elsewhere: &UdpSocket, query: &[u8], from: SocketAddr) {
        let (mode, target) = *self.0.lock().unwrap();
        let right = answer(query, (mode != Mode::OffersNothing).then_some(target));
        let lie = |at: usize, bits: u8| {
            let mut lie = answer(query, Some(b'c'));
            lie[at] ^= bits;
            udp.send_to(&lie, from).unwrap();
        };
        match mode {
            Mode::Hangs => return,
            Mode::Truncates | Mode::HangsOverTcp => {
                let mut short = right[..query.len()].to_vec();
                short[2] |= 2;
                short[7] = 0;
                udp.send_to(&short, from).unwrap();
                return;
            }
            Mode::Loops => {
                let mut loops = right;
                let at = query.len();
                let itself = 0xc000 | u16::try_from(at).unwrap();
                loops[at..at + 2].copy_from_slice(&itself.to_be_bytes());
                udp.send_to(&loops, from).unwrap();
                return;
            }
            Mode::Lies => {
                // Another id, another question, and a query instead of an answer.
                lie(1, 1);
                lie(14, 1);
                lie(2, 0x80);
                udp.send_to(b"?", from).unwrap();
                elsewhere.send_to(&answer(query, Some(b'c')), from).unwrap();
            }
            Mode::Answers | Mode::OffersNothing => {}
        }
        udp.send_to(&right, from).unwrap();
    }
}

/// Returns an answer with one record, whose target is a letter and `.test`, or the root.
fn answer(query: &[u8], target: Option<u8>) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x84;
    answer[7] = 1;
    let mut data = vec![0, 10, 0, 1];
    data.extend(PORT.to_be_bytes());
    if let Some(letter) = target {
        data.extend([1, letter, 4]);
        data.extend(b"test");
    }
    data.push(0);
    answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 0, 0]);
    answer.push(u8::try_from(data.len()).unwrap());
    answer.extend(data);
    answer
}

#[test]
fn resolver_that_lies_hangs_or_truncates_takes_no_server_away() {
    let name = "srv::resolver_that_lies_hangs_or_truncates_takes_no_server_away";
    if !namespace::enter(name, SETUP) {
        return;
    }
    std::fs::write("/mnt/hosts", HOSTS).unwrap();
    let _servers = [2, 3, 4].map(serve);
    let resolver = Resolver::start();
    // The very first connection waits for the answer.
    let coracle = Coracle::start(&config(&format!("servers = [\"{NAME}\"]")));
    assert_eq!(connect(&coracle, 1).0, [(2, 1)].into());
    let mut good = [(b'b', 3), (b'a', 2)].into_iter().cycle();
    let mut last = 2;
    are(&coracle, NAME, &[last]);
    for (mode, why) in [
        (Mode::Loops, "the answer is malformed"),
        (Mode::Hangs, "no answer"),
        (Mode::HangsOverTcp, "no answer"),
    ] {
        // It would be another server if the answer were taken.
        let failure = format!("name server 127.0.0.1: {why}");
        let failures = || {
            coracle
                .log()
                .iter()
                .filter(|it| it.contains(&failure))
                .count()
        };
        let before = failures();
        resolver.set(mode, b'c');
        until(&failure, || (failures() > before).then_some(()));
        are(&coracle, NAME, &[last]);
        assert_eq!(connect(&coracle, 1).0, [(last, 1)].into());
        for mode in [Mode::Lies, Mode::Truncates, Mode::Answers] {
            let (target, now) = good.next().unwrap();
            resolver.set(mode, target);
            are(&coracle, NAME, &[now]);
            last = now;
        }
    }
    let lies = coracle
        .log()
        .iter()
        .filter(|it| it.contains("127.0.0.4"))
        .count();
    assert_eq!(lies, 0, "no lie was taken");
}

#[test]
fn service_that_is_not_offered_has_no_server() {
    let name = "srv::service_that_is_not_offered_has_no_server";
    if !namespace::enter(name, SETUP) {
        return;
    }
    std::fs::write("/mnt/hosts", HOSTS).unwrap();
    let _servers = [2].map(serve);
    let resolver = Resolver::start();
    let coracle = Coracle::start(&config(&format!("servers = [\"{NAME}\"]")));
    are(&coracle, NAME, &[2]);
    resolver.set(Mode::OffersNothing, b'a');
    servers_are(&coracle, vec![NAME.to_owned()]);
    let mut client = TcpStream::connect(coracle.address("e")).unwrap();
    // It is reset.
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    coracle.logged("cannot resolve the name: the domain does not offer this service");
    assert_eq!(scrape(coracle.admin).sum("coracle_open_connections"), 0.0);
    resolver.set(Mode::Answers, b'a');
    are(&coracle, NAME, &[2]);
    assert_eq!(connect(&coracle, 1).0, [(2, 1)].into());
}
