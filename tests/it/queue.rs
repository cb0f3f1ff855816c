//! Servers that take few connections at a time: the other clients wait in order.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::support;
use crate::support::fleet::{Member, Session, closed, is_turned_away, reloadable, service, with};
use crate::support::metrics::{Metrics, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::rng;
use crate::support::{DEADLINE, lasting_address, until};

/// For a server that takes one connection at a time.
const ONE: &str = ", max_connections = 1";
/// Nobody waits in vain on a slow machine.
const PATIENT: &str = "queue_timeout = \"1h\"";

fn connect(coracle: &Coracle) -> TcpStream {
    let stream = TcpStream::connect(coracle.address("e")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn queued(metrics: &Metrics) -> f64 {
    metrics.sum("coracle_queue_length")
}

fn queue_is(coracle: &Coracle, n: usize) {
    until(&format!("{n} clients wait"), || {
        (queued(&scrape(coracle.admin)) == n as f64).then_some(())
    });
}

/// Lets a client connect and waits until `n` clients wait.
fn join(coracle: &Coracle, n: usize) -> TcpStream {
    let client = connect(coracle);
    queue_is(coracle, n);
    client
}

fn ended(coracle: &Coracle, reason: &str, n: usize) {
    until(&format!("{n} connections ended by {reason}"), || {
        (closed(&scrape(coracle.admin), reason) == n as f64).then_some(())
    });
}

fn is_reset(mut client: TcpStream) {
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// The server whose place the client has got.
fn server_of(client: TcpStream) -> Session {
    let mut session = Session::over(client);
    session.echo(b"hello");
    session
}

#[test]
fn ten_clients_of_a_server_that_takes_one_are_served_in_order() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = listener.local_addr().unwrap();
    let servers = [format!("{{ address = \"{server}\"{ONE} }}")];
    let coracle = Coracle::start(&service(&servers, PATIENT));
    let clients: Vec<_> = (0..10_u8)
        .map(|n| {
            let mut client = connect(&coracle);
            client.write_all(&[n]).unwrap();
            until("it has been accepted", || {
                let opened = scrape(coracle.admin).sum("coracle_connections_opened_total");
                (opened == f64::from(n) + 1.0).then_some(())
            });
            queue_is(&coracle, usize::from(n));
            client
        })
        .collect();
    for (n, mut client) in (0..10_u8).zip(clients) {
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut number = [0];
        stream.read_exact(&mut number).unwrap();
        assert_eq!(number, [n], "clients are served out of order");
        queue_is(&coracle, usize::from(9 - n));
        // The next one is not dialled while this one is open.
        listener.set_nonblocking(true).unwrap();
        let second = listener.accept().map(drop).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::WouldBlock);
        stream.write_all(b"!").unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_queue_duration_seconds_count"), 9.0);
    assert_eq!(metrics.sum("coracle_retries_total"), 0.0);
    assert_eq!(metrics.sum("coracle_connect_errors_total"), 0.0);
}

#[test]
fn client_that_leaves_gives_its_place_up_and_one_that_waits_for_an_answer_does_not() {
    let mut rng = rng::from_env();
    let member = Member::up(6, &mut rng);
    let coracle = Coracle::start(&service(&[with(&member, ONE)], PATIENT));
    let first = server_of(connect(&coracle));
    let leaving = join(&coracle, 1);
    let mut asking = join(&coracle, 2);
    asking.write_all(b"question").unwrap();
    asking.shutdown(Shutdown::Write).unwrap();
    let last = join(&coracle, 3);
    let reset = join(&coracle, 4);
    drop(leaving);
    ended(&coracle, "left_queue", 1);
    queue_is(&coracle, 3);
    support::backend::reset_on_close(&reset);
    drop(reset);
    ended(&coracle, "client_reset", 1);
    queue_is(&coracle, 2);
    assert_eq!(member.accepted(), 1, "a place was not free");
    drop(first);
    let mut answer = Vec::new();
    asking.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"\x06question");
    drop(asking);
    drop(server_of(last));
    let metrics = scrape(coracle.admin);
    assert_eq!(closed(&metrics, "left_queue"), 1.0);
    // However they left.
    assert_eq!(metrics.sum("coracle_queue_duration_seconds_count"), 4.0);
    assert_eq!(member.accepted(), 3);
}

#[test]
fn full_queue_ends_the_connection_at_once() {
    let mut rng = rng::from_env();
    let member = Member::up(6, &mut rng);
    for most in [0, 2] {
        let settings = match most {
            0 => "queue = 0".to_owned(),
            most => format!("{PATIENT}\nqueue = {most}"),
        };
        let coracle = Coracle::start(&service(&[with(&member, ONE)], &settings));
        let first = server_of(connect(&coracle));
        let waiting: Vec<_> = (1..=most).map(|n| join(&coracle, n)).collect();
        is_turned_away(coracle.address("e"));
        ended(&coracle, "queue_full", 1);
        coracle.logged(&format!(
            "queue full: every server is at its max_connections and {most} connections wait (queue)"
        ));
        // Those that wait are not affected.
        queue_is(&coracle, most);
        drop(first);
        for client in waiting {
            drop(server_of(client));
        }
    }
}

#[test]
fn wait_ends_after_queue_timeout() {
    let mut rng = rng::from_env();
    let member = Member::up(6, &mut rng);
    let settings = "queue_timeout = \"200ms\"";
    let coracle = Coracle::start(&service(&[with(&member, ONE)], settings));
    let mut first = server_of(connect(&coracle));
    is_turned_away(coracle.address("e"));
    ended(&coracle, "queue_timeout", 1);
    coracle.logged("no server had room within 200ms (queue_timeout)");
    let metrics = scrape(coracle.admin);
    assert_eq!(queued(&metrics), 0.0);
    let longer = "coracle_queue_duration_seconds_bucket";
    assert_eq!(metrics.sum_of(longer, &["le=\"0.05\""]), 0.0);
    first.echo(b"still here");
    assert_eq!(member.accepted(), 1);
}

#[test]
fn whichever_server_has_room_is_taken() {
    let mut rng = rng::from_env();
    let members = Member::several(2, &mut rng);
    let servers = [with(&members[0], ONE), with(&members[1], ONE)];
    let coracle = Coracle::start(&service(&servers, PATIENT));
    let mut sessions: Vec<_> = (0..2).map(|_| server_of(connect(&coracle))).collect();
    sessions.sort_by_key(|it| it.server);
    let waiting = [join(&coracle, 1), join(&coracle, 2), join(&coracle, 3)];
    // The second server becomes free twice, then the first one.
    for (client, server) in waiting.into_iter().zip([1, 1, 0]) {
        sessions.retain(|it| it.server != server);
        let session = server_of(client);
        assert_eq!(session.server, server);
        sessions.push(session);
        assert_eq!(members.iter().map(Member::open).max(), Some(1));
    }
}

#[test]
fn client_that_finds_the_server_down_waits_for_another_one() {
    let mut rng = rng::from_env();
    let mut members = Member::several(2, &mut rng);
    let servers = [with(&members[0], ONE), with(&members[1], ONE)];
    let coracle = Coracle::start(&service(&servers, &format!("{PATIENT}\nmax_fails = 0")));
    let mut sessions: Vec<_> = (0..2).map(|_| server_of(connect(&coracle))).collect();
    sessions.sort_by_key(|it| it.server);
    let waiting = [join(&coracle, 1), join(&coracle, 2)];
    members[0].go();
    drop(sessions.remove(0));
    // Each of them tries the first server and then waits for the second.
    until("both have tried it", || {
        let errors = scrape(coracle.admin).sum("coracle_connect_errors_total");
        (errors == 2.0).then_some(())
    });
    queue_is(&coracle, 2);
    drop(sessions);
    for client in waiting {
        assert_eq!(server_of(client).server, 1);
    }
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_retries_total"), 2.0);
    assert_eq!(closed(&metrics, "connect_failed"), 0.0);
}

/// Waits until this many connections have been accepted.
fn accepted_are(coracle: &Coracle, n: f64) {
    until(&format!("{n} have been accepted"), || {
        let opened = scrape(coracle.admin).sum("coracle_connections_opened_total");
        (opened == n).then_some(())
    });
}

#[test]
fn server_that_may_be_tried_again_is_offered_to_the_first_in_line() {
    let mut rng = rng::from_env();
    let mut members = [Member::down(0, &mut rng), Member::up(1, &mut rng)];
    let servers = [with(&members[0], ""), with(&members[1], ONE)];
    let coracle = Coracle::start(&service(&servers, &format!("{PATIENT}\nmax_fails = 1")));
    let second = server_of(connect(&coracle));
    assert_eq!(second.server, 1);
    // It is back at once, but out until its trial. On a slow machine that may come first.
    members[0].come();
    let leaving = connect(&coracle);
    accepted_are(&coracle, 2.0);
    let waiting = connect(&coracle);
    accepted_are(&coracle, 3.0);
    // The timer passes to the next in line.
    drop(leaving);
    assert_eq!(server_of(waiting).server, 0);
    assert_eq!(members[1].open(), 1);
}

#[test]
fn trial_that_the_first_in_line_has_no_use_for_goes_to_the_next() {
    let mut rng = rng::from_env();
    let mut members = [Member::down(0, &mut rng), Member::up(1, &mut rng)];
    let servers = [with(&members[0], ""), with(&members[1], ONE)];
    let coracle = Coracle::start(&service(&servers, &format!("{PATIENT}\nmax_fails = 1")));
    let second = server_of(connect(&coracle));
    assert_eq!(second.server, 1);
    let has_tried = connect(&coracle);
    until("it has tried the first server", || {
        let errors = scrape(coracle.admin).sum("coracle_connect_errors_total");
        (errors == 2.0).then_some(())
    });
    queue_is(&coracle, 1);
    members[0].come();
    let waiting = connect(&coracle);
    assert_eq!(server_of(waiting).server, 0);
    queue_is(&coracle, 1);
    drop(second);
    assert_eq!(server_of(has_tried).server, 1);
}

/// A coracle with one server and a place where reloads find it.
struct Reloaded {
    coracle: Coracle,
    admin: SocketAddr,
    listen: SocketAddr,
    member: Member,
}

impl Reloaded {
    fn start() -> Self {
        let mut rng = rng::from_env();
        let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
        let member = Member::up(6, &mut rng);
        let config = service(&[with(&member, ONE)], PATIENT);
        Self {
            coracle: Coracle::start(&reloadable(admin, listen, &config)),
            admin,
            listen,
            member,
        }
    }

    fn reload(&self, server: &str) {
        let config = service(&[with(&self.member, server)], PATIENT);
        let config = reloadable(self.admin, self.listen, &config);
        assert!(self.coracle.reload(&config));
    }
}

#[test]
fn reload_that_makes_room_wakes_those_who_wait() {
    let it = Reloaded::start();
    let _first = server_of(connect(&it.coracle));
    let waiting: Vec<_> = (1..=4).map(|n| join(&it.coracle, n)).collect();
    it.reload(", max_connections = 3");
    queue_is(&it.coracle, 2);
    let mut waiting = waiting.into_iter();
    let served: Vec<_> = waiting.by_ref().take(2).map(server_of).collect();
    assert_eq!(it.member.accepted(), 3);
    it.reload("");
    let rest: Vec<_> = waiting.map(server_of).collect();
    assert_eq!(it.member.open(), 5);
    // Lowered below the number there are: these stay, and the next one waits until few are left.
    it.reload(ONE);
    let last = join(&it.coracle, 1);
    drop(served);
    drop(rest);
    until("one is left", || (it.member.open() == 1).then_some(()));
    queue_is(&it.coracle, 1);
    drop(_first);
    drop(server_of(last));
}

#[test]
fn room_that_the_first_in_line_cannot_use_goes_to_the_next() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let mut members = [Member::down(0, &mut rng), Member::up(1, &mut rng)];
    let with_first = |members: &[Member; 2], settings: &str| {
        let servers = [with(&members[0], settings), with(&members[1], ONE)];
        reloadable(
            admin,
            listen,
            &service(&servers, &format!("{PATIENT}\nmax_fails = 0")),
        )
    };
    let coracle = Coracle::start(&with_first(&members, ONE));
    let second = server_of(connect(&coracle));
    assert_eq!(second.server, 1);
    // It has tried the first server.
    let waits_for_second = join(&coracle, 1);
    members[0].come();
    let _first = server_of(connect(&coracle));
    let waits_for_any = join(&coracle, 2);
    assert!(coracle.reload(&with_first(&members, ", max_connections = 2")));
    assert_eq!(server_of(waits_for_any).server, 0);
    queue_is(&coracle, 1);
    drop(second);
    assert_eq!(server_of(waits_for_second).server, 1);
}

#[test]
fn reload_that_adds_a_server_wakes_those_who_wait() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let members = Member::several(2, &mut rng);
    // Without settings of its own, the new server makes room only by being there.
    let servers = [with(&members[0], ONE), with(&members[1], "")];
    let config = |n: usize| reloadable(admin, listen, &service(&servers[..n], PATIENT));
    let coracle = Coracle::start(&config(1));
    let _first = server_of(connect(&coracle));
    let waiting = [join(&coracle, 1), join(&coracle, 2)];
    assert!(coracle.reload(&config(2)));
    for client in waiting {
        assert_eq!(server_of(client).server, 1);
    }
}

#[test]
fn reload_that_drains_the_only_server_ends_the_wait() {
    let it = Reloaded::start();
    let mut first = server_of(connect(&it.coracle));
    let waiting = [join(&it.coracle, 1), join(&it.coracle, 2)];
    it.reload(", weight = 0");
    waiting.into_iter().for_each(is_reset);
    ended(&it.coracle, "no_server", 2);
    it.coracle
        .logged("no server available: each is drained or has a weight of 0");
    first.echo(b"still here");
}

#[test]
fn list_and_audit_show_who_waits() {
    let mut rng = rng::from_env();
    let member = Member::up(6, &mut rng);
    let coracle = Coracle::start(&service(&[with(&member, ONE)], PATIENT));
    let _first = server_of(connect(&coracle));
    let client = join(&coracle, 1);
    let peer = client.local_addr().unwrap().to_string();
    for command in ["list", "audit"] {
        let mut run = Command::new(binary());
        let admin = coracle.admin.to_string();
        let output = run.args([command, "--json", "--admin", &admin]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let connections = json["connections"].as_array().unwrap();
        let own = connections.iter().find(|it| it["peer"] == *peer).unwrap();
        assert_eq!(own["state"], "queued", "{own}");
        assert!(own["server"].is_null(), "{own}");
    }
}
