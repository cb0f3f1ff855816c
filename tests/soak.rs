//! A soak: everything at once for a while. Descriptors and memory at the end match those after the
//! first part.
//!
//! The amount of work is fixed, however long it takes; CORACLE_SOAK_CONNECTIONS raises it, as
//! `.ci/run` does.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use support::backend::{self, Script, pattern, reset_on_close};
use support::metrics::{Scraper, scrape};
use support::process::Coracle;
use support::rng::{self, Rng};
use support::until;

const WORKERS: usize = 12;
const LONG_BYTES: usize = 8 << 20;
/// What the allocator may keep beyond what it kept after the first part.
const SLACK_BYTES: f64 = 512.0 * 1024.0;

#[test]
fn descriptors_and_memory_stay_flat_over_a_soak() {
    let total: u64 =
        std::env::var("CORACLE_SOAK_CONNECTIONS").map_or(3_000, |n| n.parse().unwrap());
    let mut rng = rng::from_env();
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\nidle_timeout = \"1h\"\n"
    ));
    let address = coracle.address("e");
    scrape(coracle.admin);
    let descriptors = coracle.settled_descriptors();
    let made = AtomicU64::new(0);
    let mut load_of = |connections: u64| {
        let left = AtomicU64::new(connections);
        let scraper = Scraper::start(coracle.admin);
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                let (mut rng, made, left) = (rng.fork(), &made, &left);
                let take_one = |left: u64| left.checked_sub(1);
                scope.spawn(move || {
                    while left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
                        .is_ok()
                    {
                        live(address, &mut rng);
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        scraper.stop();
        rest(&coracle, made.load(Ordering::Relaxed), descriptors)
    };
    // The first part fills the caches: the allocator's, the tables', the pipes'.
    let after_first = load_of(total / 4);
    let at_end = load_of(total * 3 / 4);
    let made = made.into_inner();
    println!("{made} connections; {after_first} bytes of its own, then {at_end}");
    assert!(
        at_end <= after_first + SLACK_BYTES,
        "{after_first} bytes, then {at_end}"
    );
}

/// Waits until everything has ended and every descriptor is released (idle pipes are kept for some
/// seconds). Returns the memory of its own then: RssAnon, which excludes mapped files.
fn rest(coracle: &Coracle, made: u64, descriptors: usize) -> f64 {
    until("all connections have ended", || {
        let metrics = scrape(coracle.admin);
        let opened = metrics.sum("coracle_connections_opened_total");
        let open = metrics.sum("coracle_open_connections");
        (opened == made as f64 && open == 0.0).then_some(())
    });
    until("every descriptor is released", || {
        (coracle.settled_descriptors() <= descriptors).then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", coracle.pid())).unwrap();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kibibytes: f64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024.0
}

fn live(address: SocketAddr, rng: &mut Rng) {
    let n = rng.usize(..30_000);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let mut ask = |script: Script, n: usize| stream.write_all(&script.request(n as u64)).unwrap();
    match rng.u64(..20) {
        // A long stream, which is spliced.
        0 => {
            ask(Script::SendAndClose, LONG_BYTES);
            assert_eq!(read_all(&mut stream), LONG_BYTES);
        }
        // One that is cut in the middle.
        1 => {
            ask(Script::SendAndClose, LONG_BYTES);
            stream.read_exact(&mut vec![0; LONG_BYTES / 3]).unwrap();
            reset_on_close(&stream);
        }
        2..=5 => {
            ask(Script::AnswerAfterEnd, n);
            stream.write_all(&pattern(n)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut stream), n);
        }
        6..=7 => {
            ask(Script::Hold, 0);
            stream.read_exact(&mut [0]).unwrap();
            reset_on_close(&stream);
        }
        _ => {
            ask(Script::SendAndClose, n);
            assert_eq!(read_all(&mut stream), n);
        }
    }
}

fn read_all(stream: &mut TcpStream) -> usize {
    std::io::copy(stream, &mut std::io::sink()).unwrap() as usize
}
