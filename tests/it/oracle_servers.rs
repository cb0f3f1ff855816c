//! The oracle for several servers: while servers go down and come back, and reloads change their
//! weights, limits and queues, every quiet point finds one number in the gauges, in the servers, in
//! this test and in the kernel's table.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::backend::reset_on_close;
use crate::support::fleet::{Member, Session, closed, reloadable, service, with};
use crate::support::metrics::{Metrics, Scraper, agrees, balances, scrape};
use crate::support::process::Coracle;
use crate::support::rng::{self, Rng};
use crate::support::{kernel, lasting_address, until_ok};

const ROUNDS: usize = 24;
const WORKERS: usize = 12;
const CONNECTIONS_PER_WORKER: usize = 25;
const SERVERS: u8 = 5;
/// Held connections leave room in each limit that is waited for.
const MOST_HELD: usize = 30;
const AT_ENTRYPOINT: usize = 40;

/// What goes wrong is not this test's concern, as long as the counts are right.
fn configuration(members: &[Member], round: usize, rng: &mut Rng) -> String {
    let pick = |rng: &mut Rng, of: &[&str]| of[rng.usize(..of.len())].to_owned();
    let servers: Vec<_> = members
        .iter()
        .map(|member| {
            // In every fourth round nobody is limited.
            let limit = match round % 4 {
                0 => String::new(),
                _ => pick(rng, &["", ", max_connections = 2", ", max_connections = 9"]),
            };
            let weight = pick(rng, &["0", "1", "1", "3"]);
            let backup = pick(rng, &["", "", ", backup = true"]);
            with(member, &format!(", weight = {weight}{limit}{backup}"))
        })
        .collect();
    let balance = pick(
        rng,
        &["round_robin", "least_connections", "random", "source"],
    );
    let settings = [
        format!("balance = \"{balance}\""),
        pick(rng, &["", "retries = 0", "retries = 1", "retries = 7"]),
        pick(rng, &["max_fails = 0", "max_fails = 1", "max_fails = 3"]),
        pick(rng, &["", "when_down = \"refuse\""]),
        pick(rng, &["", "on_down = \"close\""]),
        pick(rng, &["", "slow_start = \"1s\""]),
        pick(rng, &["queue = 0", "queue = 3", "queue = 100"]),
        "dial_timeout = \"1s\"\nconnect_timeout = \"1s\"".to_owned(),
    ];
    let mut settings = settings.join("\n");
    if !settings.contains("queue = 0") {
        settings.push_str("\nqueue_timeout = \"50ms\"");
    }
    let config = service(&servers, &settings);
    let limit = match round % 3 {
        0 => String::new(),
        1 => format!("max_connections = {AT_ENTRYPOINT}\n"),
        _ => "max_connections = 8\nat_limit = \"refuse\"\n".to_owned(),
    };
    config.replacen("service = \"s\"\n", &format!("service = \"s\"\n{limit}"), 1)
}

#[test]
fn gauges_servers_and_kernel_agree_while_servers_come_and_go() {
    let mut rng = rng::from_env();
    let (admin, listen) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let mut members = Member::several(SERVERS, &mut rng);
    let coracle = {
        let config = configuration(&members, 0, &mut rng);
        Coracle::start(&reloadable(admin, listen, &config))
    };
    scrape(admin);
    let descriptors_at_start = coracle.settled_descriptors();
    let scraper = Scraper::start(admin);
    let holds = AtomicUsize::new(0);
    let mut held: Vec<Session> = Vec::new();
    for round in 0..ROUNDS {
        let config = configuration(&members, round, &mut rng);
        holds.store(held.len(), Ordering::Relaxed);
        let rngs: Vec<Rng> = (0..WORKERS).map(|_| rng.fork()).collect();
        let mut chaos = rng.fork();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let (holds, over, members) = (&holds, &over, &mut members);
            let workers: Vec<_> = rngs
                .into_iter()
                .map(|mut rng| {
                    scope.spawn(move || {
                        let all = 0..CONNECTIONS_PER_WORKER;
                        let lives = all.filter_map(|_| live(listen, holds, &mut rng));
                        lives.collect::<Vec<_>>()
                    })
                })
                .collect();
            // It goes on for as long as the load.
            let chaos = scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    change(members, &mut chaos);
                    // The program has gone round.
                    scrape(admin);
                }
            });
            assert!(coracle.reload(&reloadable(admin, listen, &config)));
            for worker in workers {
                held.extend(worker.join().unwrap());
            }
            over.store(true, Ordering::Relaxed);
            chaos.join().unwrap();
        });
        agree(admin, listen, &members, &mut held, round);
        // Some of the held connections continue into the next round.
        let keep = rng.usize(..=held.len().min(MOST_HELD / 2));
        for session in held.drain(keep..) {
            if rng.bool() {
                reset_on_close(&session.stream);
            }
        }
        agree(admin, listen, &members, &mut held, round);
    }
    held.clear();
    agree(admin, listen, &members, &mut held, ROUNDS);
    let scrapes = scraper.stop();
    let metrics = scrape(admin);
    for name in [
        "coracle_retries_total",
        "coracle_connect_errors_total",
        "coracle_server_state_changes_total",
        "coracle_queue_duration_seconds_count",
        "coracle_connections_refused_total",
    ] {
        assert!(metrics.sum(name) > 0.0, "no {name}");
    }
    for reason in ["panic", "dropped"] {
        assert_eq!(closed(&metrics, reason), 0.0, "{reason}");
    }
    until_ok("every descriptor is released", || {
        match coracle.descriptors() {
            n if n <= descriptors_at_start => Ok(()),
            n => Err(format!("{n} of {descriptors_at_start}")),
        }
    });
    let opened = metrics.sum("coracle_connections_opened_total");
    println!("{opened} connections, {scrapes} consistent scrapes");
}

/// Runs one connection. Returns it if it is to be held.
fn live(listen: SocketAddr, holds: &AtomicUsize, rng: &mut Rng) -> Option<Session> {
    // A reset that comes at once is reported here.
    let mut stream = TcpStream::connect(listen).ok()?;
    let bytes = b"hello";
    match rng.u32(..10) {
        // Gone before it is served, in one of the ways.
        0 => return None,
        1 => {
            reset_on_close(&stream);
            return None;
        }
        2 => {
            let _ = stream.write_all(bytes);
            return None;
        }
        _ => {}
    }
    let session = Session::try_over(stream).ok()?;
    let may_hold = || {
        let more = |n| (n < MOST_HELD).then_some(n + 1);
        let held = holds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        held.is_ok()
    };
    if rng.u32(..4) == 0 && may_hold() {
        return Some(session);
    }
    if rng.u32(..4) == 0 {
        reset_on_close(&session.stream);
    }
    None
}

/// Takes one server down or brings it back.
fn change(members: &mut [Member], rng: &mut Rng) {
    let member = &mut members[rng.usize(..usize::from(SERVERS))];
    match (member.is_up(), rng.u32(..3)) {
        (true, 0) => {
            member.go();
            member.hang_up();
        }
        (true, 1) => member.go(),
        (true, _) => {}
        (false, _) => member.come(),
    }
}

/// Whether a held connection is still open.
fn is_open(session: &Session) -> bool {
    session.stream.set_nonblocking(true).unwrap();
    let peeked = session.stream.peek(&mut [0]);
    session.stream.set_nonblocking(false).unwrap();
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Waits until only the held connections are left, and everyone counts the same.
fn agree(
    admin: SocketAddr,
    listen: SocketAddr,
    members: &[Member],
    held: &mut Vec<Session>,
    round: usize,
) {
    until_ok(&format!("all counts agree in round {round}"), || {
        held.retain(is_open);
        let metrics = scrape(admin);
        balances(&metrics);
        agrees(&metrics);
        for member in members {
            let own = held.iter().filter(|it| it.server == member.id).count();
            let gauge = member.metric(&metrics, "coracle_service_open_connections", "");
            let sockets = kernel::tcp_sockets().into_iter();
            let sockets = sockets.filter(|it| it.remote_port == member.address.port());
            equal("the server", own, member.open())?;
            equal("the gauge of the server", own, gauge as usize)?;
            equal("the kernel, of the server", own, sockets.count())?;
        }
        let sum = |metrics: &Metrics, name| metrics.sum(name) as usize;
        let open = sum(&metrics, "coracle_open_connections");
        equal("the gauge of the entrypoint", held.len(), open)?;
        let by_kernel = kernel::connections(listen.port());
        equal("the kernel, of the entrypoint", held.len(), by_kernel)?;
        let read = sum(&metrics, "coracle_kernel_connections");
        equal("coracle's own reading", held.len(), read)?;
        equal("the queue", 0, sum(&metrics, "coracle_queue_length"))
    });
}

fn equal(who: &str, held: usize, counted: usize) -> Result<(), String> {
    match held == counted {
        true => Ok(()),
        false => Err(format!("{who} counts {counted} of {held}")),
    }
}
