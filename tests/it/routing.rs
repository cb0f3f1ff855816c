//! `routes`: each kind of rule leads where it says, whatever pieces the client's bytes come in, and
//! what decides about a connection delays no other.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

use coracle::wire::proxy_header::{Client, Version};
use serde_json::Value;

use crate::support::backend::reset_on_close;
use crate::support::fleet::{Member, Session, closed, is_turned_away, reloadable};
use crate::support::http::{get, http};
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::rng::Rng;
use crate::support::{DEADLINE, lasting_address, rng, until};

const SERVICES: [&str; 6] = ["nas", "lan", "web", "ssh", "bytes", "vpn"];
const RULES: &str = r#"[
  { name = "nas", sni = ["nas.example.org", "*.nas.lan"], service = "nas" },
  { sni = "*.lan", service = "lan" },
  { alpn = "h2", service = "web" },
  { host = ["a.example", "*.b.example"], service = "web" },
  { starts = ["ssh", "socks5"], service = "ssh" },
  { starts_with = ["hex:00 ff", "@HELLO"], service = "bytes" },
]"#;
/// What clients send, the label of the route that they take, and the service at its end.
const CASES: [(&str, &str, &str); 17] = [
    ("tls nas.example.org", "nas", "nas"),
    ("tls NAS.example.org.", "nas", "nas"),
    ("tls a.b.nas.lan h2", "nas", "nas"),
    ("tls web.lan h2", "2", "lan"),
    ("tls web.org h2", "3", "web"),
    ("tls web.org http/1.1", "default", "vpn"),
    ("tls - h2", "3", "web"),
    ("tls -", "default", "vpn"),
    (
        "GET / HTTP/1.1\r\nHost: A.example:8080\r\n\r\nbody",
        "4",
        "web",
    ),
    ("GET / HTTP/1.1\r\nHost: x.b.example\r\n\r\n", "4", "web"),
    (
        "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "default",
        "vpn",
    ),
    ("SSH-2.0-OpenSSH_10.0\r\n", "5", "ssh"),
    ("\x05\x01\0", "5", "ssh"),
    ("@HELLO you", "6", "bytes"),
    ("\x16\x03\x01\0\x04\x02\0\0\0", "default", "vpn"),
    ("\x7f anything", "default", "vpn"),
    ("@HELL", "", ""),
];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A ClientHello. `more` bytes of padding make it longer.
fn hello(name: Option<&str>, alpn: &[&str], more: usize) -> Vec<u8> {
    fn sized(bytes: usize, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&length[4 - bytes..], body].concat()
    }
    let mut extensions = [&[0, 21][..], &sized(2, &vec![0; more])].concat();
    if let Some(name) = name {
        let list = [&[0][..], &sized(2, name.as_bytes())].concat();
        extensions.extend([&[0, 0][..], &sized(2, &sized(2, &list))].concat());
    }
    if !alpn.is_empty() {
        let list: Vec<u8> = alpn.iter().flat_map(|it| sized(1, it.as_bytes())).collect();
        extensions.extend([&[0, 16][..], &sized(2, &sized(2, &list))].concat());
    }
    let body = [
        &[3, 3][..],
        &[7; 32],
        &sized(1, &[]),
        &sized(2, &[0x13, 1]),
        &sized(1, &[0]),
        &sized(2, &extensions),
    ];
    let message = [&[1][..], &sized(3, &body.concat())].concat();
    [&[22, 3, 1][..], &sized(2, &message)].concat()
}

/// The bytes of a case: `tls NAME ALPN...` stands for a ClientHello.
fn bytes(case: &str) -> Vec<u8> {
    let Some(rest) = case.strip_prefix("tls ") else {
        return case.as_bytes().to_vec();
    };
    let mut words = rest.split(' ');
    let name = words.next().filter(|it| *it != "-");
    hello(name, &words.collect::<Vec<_>>(), 0)
}

/// A server for each service, and an entrypoint `e` with these rules and keys.
struct House {
    members: Vec<Member>,
}

impl House {
    fn new(rng: &mut Rng) -> Self {
        let members = Member::several(SERVICES.len() as u8, rng);
        Self { members }
    }

    fn config(&self, rules: &str, keys: &str) -> String {
        let mut config = format!(
            "[log]\naccess = true\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nroutes = {rules}\n{keys}\n"
        );
        for (name, member) in SERVICES.iter().zip(&self.members) {
            let used = config.contains(&format!("\"{name}\""));
            if used {
                let at = member.address;
                config += &format!("[services.{name}]\nservers = [\"{at}\"]\n");
            }
        }
        config
    }
}

fn is_reset(client: &mut TcpStream) {
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn wait_closed(coracle: &Coracle, reason: &str, n: usize) {
    until(&format!("{n} have closed by {reason}"), || {
        (closed(&scrape(coracle.admin), reason) == n as f64).then_some(())
    });
}

fn service(session: &Session) -> &'static str {
    SERVICES[usize::from(session.server)]
}

fn taken(metrics: &Metrics, route: &str) -> f64 {
    let label = format!("route=\"{route}\"");
    metrics.sum_where("coracle_routed_connections_total", &label)
}

/// The open connections of the API.
fn connections(coracle: &Coracle) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&get(coracle.admin, "/api/v1/connections").2).unwrap();
    answer["connections"].as_array().unwrap().clone()
}

#[test]
fn each_rule_leads_to_its_service_whatever_pieces_the_bytes_come_in() {
    let house = House::new(&mut rng::from_env());
    let coracle = Coracle::start(&house.config(RULES, "service = \"vpn\""));
    let mut done = 0;
    let mut counts = BTreeMap::new();
    for (case, route, expected) in CASES {
        if expected.is_empty() {
            continue;
        }
        let sent = bytes(case);
        for piece in [1, 7, sent.len()] {
            let mut client = connect(coracle.address("e"));
            let peer = client.local_addr().unwrap();
            for piece in sent.chunks(piece) {
                client.write_all(piece).unwrap();
            }
            let mut session = Session::over(client);
            assert_eq!(service(&session), expected, "{case:?}");
            let mut back = vec![0; sent.len()];
            session.stream.read_exact(&mut back).unwrap();
            assert!(back == sent, "{case:?}: not passed on whole");
            session.echo(b"and more");
            let open = connections(&coracle);
            assert_eq!(
                (&open[0]["route"], &open[0]["service"]),
                (&route.into(), &expected.into())
            );
            drop(session);
            done += 1;
            wait_closed(&coracle, "done", done);
            *counts.entry(route).or_insert(0.0) += 1.0;
            let line = coracle.logged(&format!("peer={peer} "));
            assert!(line.contains(&format!("route={route} ")), "{line}");
        }
    }
    let metrics = scrape(coracle.admin);
    for (route, n) in counts {
        assert_eq!(taken(&metrics, route), n, "{route}");
    }
}

#[test]
fn the_client_s_network_alone_reads_nothing() {
    let house = House::new(&mut rng::from_env());
    let rules = r#"[{ from = "192.0.2.0/24", service = "web" }, { from = "127.0.0.0/8", service = "lan" }, { from = ["127.0.0.1", "10.0.0.0/8"], service = "nas" }]"#;
    let coracle = Coracle::start(&house.config(rules, ""));
    // The servers speak first, and get no byte before that.
    let session = Session::open(coracle.address("e"));
    assert_eq!(service(&session), "nas", "the smallest network");
    let rules = rules.replace("127.0.0.0/8", "203.0.113.0/24");
    let rules = rules.replace("127.0.0.1", "203.0.113.1");
    let coracle = Coracle::start(&house.config(&rules, ""));
    is_turned_away(coracle.address("e"));
    coracle.logged("none of the `routes` fits, and there is no `service` for the others; closed");
    wait_closed(&coracle, "no_route", 1);
    let coracle = Coracle::start(&house.config(&rules, "service = \"vpn\""));
    let session = Session::open(coracle.address("e"));
    assert_eq!(service(&session), "vpn");
    assert_eq!(taken(&scrape(coracle.admin), "default"), 1.0);
}

#[test]
fn conditions_of_one_rule_must_all_hold() {
    let house = House::new(&mut rng::from_env());
    let rules = r#"[
        { sni = "nas.lan", alpn = "ssh", service = "ssh" },
        { sni = "nas.lan", from = "192.0.2.0/24", service = "lan" },
        { sni = "nas.lan", from = "127.0.0.0/8", service = "nas" },
        { from = "127.0.0.1", starts = "tls", service = "web" },
    ]"#;
    let coracle = Coracle::start(&house.config(rules, "service = \"vpn\""));
    for (sent, expected) in [
        ("tls nas.lan h2 ssh", "nas"),
        ("tls nas.lan", "nas"),
        ("tls web.lan", "web"),
        ("SSH-2.0-", "vpn"),
    ] {
        let mut client = connect(coracle.address("e"));
        client.write_all(&bytes(sent)).unwrap();
        assert_eq!(service(&Session::over(client)), expected, "{sent}");
    }
}

#[test]
fn a_long_hello_is_passed_on_whole() {
    let house = House::new(&mut rng::from_env());
    let coracle = Coracle::start(&house.config(RULES, "service = \"vpn\""));
    for more in [1_500, 12_000] {
        let sent = hello(Some("nas.example.org"), &[], more);
        let mut client = connect(coracle.address("e"));
        let half = sent.len() / 2;
        client.write_all(&sent[..half]).unwrap();
        client.write_all(&sent[half..]).unwrap();
        let mut session = Session::over(client);
        assert_eq!(service(&session), "nas");
        let mut back = vec![0; sent.len()];
        session.stream.read_exact(&mut back).unwrap();
        assert!(back == sent);
    }
}

#[test]
fn silent_clients_get_servers_that_speak_first_after_a_while() {
    let house = House::new(&mut rng::from_env());
    let keys = "service = \"vpn\"\ndefault_after = \"50ms\"";
    let coracle = Coracle::start(&house.config(RULES, keys));
    let mut session = Session::open(coracle.address("e"));
    assert_eq!(service(&session), "vpn");
    session.echo(&bytes("tls nas.example.org"));
    // What has begun to speak is waited for: this lasts until the silent one after it has its server.
    until("a client that has begun to speak is waited for", || {
        let mut client = connect(coracle.address("e"));
        client.write_all(b"@HELL").unwrap();
        assert_eq!(service(&Session::open(coracle.address("e"))), "vpn");
        client.write_all(b"O").unwrap();
        // On a machine that stalls, it may have been silent for too long.
        (service(&Session::over(client)) == "bytes").then_some(())
    });
    // A network decides about silent clients too.
    let rules =
        r#"[{ sni = "nas.lan", service = "nas" }, { from = "127.0.0.1", service = "lan" }]"#;
    let coracle = Coracle::start(&house.config(rules, keys));
    assert_eq!(service(&Session::open(coracle.address("e"))), "lan");
}

#[test]
fn clients_that_do_not_say_enough_are_closed_at_the_deadline() {
    let house = House::new(&mut rng::from_env());
    let keys = "service = \"vpn\"\nprologue_timeout = \"200ms\"";
    let coracle = Coracle::start(&house.config(RULES, keys));
    let whole = bytes("tls nas.example.org");
    for sent in [&b""[..], b"@HELL", &whole[..5], &whole[..whole.len() - 1]] {
        let mut client = connect(coracle.address("e"));
        // The reset may be faster.
        if client.write_all(sent).is_ok() {
            is_reset(&mut client);
        }
    }
    coracle.logged(
        "no bytes that decide between the `routes` within 200ms (prologue_timeout); closed",
    );
    wait_closed(&coracle, "prologue", 4);
    let accepted: u64 = house.members.iter().map(Member::accepted).sum();
    assert_eq!(accepted, 0);
}

#[test]
fn header_and_the_bytes_that_decide_share_one_deadline() {
    const CUT: &str = "no bytes that decide between the `routes` within 2s (prologue_timeout)";
    let house = House::new(&mut rng::from_env());
    let keys = "service = \"vpn\"\naccept_proxy = true\ntrusted = \"127.0.0.1\"\n\
                prologue_timeout = \"2s\"";
    let coracle = Coracle::start(&house.config(RULES, keys));
    let address = coracle.address("e");
    let whole = bytes("tls nas.example.org");
    let connects = |n: usize| {
        let client = connect(address);
        until("it is open", || {
            (connections(&coracle).len() == n).then_some(())
        });
        client
    };
    let mut cut = 0;
    until("the headers come before the deadline", || {
        let mut clients = [connects(1), connects(2)];
        // The last client sends nothing at all. The others send their headers when its time already
        // runs, and are nevertheless cut before it.
        let mut silent = connects(3);
        for (client, n) in clients.iter_mut().zip([0, whole.len() - 1]) {
            let header = Version::V1.header(Client::Tcp {
                source: SocketAddr::from(([192, 0, 2, 7], client.local_addr().unwrap().port())),
                destination: address,
            });
            // On a machine that stalls, it is too late.
            let _ = client.write_all(&[&header, &whole[..n]].concat());
        }
        for client in clients.iter_mut().chain([&mut silent]) {
            is_reset(client);
        }
        cut += 3;
        wait_closed(&coracle, "prologue", cut);
        let last = format!("peer={} ", silent.local_addr().unwrap());
        coracle.logged(&last);
        let log = coracle.log();
        let at = |text: &str| log.iter().position(|line| line.contains(text));
        let ports = clients.each_ref().map(|it| it.local_addr().unwrap().port());
        let ends = ports.map(|port| {
            let peer = format!("peer=192.0.2.7:{port}");
            log.iter()
                .position(|line| line.contains(CUT) && line.ends_with(&peer))
        });
        let [Some(first), Some(second)] = ends else {
            return None;
        };
        assert!(first < second && Some(second) < at(&last), "{log:#?}");
        Some(())
    });
    let metrics = scrape(coracle.admin);
    let all = metrics.sum("coracle_connections_closed_total");
    assert_eq!(all, cut as f64, "each is counted once");
    assert_eq!(metrics.sum("coracle_routed_connections_total"), 0.0);
    let accepted: u64 = house.members.iter().map(Member::accepted).sum();
    assert_eq!(accepted, 0);
}

#[test]
fn slow_clients_delay_no_others_and_are_cut_at_the_deadline() {
    const SLOW: usize = 2_000;
    let house = House::new(&mut rng::from_env());
    let keys = "service = \"vpn\"\nprologue_timeout = \"3s\"";
    let coracle = Coracle::start(&house.config(RULES, keys));
    let address = coracle.address("e");
    let whole = hello(Some("nas.example.org"), &[], 10_000);
    let mut slow: Vec<_> = (0..SLOW).map(|_| connect(address)).collect();
    for client in &mut slow {
        client.write_all(&whole[..9]).unwrap();
    }
    let mut sent = 9;
    until("all are cut", || {
        for client in &mut slow {
            let _ = client.write(&whole[sent..=sent]);
        }
        sent = (sent + 1).min(whole.len() - 2);
        // Neither these nor any before them have to wait for those.
        let mut client = connect(address);
        client.write_all(&bytes("tls web.lan")).unwrap();
        assert_eq!(service(&Session::over(client)), "lan");
        (closed(&scrape(coracle.admin), "prologue") == SLOW as f64).then_some(())
    });
    assert_eq!(house.members[0].accepted(), 0);
}

#[test]
fn ends_before_the_decision_are_ends() {
    let house = House::new(&mut rng::from_env());
    let coracle = Coracle::start(&house.config(RULES, "service = \"vpn\""));
    // What is known decides, and the server gets the bytes and the end.
    let whole = bytes("tls nas.example.org");
    for sent in [&b""[..], b"@HELL", &whole[..20]] {
        let mut client = connect(coracle.address("e"));
        client.write_all(sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut session = Session::over(client);
        assert_eq!(service(&session), "vpn");
        let mut back = Vec::new();
        session.stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, sent);
    }
    wait_closed(&coracle, "done", 3);
    let before: u64 = house.members.iter().map(Member::accepted).sum();
    let mut client = connect(coracle.address("e"));
    client.write_all(b"@HELL").unwrap();
    until("it waits for the rest", || {
        let all = connections(&coracle);
        let state = |it: &Value| it["state"] == "prologue" && it["service"].is_null();
        all.first().is_some_and(state).then_some(())
    });
    reset_on_close(&client);
    drop(client);
    wait_closed(&coracle, "client_reset", 1);
    let after: u64 = house.members.iter().map(Member::accepted).sum();
    assert_eq!(before, after);
}

#[test]
fn the_client_that_a_proxy_names_decides() {
    let house = House::new(&mut rng::from_env());
    let rules = r#"[{ sni = "nas.lan", from = "192.0.2.0/24", service = "nas" }, { from = "203.0.113.0/24", service = "lan" }]"#;
    let keys = "service = \"vpn\"\naccept_proxy = true\ntrusted = \"127.0.0.1\"";
    let coracle = Coracle::start(&house.config(rules, keys));
    for (source, expected) in [
        ("192.0.2.7:1", "nas"),
        ("203.0.113.1:1", "lan"),
        ("198.51.100.1:1", "vpn"),
    ] {
        let client = Client::Tcp {
            source: source.parse().unwrap(),
            destination: "192.0.2.1:443".parse().unwrap(),
        };
        for version in [Version::V1, Version::V2] {
            let whole = [version.header(client), bytes("tls nas.lan")].concat();
            for piece in [1, whole.len()] {
                let mut stream = connect(coracle.address("e"));
                for piece in whole.chunks(piece) {
                    stream.write_all(piece).unwrap();
                }
                let mut session = Session::over(stream);
                assert_eq!(service(&session), expected, "{source}");
                let mut back = vec![0; bytes("tls nas.lan").len()];
                session.stream.read_exact(&mut back).unwrap();
                assert!(back == bytes("tls nas.lan"));
            }
        }
    }
}

#[test]
fn a_reload_changes_the_rules_and_leaves_connections_open() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let house = House::new(&mut rng);
    let config = |rules: &str, keys: &str| reloadable(admin, listen, &house.config(rules, keys));
    let none = house
        .config("", "service = \"vpn\"")
        .replace("routes = \n", "");
    let coracle = Coracle::start(&reloadable(admin, listen, &none));
    let open = |sent: &str| {
        let mut client = connect(listen);
        client.write_all(&bytes(sent)).unwrap();
        let mut session = Session::over(client);
        let mut back = vec![0; bytes(sent).len()];
        session.stream.read_exact(&mut back).unwrap();
        session
    };
    let mut sessions = vec![open("tls web.lan")];
    assert_eq!(service(&sessions[0]), "vpn");
    assert_eq!(
        scrape(admin)
            .series("coracle_routed_connections_total")
            .count(),
        0
    );
    let first = r#"[{ name = "a", sni = "*.lan", service = "lan" }]"#;
    assert!(coracle.reload(&config(first, "service = \"vpn\"")));
    coracle.logged("entrypoint e: routes sni *.lan to service lan (called a)");
    sessions.push(open("tls web.lan"));
    // This one keeps the rules that it began with.
    let mut waiting = connect(listen);
    waiting.write_all(&bytes("tls web.lan")[..9]).unwrap();
    until("it waits", || {
        let all = connections(&coracle);
        all.iter().any(|it| it["state"] == "prologue").then_some(())
    });
    let second =
        r#"[{ sni = "x.lan", service = "web" }, { name = "a", sni = "web.lan", service = "nas" }]"#;
    assert!(coracle.reload(&config(second, "")));
    coracle.logged("entrypoint e: forwards to no service by default instead of service vpn");
    waiting.write_all(&bytes("tls web.lan")[9..]).unwrap();
    sessions.push(Session::over(waiting));
    let sent = bytes("tls web.lan");
    sessions[2]
        .stream
        .read_exact(&mut vec![0; sent.len()])
        .unwrap();
    sessions.push(open("tls web.lan"));
    sessions.push(open("tls x.lan"));
    let services: Vec<_> = sessions.iter().map(service).collect();
    assert_eq!(services, ["vpn", "lan", "lan", "nas", "web"]);
    let metrics = scrape(admin);
    assert_eq!((taken(&metrics, "a"), taken(&metrics, "1")), (3.0, 1.0));
    assert!(coracle.reload(&reloadable(admin, listen, &none)));
    for session in &mut sessions {
        session.echo(b"still here");
    }
    assert_eq!(scrape(admin).sum("coracle_open_connections"), 5.0);
    assert_eq!(
        scrape(admin)
            .series("coracle_routed_connections_total")
            .count(),
        0
    );
}

#[test]
fn services_of_rules_are_services_like_all_others() {
    let mut rng = rng::from_env();
    let mut members = Member::several(3, &mut rng);
    let [a, b, c] = [0, 1, 2].map(|n: usize| members[n].address);
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nroutes = [{{ starts_with = \"x\", service = \"s\" }}]\nservice = \"t\"\n\
         [services.s]\nservers = [\"{a}\", \"{b}\"]\nhealth = {{ interval = \"10ms\", fall = 1, rise = 1 }}\n\
         [services.t]\nservers = [\"{c}\"]\n"
    ));
    let session = || {
        let mut client = connect(coracle.address("e"));
        client.write_all(b"x").unwrap();
        Session::over(client)
    };
    let (first, second) = (session(), session());
    assert_ne!(first.server, second.server, "they take turns");
    members[0].die();
    members[0].counts_as_up(coracle.admin, false);
    for _ in 0..4 {
        assert_eq!(session().server, 1);
    }
    members[0].come();
    members[0].counts_as_up(coracle.admin, true);
    until("it gets connections again", || {
        (session().server == 0).then_some(())
    });
}

/// Many clients at once that send all sorts of things and end in all sorts of ways.
#[test]
fn a_random_mix_is_counted_exactly() {
    const THREADS: usize = 8;
    const EACH: usize = 60;
    let mut rng = rng::from_env();
    let house = House::new(&mut rng);
    let keys = "service = \"vpn\"\nprologue_timeout = \"10m\"";
    let coracle = Coracle::start(&house.config(RULES, keys));
    let address = coracle.address("e");
    let run = |mut rng: Rng| {
        let (mut taken, mut cut) = (BTreeMap::<&str, usize>::new(), 0);
        for _ in 0..EACH {
            let (case, route, expected) = CASES[rng.usize(..CASES.len())];
            let sent = bytes(case);
            let mut client = connect(address);
            let piece = 1 + rng.usize(..sent.len());
            for piece in sent.chunks(piece) {
                client.write_all(piece).unwrap();
            }
            if expected.is_empty() {
                cut += 1;
                reset_on_close(&client);
                continue;
            }
            let mut session = Session::over(client);
            assert_eq!(service(&session), expected, "{case:?}");
            *taken.entry(route).or_default() += 1;
            session.stream.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            session.stream.read_to_end(&mut back).unwrap();
            assert!(back == sent);
        }
        (taken, cut)
    };
    let mut taken_in_all = BTreeMap::<&str, usize>::new();
    let mut cut = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let rng = Rng::with_seed(rng.u64(..));
                scope.spawn(move || run(rng))
            })
            .collect();
        for thread in threads {
            let (taken, own) = thread.join().unwrap();
            cut += own;
            for (route, n) in taken {
                *taken_in_all.entry(route).or_default() += n;
            }
        }
    });
    wait_closed(&coracle, "done", THREADS * EACH - cut);
    wait_closed(&coracle, "client_reset", cut);
    let metrics = scrape(coracle.admin);
    let all = (THREADS * EACH) as f64;
    assert_eq!(metrics.sum("coracle_connections_opened_total"), all);
    assert_eq!(metrics.sum("coracle_open_connections"), 0.0);
    for (route, n) in taken_in_all {
        assert_eq!(taken(&metrics, route), n as f64, "{route}");
    }
    let routed = metrics.sum("coracle_routed_connections_total");
    assert_eq!(routed, all - cut as f64);
}

#[test]
fn every_view_shows_the_rules_and_who_took_which() {
    let house = House::new(&mut rng::from_env());
    let coracle = Coracle::start(&house.config(RULES, "service = \"vpn\""));
    let _sessions = [("tls nas.example.org", 2), ("tls -", 1)].map(|(sent, n)| {
        let all = (0..n).map(|_| {
            let mut client = connect(coracle.address("e"));
            client.write_all(&bytes(sent)).unwrap();
            Session::over(client)
        });
        all.collect::<Vec<_>>()
    });
    let expected = [
        ("nas", "nas", 2),
        ("2", "lan", 0),
        ("3", "web", 0),
        ("4", "web", 0),
        ("5", "ssh", 0),
        ("6", "bytes", 0),
        ("default", "vpn", 1),
    ];
    let status: Value = serde_json::from_str(&get(coracle.admin, "/api/v1/status").2).unwrap();
    let routes = expected.map(|(route, service, connections)| {
        serde_json::json!({ "route": route, "service": service, "connections": connections })
    });
    assert_eq!(
        status["entrypoints"][0]["routes"],
        Value::from(routes.to_vec())
    );
    let run = |command: &str| {
        let mut run = Command::new(binary());
        run.args([command, "--admin", &coracle.admin.to_string()]);
        String::from_utf8(run.output().unwrap().stdout).unwrap()
    };
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed = run("status");
    let begin = printed.find("ENTRYPOINT  ROUTE").unwrap();
    for ((route, service, n), line) in expected.iter().zip(printed[begin..].lines().skip(1)) {
        assert_eq!(words(line), format!("e {route} {service} {n}"));
    }
    let listed = run("list");
    for (text, n) in [(" nas (route nas) ", 2), (" vpn (route default) ", 1)] {
        let lines = listed.lines().map(words);
        assert_eq!(
            lines.filter(|line| line.contains(text)).count(),
            n,
            "{listed}"
        );
    }
    let page =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/html\r\n\r\n";
    let page = http(coracle.admin, page).2;
    let texts = expected.map(|(route, service, n)| format!("{route} → {service}: {n}"));
    assert!(page.contains(&texts.join(", ")), "{page}");
    assert_eq!(page.matches("<td>e (route nas)").count(), 2, "{page}");
}
