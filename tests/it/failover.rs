//! Several servers of one service: who gets a connection when some of them are down, and what a
//! client sees of it, which is nothing if another server can serve it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::RwLock;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::support::backend::{Silent, pattern};
use crate::support::fleet::{
    Member, Session, addresses, closed, is_turned_away, service, shares, with,
};
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::rng;
use crate::support::{DEADLINE, until};

/// Servers go down at the first failure.
const AT_ONCE: &str = "max_fails = 1";
/// Failures take no server down.
const NEVER: &str = "max_fails = 0";

/// Expects the client's connection to be reset.
fn is_reset(mut client: TcpStream) {
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn connect(coracle: &Coracle) -> TcpStream {
    TcpStream::connect(coracle.address("e")).unwrap()
}

fn open(coracle: &Coracle, n: usize) -> Vec<Session> {
    let address = coracle.address("e");
    (0..n).map(|_| Session::open(address)).collect()
}

#[test]
fn no_client_sees_that_one_of_three_servers_is_down_for_a_while() {
    const WORKERS: usize = 8;
    const EACH: usize = 125;
    let mut rng = rng::from_env();
    let mut members = Member::several(3, &mut rng);
    let config = service(&addresses(&members), "fail_window = \"1h\"");
    let coracle = Coracle::start(&config);
    // No connection is being made at the moment of a kill: the kernel resets those that it has
    // accepted and the server has not, which nobody could save.
    let quiet = RwLock::new(());
    let one = || {
        let _not_now = quiet.read().unwrap();
        Session::open(coracle.address("e")).echo(b"hello");
    };
    let load = |goes_on: &(dyn Fn() -> bool + Sync)| {
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    (0..EACH).for_each(|_| one());
                    until("the load ends", || {
                        one();
                        (!goes_on()).then_some(())
                    });
                });
            }
        });
    };
    let failed =
        |member: &Member| member.metric(&scrape(coracle.admin), "coracle_connect_errors_total", "");
    load(&|| false);
    assert!(members.iter().all(|it| it.accepted() > 0));

    thread::scope(|scope| {
        let killing = scope.spawn(|| {
            until("the load is running", || {
                (scrape(coracle.admin).sum("coracle_connections_opened_total") > 1_500.0)
                    .then_some(())
            });
            let _quiet = quiet.write().unwrap();
            members[1].go();
        });
        load(&|| !killing.is_finished());
    });
    let accepted = members[1].accepted();
    // Two trials have failed, too: the first a second after it went down, the next two later.
    load(&|| failed(&members[1]) < 5.0);
    assert_eq!(members[1].accepted(), accepted);
    let metrics = scrape(coracle.admin);
    let changes = "coracle_server_state_changes_total";
    let of = |name, label| members[1].metric(&metrics, name, label);
    assert_eq!(of("coracle_server_up", ""), 0.0);
    assert_eq!(of(changes, "to=\"down\""), 1.0);
    assert_eq!(of(changes, "to=\"up\""), 0.0);

    members[1].come();
    load(&|| members[1].accepted() < accepted + 20);
    let metrics = scrape(coracle.admin);
    let of = |name, label| members[1].metric(&metrics, name, label);
    assert_eq!(of("coracle_server_up", ""), 1.0);
    assert_eq!(of(changes, "to=\"up\""), 1.0);
    assert_eq!(of(changes, "to=\"down\""), 1.0);
    // Each failure was followed by one retry, which succeeded.
    let errors = metrics.sum("coracle_connect_errors_total");
    assert_eq!(errors, of("coracle_connect_errors_total", ""));
    assert_eq!(metrics.sum("coracle_retries_total"), errors);
    assert_eq!(closed(&metrics, "connect_failed"), 0.0);
    assert_eq!(metrics.sum_where(changes, "to=\"down\""), 1.0);
}

#[test]
fn server_that_does_not_answer_costs_connect_timeout_once() {
    let mut rng = rng::from_env();
    let silent = Silent::start();
    let good = Member::up(7, &mut rng);
    let servers = [format!("\"{}\"", silent.address), with(&good, "")];
    let config = service(&servers, &format!("connect_timeout = \"1s\"\n{AT_ONCE}"));
    let coracle = Coracle::start(&config);
    let mut first = Session::open(coracle.address("e"));
    first.echo(b"hello");
    assert_eq!(first.server, 7);
    let line = coracle.logged("server is down: ");
    let why = "1 connection failed: no answer within 1s (connect_timeout)";
    assert!(line.contains(why), "{line}");
    assert!(line.contains(&format!("server={}", silent.address)));
    let metrics = scrape(coracle.admin);
    let timeouts = metrics.sum_where("coracle_connect_errors_total", "reason=\"timeout\"");
    assert_eq!(timeouts, 1.0);
    assert_eq!(metrics.sum("coracle_retries_total"), 1.0);
}

#[test]
fn retries_begin_anew_only_once_each_server_was_tried() {
    let mut rng = rng::from_env();
    let members: Vec<_> = (0..3).map(|id| Member::down(id, &mut rng)).collect();
    for (retries, expected) in [
        ("", [1.0, 1.0, 1.0]),
        ("retries = 2", [1.0, 1.0, 1.0]),
        ("retries = 1", [0.0, 1.0, 1.0]),
        ("retries = 5", [2.0, 2.0, 2.0]),
        ("retries = 3", [1.0, 1.0, 2.0]),
        ("retries = 0", [0.0, 0.0, 1.0]),
    ] {
        let settings = format!("{NEVER}\ndial_timeout = \"1h\"\n{retries}");
        let coracle = Coracle::start(&service(&addresses(&members), &settings));
        is_turned_away(coracle.address("e"));
        let metrics = scrape(coracle.admin);
        let errors = |it: &Member| it.metric(&metrics, "coracle_connect_errors_total", "");
        let mut errors: Vec<_> = members.iter().map(errors).collect();
        errors.sort_by(f64::total_cmp);
        assert_eq!(errors, expected, "{retries}");
        assert_eq!(closed(&metrics, "connect_failed"), 1.0);
        let attempts: f64 = expected.iter().sum();
        assert_eq!(metrics.sum("coracle_retries_total"), attempts - 1.0);
    }
}

#[test]
fn without_retries_one_failure_ends_the_connection() {
    let mut rng = rng::from_env();
    let members = [Member::down(0, &mut rng), Member::up(1, &mut rng)];
    let settings = format!("{NEVER}\nretries = 0");
    let coracle = Coracle::start(&service(&addresses(&members), &settings));
    is_turned_away(coracle.address("e"));
    assert_eq!(closed(&scrape(coracle.admin), "connect_failed"), 1.0);
    assert_eq!(members[1].accepted(), 0);
    assert_eq!(Session::open(coracle.address("e")).server, 1);
}

#[test]
fn server_that_comes_up_during_the_retries_gets_the_connection() {
    let mut rng = rng::from_env();
    let mut member = Member::down(3, &mut rng);
    let settings = format!("{NEVER}\nretries = 50\ndial_timeout = \"1h\"");
    let coracle = Coracle::start(&service(&[with(&member, "")], &settings));
    let mut client = connect(&coracle);
    client.write_all(b"early").unwrap();
    until("two attempts have failed", || {
        let errors = scrape(coracle.admin).sum("coracle_connect_errors_total");
        (errors >= 2.0).then_some(())
    });
    member.come();
    let mut session = Session::over(client);
    session.stream.read_exact(&mut [0; 5]).unwrap();
    session.echo(b"hello");
    let metrics = scrape(coracle.admin);
    let errors = metrics.sum("coracle_connect_errors_total");
    assert_eq!(metrics.sum("coracle_retries_total"), errors);
}

#[test]
fn first_bytes_reach_the_third_server_exactly_once() {
    let mut rng = rng::from_env();
    let silent = Silent::start();
    let refusing = [Member::down(0, &mut rng), Member::down(1, &mut rng)];
    let good = Member::up(2, &mut rng);
    let [one, two] = refusing.each_ref().map(|it| with(it, ""));
    let lists = [
        vec![one.clone(), two.clone()],
        vec![one, format!("\"{}\"", silent.address), two],
    ];
    for mut servers in lists {
        let failures = servers.len();
        // The others come first.
        servers.push(with(&good, ", backup = true"));
        let settings = format!("{NEVER}\nconnect_timeout = \"100ms\"");
        let coracle = Coracle::start(&service(&servers, &settings));
        for n in [1, 10, 5_000, 300_000] {
            let bytes = pattern(n);
            let mut client = connect(&coracle);
            let mut sender = client.try_clone().unwrap();
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut back = Vec::new();
            thread::scope(|scope| {
                scope.spawn(|| {
                    sender.write_all(&bytes).unwrap();
                    sender.shutdown(Shutdown::Write).unwrap();
                });
                client.read_to_end(&mut back).unwrap();
            });
            assert_eq!(back[0], 2, "the server's name");
            assert!(back[1..] == bytes, "{n} bytes became {}", back.len() - 1);
        }
        let failed = scrape(coracle.admin).sum("coracle_connect_errors_total");
        assert_eq!(failed, 4.0 * failures as f64);
    }
}

/// Checks of a port where nobody listens: they take the server down once, and no connection brings
/// it up.
fn failing_checks(port: u16) -> String {
    format!(
        "health = {{ kind = \"tcp\", port = {port}, interval = \"2h\", jitter = \"0s\", fall = 1 }}"
    )
}

#[test]
fn when_down_decides_what_a_service_without_servers_does() {
    let mut rng = rng::from_env();
    let member = Member::up(4, &mut rng);
    let nobody = Member::down(5, &mut rng);
    let checks = failing_checks(nobody.address.port());
    for when_down in ["try", "refuse"] {
        let settings = format!("when_down = \"{when_down}\"\n{checks}");
        let coracle = Coracle::start(&service(&[with(&member, "")], &settings));
        member.counts_as_up(coracle.admin, false);
        if when_down == "try" {
            assert_eq!(Session::open(coracle.address("e")).server, 4);
            continue;
        }
        let accepted = member.accepted();
        is_turned_away(coracle.address("e"));
        let line = coracle.logged("no server available");
        let why = "no server available: each is down, drained or has a weight of 0";
        assert!(line.contains(why), "{line}");
        assert!(line.contains("service=s"), "{line}");
        let metrics = scrape(coracle.admin);
        assert_eq!(closed(&metrics, "no_server"), 1.0);
        assert_eq!(metrics.sum("coracle_connect_errors_total"), 0.0);
        assert_eq!(member.accepted(), accepted);
    }
}

#[test]
fn on_down_decides_what_happens_to_open_connections() {
    let mut rng = rng::from_env();
    for on_down in ["keep", "close"] {
        let mut members = Member::several(2, &mut rng);
        let settings = format!("on_down = \"{on_down}\"\n{AT_ONCE}");
        let coracle = Coracle::start(&service(&addresses(&members), &settings));
        let sessions = open(&coracle, 6);
        assert_eq!(shares(&sessions, 2), [3, 3]);
        members[0].go();
        let others = open(&coracle, 2);
        assert_eq!(shares(&others, 2), [0, 2]);
        members[0].counts_as_up(coracle.admin, false);
        for mut session in sessions.into_iter().chain(others) {
            if on_down == "close" && session.server == 0 {
                is_reset(session.stream);
            } else {
                session.echo(b"still here");
            }
        }
        let expected = if on_down == "close" { 3.0 } else { 0.0 };
        assert_eq!(closed(&scrape(coracle.admin), "server_down"), expected);
    }
}

#[test]
fn backup_is_used_only_while_no_other_is_up() {
    let mut rng = rng::from_env();
    let mut members = Member::several(3, &mut rng);
    let servers = [
        with(&members[0], ", backup = true"),
        with(&members[1], ""),
        with(&members[2], ""),
    ];
    let coracle = Coracle::start(&service(&servers, AT_ONCE));
    assert_eq!(shares(&open(&coracle, 6), 3), [0, 3, 3]);
    members[1].go();
    assert_eq!(shares(&open(&coracle, 4), 3), [0, 0, 4]);
    members[1].counts_as_up(coracle.admin, false);
    members[2].go();
    assert_eq!(shares(&open(&coracle, 4), 3), [4, 0, 0]);
    members[2].counts_as_up(coracle.admin, false);
    members[1].come();
    until("the first is back", || {
        (Session::open(coracle.address("e")).server == 1).then_some(())
    });
    // Trials of the other one fail, and still the backup is not used.
    assert_eq!(shares(&open(&coracle, 6), 3), [0, 6, 0]);
}

#[test]
fn round_robin_shares_by_weight_exactly() {
    let mut rng = rng::from_env();
    let members = Member::several(4, &mut rng);
    let servers = [
        with(&members[0], ", weight = 1"),
        with(&members[1], ", weight = 2"),
        with(&members[2], ", weight = 3"),
        with(&members[3], ", weight = 0"),
    ];
    let coracle = Coracle::start(&service(&servers, ""));
    for _ in 0..10 {
        assert_eq!(shares(&open(&coracle, 6), 4), [1, 2, 3, 0]);
    }
}

#[test]
fn source_leads_a_client_to_the_same_server_always() {
    let mut rng = rng::from_env();
    let members = Member::several(3, &mut rng);
    let servers = addresses(&members);
    let coracle = Coracle::start(&service(&servers, "balance = \"source\""));
    let from = |coracle: &Coracle, n: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let ip = Ipv4Addr::new(127, 0, 0, n);
        socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        socket.connect(&coracle.address("e").into()).unwrap();
        Session::over(socket.into())
    };
    let firsts: Vec<_> = (2..42).map(|n| from(&coracle, n)).collect();
    for (n, first) in (2..42).zip(&firsts) {
        assert_eq!(from(&coracle, n).server, first.server);
    }
    // The ports vary, so the servers' names and shares do.
    let shares = shares(&firsts, 3);
    assert!(shares.iter().all(|share| *share < 40), "{shares:?}");
    // So does a restart, and the order of the servers plays no part.
    let reversed: Vec<_> = servers.into_iter().rev().collect();
    let again = Coracle::start(&service(&reversed, "balance = \"source\""));
    for (n, first) in (2..42).zip(&firsts) {
        assert_eq!(from(&again, n).server, first.server);
    }
}

#[test]
fn least_connections_fills_up_the_server_that_has_fewest() {
    let mut rng = rng::from_env();
    let members = Member::several(3, &mut rng);
    let servers = [
        with(&members[0], ""),
        with(&members[1], ""),
        with(&members[2], ", weight = 2"),
    ];
    let coracle = Coracle::start(&service(&servers, "balance = \"least_connections\""));
    let mut sessions = open(&coracle, 12);
    assert_eq!(shares(&sessions, 3), [3, 3, 6]);
    sessions.retain(|it| it.server != 1);
    until("they have left", || {
        let gauge = "coracle_service_open_connections";
        let open = members[1].metric(&scrape(coracle.admin), gauge, "");
        (open == 0.0).then_some(())
    });
    assert_eq!(shares(&open(&coracle, 3), 3), [0, 3, 0]);
}

#[test]
fn returning_server_starts_slowly() {
    let mut rng = rng::from_env();
    for (slow_start, expected) in [("0s", 50..=50), ("24h", 0..=2)] {
        let mut members = Member::several(2, &mut rng);
        let settings = format!("{AT_ONCE}\nslow_start = \"{slow_start}\"");
        let coracle = Coracle::start(&service(&addresses(&members), &settings));
        assert_eq!(shares(&open(&coracle, 20), 2), [10, 10]);
        members[0].go();
        assert_eq!(shares(&open(&coracle, 20), 2), [0, 20]);
        members[0].come();
        until("it is back", || {
            (Session::open(coracle.address("e")).server == 0).then_some(())
        });
        members[0].counts_as_up(coracle.admin, true);
        let share = shares(&open(&coracle, 100), 2)[0];
        assert!(expected.contains(&share), "{share} with {slow_start}");
    }
}
