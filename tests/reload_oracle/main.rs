//! Reloads under load: no client is refused or reset, every count is right at every quiet point,
//! and no text leaves a running program half reloaded.
//!
//! `CORACLE_RELOADS=600` and `CORACLE_MUTATIONS=1000` raise what `cargo test` tries, as `.ci/run`
//! does. `CORACLE_MUTATIONS_BY=watch` reloads by watching the file instead of by a signal.

#![allow(clippy::unwrap_used)]

mod mutations;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use support::backend::{self, Script};
use support::metrics::{Metrics, Scraper, agrees, balances, scrape};
use support::process::Coracle;
use support::rng::{self, Rng};
use support::{kernel, lasting_address, until};

fn asked(variable: &str, otherwise: usize) -> usize {
    let asked = std::env::var(variable).ok();
    asked.map_or(otherwise, |n| n.parse().unwrap())
}

fn admin_table(admin: SocketAddr) -> String {
    format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n")
}

/// Runs one connection from beginning to end.
fn exchange(address: SocketAddr) {
    const BYTES: u64 = 1_000;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
        .write_all(&Script::SendAndClose.request(BYTES))
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, backend::pattern(BYTES as usize));
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().next().unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

#[test]
fn alternating_reloads_refuse_and_reset_no_client() {
    const WORKERS: usize = 8;
    /// Up to 2,000 a second would take 100 ms.
    const CONNECTIONS_PER_RELOAD: u64 = 200;
    const GROWTH_BYTES: u64 = 2 << 20;
    let reloads = asked("CORACLE_RELOADS", 40);
    let mut rng = rng::from_env();
    let admin = lasting_address(&mut rng);
    let [shared, one, two] = [(); 3].map(|()| lasting_address(&mut rng));
    let servers = [(); 3].map(|()| backend::start());
    let [a, b, c] = servers;
    // Both have the entrypoint `shared`; services, listeners and timeouts differ.
    let configs = [
        format!(
            "{}[entrypoints.shared]\nlisten = \"{shared}\"\nservice = \"s\"\nidle_timeout = \"1h\"\n\
             [entrypoints.one]\nlisten = \"{one}\"\nto = \"{a}\"\n\
             [services.s]\nservers = [\"{a}\", \"{b}\"]\n",
            admin_table(admin)
        ),
        format!(
            "{}[entrypoints.shared]\nlisten = [\"{shared}\", \"{two}\"]\nservice = \"s\"\nkeepalive = \"30s\"\n\
             [services.s]\nservers = [\"{c}\", \"{b}\"]\nconnect_timeout = \"3s\"\n",
            admin_table(admin)
        ),
    ];
    let coracle = Coracle::start(&configs[0]);
    let before = coracle.settled_descriptors();
    // The series of `one` and of some servers come and go; what is shared continues.
    let scraper = Scraper::start_with(coracle.admin, |last, now| {
        balances(now);
        agrees(now);
        let label = "entrypoint=\"shared\"";
        for name in ["coracle_connections_opened_total", "coracle_bytes_total"] {
            let [last, now] = [last, now].map(|it| it.sum_where(name, label));
            assert!(
                now >= last,
                "{name} of an unchanged entrypoint decreased from {last} to {now}"
            );
        }
    });
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut resident = Vec::new();
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    exchange(shared);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=reloads {
            let made_before = made.load(Ordering::Relaxed);
            assert!(coracle.reload(&configs[n % 2]));
            until("connections under this configuration too", || {
                let more = made.load(Ordering::Relaxed) - made_before;
                (more >= CONNECTIONS_PER_RELOAD).then_some(())
            });
            resident.push(resident_bytes(coracle.pid()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seconds = begun.elapsed().as_secs_f64();
    let made = made.into_inner();
    println!(
        "{reloads} reloads, {made} connections, {:.0} a second, {} scrapes",
        made as f64 / seconds,
        scraper.stop()
    );
    // `exchange` has checked each in full. The program agrees.
    until("the last one has left the set", || {
        (scrape(coracle.admin).sum("coracle_open_connections") == 0.0).then_some(())
    });
    let metrics = scrape(coracle.admin);
    let shared = "entrypoint=\"shared\"";
    assert_eq!(
        metrics.sum_where("coracle_connections_opened_total", shared),
        made as f64
    );
    let done = metrics.sum_of(
        "coracle_connections_closed_total",
        &[shared, "reason=\"done\""],
    );
    assert_eq!(done, made as f64);
    // The scraper has compared something.
    assert!(metrics.series("coracle_connection_mismatch").count() > 0);
    assert!(coracle.reload(&configs[0]));
    assert_eq!(coracle.settled_descriptors(), before);
    let (early, last) = (resident[resident.len() / 4], *resident.last().unwrap());
    assert!(
        last < early + GROWTH_BYTES,
        "memory grew from {early} to {last} bytes"
    );
}

/// A connection that the test holds, with its entrypoint and service.
struct Held {
    _stream: TcpStream,
    entrypoint: String,
    service: String,
}

/// An entrypoint of a random configuration: its addresses, and the service behind it.
type Entrypoints = BTreeMap<String, (Vec<SocketAddr>, String)>;

struct Random {
    rng: Rng,
    admin: SocketAddr,
    addresses: Vec<SocketAddr>,
    servers: Vec<SocketAddr>,
}

impl Random {
    /// A configuration: each address belongs to at most one entrypoint, each entrypoint leads to
    /// one service.
    fn config(&mut self) -> (String, Entrypoints) {
        let mut entrypoints = Entrypoints::new();
        for address in &self.addresses {
            if self.rng.u64(..3) > 0 {
                let name = format!("e{}", self.rng.u64(..4));
                let service = format!("s{}", self.rng.u64(..3));
                let entry = entrypoints.entry(name);
                entry.or_insert((Vec::new(), service)).0.push(*address);
            }
        }
        if entrypoints.is_empty() {
            entrypoints.insert("e0".to_owned(), (vec![self.addresses[0]], "s0".to_owned()));
        }
        let mut text = admin_table(self.admin);
        for (name, (listen, service)) in &entrypoints {
            let listen: Vec<_> = listen.iter().map(|it| format!("\"{it}\"")).collect();
            let listen = listen.join(", ");
            text +=
                &format!("[entrypoints.{name}]\nlisten = [{listen}]\nservice = \"{service}\"\n");
            if self.rng.u64(..2) == 0 {
                text += &format!("idle_timeout = \"{}h\"\n", 1 + self.rng.u64(..3));
            }
        }
        let used: BTreeSet<&String> = entrypoints.values().map(|(_, service)| service).collect();
        for service in used {
            let first = self.rng.usize(..self.servers.len());
            let n = 1 + self.rng.usize(..self.servers.len());
            let servers = self.servers.iter().cycle().skip(first).take(n);
            let servers: Vec<_> = servers.map(|it| format!("\"{it}\"")).collect();
            text += &format!("[services.{service}]\nservers = [{}]\n", servers.join(", "));
        }
        (text, entrypoints)
    }

    fn hold(&mut self, entrypoints: &Entrypoints) -> Held {
        let n = self.rng.usize(..entrypoints.len());
        let (name, (listen, service)) = entrypoints.iter().nth(n).unwrap();
        let address = listen[self.rng.usize(..listen.len())];
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        stream.write_all(&Script::Hold.request(0)).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        Held {
            _stream: stream,
            entrypoint: name.clone(),
            service: service.clone(),
        }
    }
}

#[test]
fn counts_stay_exact_through_random_reloads() {
    const ROUNDS: usize = 40;
    const CHANGES: u64 = 60;
    let mut rng = rng::from_env();
    let mut random = Random {
        admin: lasting_address(&mut rng),
        addresses: (0..6).map(|_| lasting_address(&mut rng)).collect(),
        servers: (0..3).map(|_| backend::start()).collect(),
        rng,
    };
    let (text, mut entrypoints) = random.config();
    let coracle = Coracle::start(&text);
    let mut held: Vec<Held> = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..random.rng.u64(..CHANGES) {
            if random.rng.u64(..5) < 2 && !held.is_empty() {
                let which = random.rng.usize(..held.len());
                held.swap_remove(which);
            } else {
                held.push(random.hold(&entrypoints));
            }
        }
        let (text, next) = random.config();
        assert!(coracle.reload(&text), "round {round}: {text}");
        entrypoints = next;
        agree(&coracle, &random, &entrypoints, &held, round);
    }
    held.clear();
    agree(&coracle, &random, &entrypoints, &held, ROUNDS);
}

/// Waits until the program counts what is held, per entrypoint and service, has no other series,
/// and agrees with the kernel.
fn agree(
    coracle: &Coracle,
    random: &Random,
    entrypoints: &Entrypoints,
    held: &[Held],
    round: usize,
) {
    let mut by_entrypoint: BTreeMap<&str, f64> = BTreeMap::new();
    let mut by_service: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, (_, service)) in entrypoints {
        by_entrypoint.insert(name, 0.0);
        by_service.insert(service, 0.0);
    }
    for it in held {
        *by_entrypoint.entry(&it.entrypoint).or_default() += 1.0;
        *by_service.entry(&it.service).or_default() += 1.0;
    }
    let metrics = until(
        &format!("the gauges are what is held in round {round}"),
        || {
            let metrics = scrape(coracle.admin);
            balances(&metrics);
            let open = by(&metrics, "coracle_open_connections", "entrypoint");
            let of_services = by(&metrics, "coracle_service_open_connections", "service");
            let is_it = |it: &BTreeMap<String, f64>, expected: &BTreeMap<&str, f64>| {
                it.iter()
                    .map(|(name, n)| (name.as_str(), *n))
                    .eq(expected.iter().map(|(k, n)| (*k, *n)))
            };
            (is_it(&open, &by_entrypoint) && is_it(&of_services, &by_service)).then_some(metrics)
        },
    );
    // The gauges of each server together equal what the kernel shows of connections to it.
    let sockets = kernel::tcp_sockets();
    for server in &random.servers {
        let label = format!("server=\"{server}\"");
        let gauge = metrics.sum_where("coracle_service_open_connections", &label);
        let to_it = sockets.iter().filter(|it| it.remote_port == server.port());
        assert_eq!(
            gauge,
            to_it.count() as f64,
            "round {round}: connections to {server}"
        );
    }
    until(
        &format!("the kernel's count is that of the set in round {round}"),
        || {
            let metrics = scrape(coracle.admin);
            agrees(&metrics);
            let read = metrics.sum("coracle_kernel_connections");
            (read == held.len() as f64).then_some(())
        },
    );
}

/// The sum of a metric for each value of a label.
fn by(metrics: &Metrics, name: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (labels, n) in metrics.series(name) {
        let (_, rest) = labels.split_once(&format!("{label}=\"")).unwrap();
        let value = rest.split('"').next().unwrap();
        *sums.entry(value.to_owned()).or_default() += n;
    }
    sums
}
