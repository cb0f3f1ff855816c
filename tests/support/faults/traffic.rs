//! Mixed traffic: connections of every kind with random sizes, beside scrapes and audits. It
//! tolerates faults but not wrong results.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::server::{Duplex, Kind, Order, Violations, receive, visible};
use crate::support::metrics::{self, Metrics};
use crate::support::{DEADLINE, rng::Rng};

const WORKERS: usize = 4;
/// Connections in a round of a fixed amount.
const LIVES: usize = 32;
/// The last of them are long.
const LIVES_WITHOUT_LONG: usize = 28;
/// Connections that are open before the fault.
const HELD: usize = 3;
/// A direction is spliced after 256 KiB.
const LONG_BYTES: u64 = 2 << 20;
/// Between attempts while all of them fail, and between scrapes.
const PAUSE: Duration = Duration::from_millis(10);

/// Where to connect.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Each reaches a server in a different way.
    pub served: Vec<SocketAddr>,
    /// No server listens behind it.
    pub refused: SocketAddr,
    pub unix: PathBuf,
    pub admin: SocketAddr,
}

/// How much traffic.
#[derive(Clone, Copy, Debug)]
pub enum Amount<'a> {
    /// Some of each kind, but for long streams.
    WithoutLong,
    /// Some of each kind.
    Fixed,
    /// Until this is set.
    Until(&'a AtomicBool),
}

/// The results.
#[derive(Debug, Default)]
pub struct Tally {
    pub intact: AtomicUsize,
    pub broken: AtomicUsize,
    pub scrapes: AtomicUsize,
}

/// Connections that were made, and have carried something, before the fault.
pub struct Held(Vec<(TcpStream, Order)>);

pub fn hold(targets: &Targets, rng: &mut Rng) -> Held {
    let held = targets.served.iter().cycle().take(HELD).map(|&address| {
        let order = order(Kind::Echo, rng);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.patient();
        stream.write_all(&order.to_bytes()).unwrap();
        stream.write_all(&order.upload()).unwrap();
        let mut back = vec![0; order.up];
        stream.read_exact(&mut back).unwrap();
        assert!(back == order.upload(), "wrong bytes before the fault");
        (stream, order)
    });
    Held(held.collect())
}

impl Held {
    /// Checks that they still carry bytes or have failed.
    pub fn probe(self, violations: &Violations) {
        for (mut stream, order) in self.0 {
            let upload = order.upload();
            if stream.write_all(&upload).is_err() {
                continue;
            }
            let mut back = vec![0; upload.len()];
            match stream.read_exact(&mut back) {
                Ok(()) if back == upload => {}
                Ok(()) => violations.note("a held connection carried wrong bytes".into()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    violations.note("a held connection came to a clean end".into());
                }
                Err(error) => {
                    if let Err(hang) = visible(&error) {
                        violations.note(format!("a held connection: {hang}"));
                    }
                }
            }
        }
    }
}

/// Runs it to its end.
pub fn run(targets: &Targets, amount: Amount<'_>, rng: &mut Rng, violations: &Violations) -> Tally {
    let tally = Tally::default();
    let working = AtomicUsize::new(WORKERS);
    let next = AtomicUsize::new(0);
    // The next kind: each in turn, so that none is left out.
    let next = || {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let goes_on = match amount {
            Amount::Until(over) => !over.load(Ordering::Relaxed),
            _ => n < LIVES,
        };
        let lives = match amount {
            Amount::WithoutLong => LIVES_WITHOUT_LONG,
            _ => LIVES,
        };
        goes_on.then_some(n % lives)
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let mut rng = rng.fork();
            let (tally, working, next) = (&tally, &working, &next);
            scope.spawn(move || {
                while let Some(life) = next() {
                    match live(life, targets, &mut rng) {
                        Ok(true) => {
                            tally.intact.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(false) => {
                            tally.broken.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(PAUSE);
                        }
                        Err(what) => violations.note(format!("a client saw: {what}")),
                    }
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let mut last = Metrics::default();
            loop {
                let ends = working.load(Ordering::Relaxed) == 0;
                if let Err(what) = look(targets.admin, &mut last, &tally) {
                    violations.note(what);
                }
                if ends {
                    break;
                }
                thread::sleep(PAUSE);
            }
        });
    });
    tally
}

/// Runs one connection of this number's kind. Returns true if it was intact, false if it failed
/// visibly to both ends.
fn live(life: usize, targets: &Targets, rng: &mut Rng) -> Result<bool, String> {
    let address = targets.served[rng.usize(..targets.served.len())];
    let long = |rng: &mut Rng| (LONG_BYTES / 2 + rng.u64(..LONG_BYTES / 2)) as usize;
    match life {
        0..=5 => tcp(address, order(Kind::Exchange, rng)),
        6..=10 => tcp(address, order(Kind::Duplex, rng)),
        11..=15 => tcp(address, order(Kind::AnswerFirst, rng)),
        16..=17 => tcp(targets.served[0], order(Kind::ServerResets, rng)),
        18..=20 => tcp(address, order(Kind::ClientResets, rng)),
        21..=23 => refused(targets.refused, rng),
        24..=25 => unix(targets, order(Kind::AnswerFirst, rng)),
        26..=27 => unix(targets, order(Kind::Exchange, rng)),
        LIVES_WITHOUT_LONG..=29 => {
            let mut order = order(Kind::Duplex, rng);
            order.down = long(rng);
            tcp(address, order)
        }
        _ => {
            let mut order = order(Kind::Exchange, rng);
            order.up = long(rng);
            tcp(address, order)
        }
    }
}

/// One exchange through `address`, or the Unix socket. Returns true if it was intact.
pub fn exchange(address: SocketAddr, rng: &mut Rng) -> Result<bool, String> {
    tcp(address, order(Kind::Exchange, rng))
}

pub fn exchange_unix(targets: &Targets, rng: &mut Rng) -> Result<bool, String> {
    unix(targets, order(Kind::Exchange, rng))
}

fn order(kind: Kind, rng: &mut Rng) -> Order {
    Order {
        kind,
        seed: rng.u64(..),
        up: 1 + rng.usize(..20_000),
        down: 1 + rng.usize(..20_000),
    }
}

fn tcp(address: SocketAddr, order: Order) -> Result<bool, String> {
    match TcpStream::connect_timeout(&address, DEADLINE) {
        Ok(stream) => follow(stream, order),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(format!("connecting took more than {DEADLINE:?}"))
        }
        // Only a process that does not run refuses, which is checked elsewhere.
        Err(_) => Ok(false),
    }
}

fn unix(targets: &Targets, order: Order) -> Result<bool, String> {
    match UnixStream::connect(&targets.unix) {
        Ok(stream) => follow(stream, order),
        Err(_) => Ok(false),
    }
}

fn refused(address: SocketAddr, rng: &mut Rng) -> Result<bool, String> {
    let order = order(Kind::Exchange, rng);
    match tcp(address, order) {
        Ok(true) => Err("an answer came from where no server is".into()),
        Ok(false) => Ok(true),
        Err(what) => Err(what),
    }
}

fn follow<S: Duplex>(mut stream: S, order: Order) -> Result<bool, String> {
    stream.patient();
    if stream.write_all(&order.to_bytes()).is_err() {
        return Ok(false);
    }
    let upload = order.upload();
    let download = order.download();
    match order.kind {
        Kind::Exchange => {
            let sent = stream.write_all(&upload).is_ok() && stream.finish().is_ok();
            let end = receive(&mut stream, &download, &order)?;
            Ok(end.is_whole(!sent, &order)? && sent)
        }
        Kind::Duplex => {
            let mut twin = stream.twin();
            let sending =
                thread::spawn(move || twin.write_all(&upload).and_then(|()| twin.finish()));
            let end = receive(&mut stream, &download, &order);
            let sent = sending.join().unwrap().is_ok();
            Ok(end?.is_whole(!sent, &order)? && sent)
        }
        Kind::AnswerFirst => {
            let end = receive(&mut stream, &download, &order)?;
            if !end.is_whole(false, &order)? {
                return Ok(false);
            }
            let sent = stream.write_all(&upload).and_then(|()| stream.finish());
            Ok(sent.is_ok())
        }
        Kind::Echo => unreachable!("only held connections"),
        // The reset is expected.
        Kind::ServerResets => {
            let end = receive(&mut stream, &download, &order)?;
            Ok(!end.is_whole(false, &order)?)
        }
        Kind::ClientResets => {
            let _ = stream.write_all(&upload[..order.up / 2]);
            stream.reset();
            Ok(true)
        }
    }
}

/// Requests everything from the admin endpoint. It may fail, but what it says must be right.
fn look(admin: SocketAddr, last: &mut Metrics, tally: &Tally) -> Result<(), String> {
    for path in ["/metrics", "/api/v1/agreement", "/healthz"] {
        match get(admin, path) {
            Ok((200, body)) if path == "/metrics" => {
                tally.scrapes.fetch_add(1, Ordering::Relaxed);
                *last = scraped(last, &body)?;
            }
            Ok(_) => {}
            Err(error) => visible(&error).map_err(|hang| format!("{path}: {hang}"))?,
        }
    }
    Ok(())
}

/// Reads a scrape and checks it against the previous one. The kernel's figures for the process may
/// be missing.
pub fn scraped(last: &Metrics, body: &str) -> Result<Metrics, String> {
    std::panic::catch_unwind(|| {
        let mut metrics = Metrics::parse(body);
        metrics.0.retain(|series, _| series.starts_with("coracle_"));
        metrics::check(last, &metrics);
        metrics
    })
    .map_err(|_| format!("a scrape is wrong: {body}"))
}

/// A response's status and its complete body.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, DEADLINE)?;
    stream.patient();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "no whole answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    if length.and_then(|length| length.parse().ok()) != Some(body.len()) {
        return Err(broken());
    }
    Ok((status.ok_or_else(broken)?, body.to_owned()))
}
