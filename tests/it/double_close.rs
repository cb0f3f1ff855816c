//! The incident behind the project: ten thousand connections closed by both sides at once, without
//! drift.

use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::backend::reset_on_close;
use crate::support::metrics::{Scraper, scrape};
use crate::support::process::Coracle;
use crate::support::rng;
use crate::support::until;

const PAIRS: usize = 4;
const CLOSES_PER_PAIR: usize = 2_500;
/// Closing continues until this many scrapes have seen it, however slow they are.
const SCRAPES: u64 = 10;

#[test]
fn ten_thousand_simultaneous_closes_leave_no_drift() {
    let mut rng = rng::from_env();
    let backends: Vec<TcpListener> = (0..PAIRS)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let config = backends.iter().enumerate().map(|(i, backend)| {
        let to = backend.local_addr().unwrap();
        format!("[entrypoints.e{i}]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n")
    });
    let coracle = Coracle::start(&config.collect::<String>());
    let scraper = Scraper::start(coracle.admin);
    // One connection stays: the gauge must never drop below it.
    let held = TcpStream::connect(coracle.address("e0")).unwrap();
    let held_server = backends[0].accept().unwrap();

    let made = AtomicUsize::new(1);
    thread::scope(|scope| {
        let (scraper, made) = (&scraper, &made);
        for (i, backend) in backends.iter().enumerate() {
            let address = coracle.address(&format!("e{i}"));
            let mut rng = rng.fork();
            scope.spawn(move || {
                let barrier = Barrier::new(2);
                let mut closes = 0;
                while closes < CLOSES_PER_PAIR || scraper.checked() < SCRAPES {
                    closes += 1;
                    let client = TcpStream::connect(address).unwrap();
                    let (server, _) = backend.accept().unwrap();
                    let resets = rng.u64(..4);
                    thread::scope(|scope| {
                        scope.spawn(|| close_at_once(&barrier, client, resets == 1));
                        close_at_once(&barrier, server, resets == 2);
                    });
                }
                made.fetch_add(closes, Ordering::Relaxed);
            });
        }
    });

    until("the gauge is the one that stays", || {
        (scrape(coracle.admin).sum("coracle_open_connections") == 1.0).then_some(())
    });
    drop((held, held_server));
    until("the gauge is 0", || {
        (scrape(coracle.admin).sum("coracle_open_connections") == 0.0).then_some(())
    });
    scraper.stop();
    let metrics = scrape(coracle.admin);
    let all = made.into_inner() as f64;
    assert_eq!(metrics.sum("coracle_connections_opened_total"), all);
    assert_eq!(metrics.sum("coracle_connections_closed_total"), all);
}

fn close_at_once(barrier: &Barrier, stream: TcpStream, reset: bool) {
    if reset {
        reset_on_close(&stream);
    }
    barrier.wait();
    drop(stream);
}
