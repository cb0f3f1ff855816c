//! The oracle: twenty thousand connections end in random ways through the real binary, by the peers
//! and by kills over the control socket and over TCP with a token, and at every
//! quiet point the gauge, the connections held by this test, and the kernel's table are one number.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::killer::Killer;
use crate::support;
use crate::support::backend::{
    self, Script, Silent, bound_but_not_listening, pattern, reset_on_close,
};
use crate::support::metrics::{Metrics, Scraper, agrees};
use crate::support::process::Coracle;
use crate::support::rng::{self, Rng};
use crate::support::{kernel, until};

const ROUNDS: usize = 20;
const CONNECTIONS_PER_ROUND: usize = 1_000;
const WORKERS: usize = 24;
/// Each round continues until this many scrapes have seen it, however slow they are.
const SCRAPES_PER_ROUND: u64 = 5;
const LONG_BYTES: usize = 4 << 20;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    ClientCloses,
    ServerCloses,
    ClientHalfCloses,
    ServerHalfCloses,
    ClientResets,
    ServerResets,
    BothClose,
    Refused,
    Unanswered,
    GoneWhileDialling,
    ResetWhileDialling,
    BackendDies,
    Long,
    Idle,
    IdleHalfClosed,
    IdleServerFinished,
    UnixCloses,
    UnixIdle,
    Killed,
    KilledWhileDialling,
    KilledWhileSending,
}

impl Fate {
    fn random(rng: &mut Rng) -> Self {
        match rng.u64(..100) {
            0..=13 => Self::ClientCloses,
            14..=16 => Self::Killed,
            17..=18 => Self::KilledWhileDialling,
            19 => Self::KilledWhileSending,
            20..=29 => Self::ServerCloses,
            30..=32 => Self::UnixCloses,
            33..=34 => Self::UnixIdle,
            35..=44 => Self::ClientHalfCloses,
            45..=54 => Self::ServerHalfCloses,
            55..=62 => Self::ClientResets,
            63..=70 => Self::ServerResets,
            71..=76 => Self::BothClose,
            77..=80 => Self::Refused,
            81 => Self::Unanswered,
            82..=83 => Self::GoneWhileDialling,
            84..=85 => Self::ResetWhileDialling,
            86..=89 => Self::BackendDies,
            90 => Self::Long,
            91..=95 => Self::Idle,
            96..=97 => Self::IdleHalfClosed,
            _ => Self::IdleServerFinished,
        }
    }
}

/// A connection that this test holds open.
enum Held {
    Tcp(TcpStream),
    /// Held only to be dropped.
    Unix(#[allow(dead_code)] UnixStream),
}

/// Where the clients connect.
struct Targets {
    /// The scripted server, over IPv4, IPv6, and either through one dual-stack listener.
    scripts: [SocketAddr; 4],
    /// The same over a Unix socket.
    unix: PathBuf,
    refuse: SocketAddr,
    silent: SocketAddr,
    mortal: SocketAddr,
    killer: Killer,
}

#[test]
fn gauge_kernel_and_test_agree_over_twenty_thousand_connections() {
    // This process has both ends of every held connection, and many systems begin with a soft limit
    // of 1024.
    let _ = coracle::sys::descriptors::raise_limit();
    let mut rng = rng::from_env();
    let backend = backend::start();
    let refusing = bound_but_not_listening();
    let silent = Silent::start();
    let mortal_address = support::lasting_address(&mut rng);
    let start_mortal = || {
        let config = forward("m", &mortal_address.to_string(), &backend.to_string());
        Some(Coracle::start(&config))
    };
    let mut mortal = start_mortal();

    let dir = tempfile::tempdir().unwrap();
    let unix_path = dir.path().join("oracle.sock");
    let control = dir.path().join("control.sock");
    let token = dir.path().join("token");
    std::fs::write(&token, Killer::TOKEN).unwrap();
    let config = [
        forward("v4", "127.0.0.1:0", &backend.to_string()),
        forward("v6", "[::1]:0", &backend.to_string()),
        forward("dual", "*:0", &backend.to_string()),
        forward(
            "unix",
            &format!("unix:{}", unix_path.display()),
            &backend.to_string(),
        ),
        forward(
            "refuse",
            "127.0.0.1:0",
            &refusing
                .local_addr()
                .unwrap()
                .as_socket()
                .unwrap()
                .to_string(),
        ),
        forward(
            "silent",
            "127.0.0.1:0",
            &format!("{}\"\nconnect_timeout = \"300ms", silent.address),
        ),
        forward("mortal", "127.0.0.1:0", &mortal_address.to_string()),
        format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\ntoken_file = \"{}\"\n",
            control.display(),
            token.display()
        ),
    ];
    let coracle = Coracle::start(&config.concat());
    let dual = coracle.address("dual").port();
    let targets = Targets {
        scripts: [
            coracle.address("v4"),
            coracle.address("v6"),
            SocketAddr::from(([127, 0, 0, 1], dual)),
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], dual)),
        ],
        unix: unix_path.clone(),
        refuse: coracle.address("refuse"),
        silent: coracle.address("silent"),
        mortal: coracle.address("mortal"),
        killer: Killer::new(control).over_tcp(coracle.admin),
    };
    support::metrics::scrape(coracle.admin);
    let descriptors_at_start = coracle.settled_descriptors();
    let scraper = Scraper::start(coracle.admin);
    let made = AtomicU64::new(0);
    let mut held: Vec<Held> = Vec::new();

    for round in 0..ROUNDS {
        let rngs: Vec<Rng> = (0..WORKERS).map(|_| rng.fork()).collect();
        let kept: Vec<Held> = thread::scope(|scope| {
            let (made, targets, scraper) = (&made, &targets, &scraper);
            let scrapes = scraper.checked() + SCRAPES_PER_ROUND;
            let workers: Vec<_> = rngs
                .into_iter()
                .enumerate()
                .map(|(i, mut rng)| {
                    let share = CONNECTIONS_PER_ROUND / WORKERS
                        + usize::from(i < CONNECTIONS_PER_ROUND % WORKERS);
                    scope.spawn(move || {
                        let goes_on = |n: &usize| *n < share || scraper.checked() < scrapes;
                        let lives = (0..).take_while(goes_on).filter_map(|n| {
                            made.fetch_add(1, Ordering::Relaxed);
                            // Connections beyond the share are not held, which keeps the number
                            // bounded.
                            let fate = match n < share {
                                true => Fate::random(&mut rng),
                                false => Fate::ClientCloses,
                            };
                            live(fate, &mut rng, targets)
                        });
                        lives.collect::<Vec<_>>()
                    })
                })
                .collect();
            // In every third round the backend's process is killed in the middle, and restarted.
            if round % 3 == 1 {
                let killing = scope.spawn(|| {
                    let victim = mortal.take().unwrap();
                    until("connections on the mortal backend", || {
                        let metrics = support::metrics::scrape(victim.admin);
                        (metrics.sum("coracle_connections_opened_total") > 0.0).then_some(())
                    });
                    victim.signal(Signal::KILL);
                    drop(victim);
                    mortal = start_mortal();
                });
                killing.join().unwrap();
            }
            let kept = workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap());
            kept.collect()
        });
        held.extend(kept);
        // The quiet point: only the connections held by this test are left.
        agree(&coracle, &targets, &made, held.len(), round);
        // Some of the held connections continue into the next round.
        while rng.u64(..8) != 0 && !held.is_empty() {
            let victims = held.len().min(1 + rng.usize(..8));
            held.drain(..victims)
                .for_each(|stream| end_held(&stream, &mut rng, &targets.killer));
        }
        agree(&coracle, &targets, &made, held.len(), round);
    }
    held.clear();
    agree(&coracle, &targets, &made, 0, ROUNDS);
    let scrapes = scraper.stop();

    let metrics = support::metrics::scrape(coracle.admin);
    let compared = metrics.series("coracle_connection_mismatch").count();
    assert_eq!(compared, 7, "each entrypoint, in each scrape");
    let made = made.into_inner();
    assert!(made >= 20_000);
    assert_eq!(metrics.sum("coracle_connections_opened_total"), made as f64);
    for reason in ["done", "client_reset", "server_reset", "connect_failed"] {
        let n = closed(&metrics, reason);
        assert!(n > 0.0, "no connection ended by {reason}");
    }
    let killed = targets.killer.killed();
    assert!(killed > 0);
    assert_eq!(closed(&metrics, "killed"), killed as f64);
    for reason in ["panic", "dropped"] {
        assert_eq!(closed(&metrics, reason), 0.0, "{reason}");
    }
    until("every descriptor is released", || {
        (coracle.descriptors() <= descriptors_at_start).then_some(())
    });
    println!("{made} connections, {scrapes} consistent scrapes");
}

/// Runs one connection. Returns it if it is to be held.
fn live(fate: Fate, rng: &mut Rng, targets: &Targets) -> Option<Held> {
    let n = rng.usize(..20_000);
    let script = targets.scripts[rng.usize(..4)];
    match fate {
        Fate::ClientCloses => {
            let mut stream = begin(script, Script::Echo, 0);
            echo(&mut stream, n);
        }
        Fate::ServerCloses => {
            let mut stream = begin(script, Script::SendAndClose, n as u64);
            assert_eq!(read_all(&mut stream).unwrap(), pattern(n));
        }
        Fate::ClientHalfCloses => {
            let mut stream = begin(script, Script::AnswerAfterEnd, n as u64);
            stream.write_all(&pattern(n)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut stream).unwrap(), pattern(n));
        }
        Fate::ServerHalfCloses => {
            let mut stream = begin(script, Script::FinishFirst, n as u64);
            assert_eq!(read_all(&mut stream).unwrap(), pattern(n));
            stream.write_all(&pattern(n)).unwrap();
        }
        Fate::ClientResets => {
            let stream = hold(script, Script::Hold);
            reset_on_close(&stream);
        }
        Fate::ServerResets => {
            let mut stream = begin(script, Script::Reset, 0);
            let error = read_all(&mut stream).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        Fate::BothClose => {
            let mut stream = hold(script, Script::CloseTogether);
            stream.write_all(b"!").unwrap();
        }
        Fate::Refused => {
            // The reset may arrive before connect(2) has returned.
            let error = try_connect(targets.refuse).and_then(|mut stream| read_all(&mut stream));
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        Fate::Unanswered => {
            let mut stream = connect(targets.silent);
            let error = read_all(&mut stream).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        Fate::GoneWhileDialling => drop(connect(targets.silent)),
        Fate::ResetWhileDialling => reset_on_close(&connect(targets.silent)),
        Fate::BackendDies => {
            // The server may be alive, dead or dying: however the connection ends, the count stays
            // right.
            if let Ok(mut stream) = try_connect(targets.mortal)
                && stream.write_all(&Script::Echo.request(0)).is_ok()
            {
                let _ = stream.write_all(&pattern(n));
                let _ = stream.shutdown(Shutdown::Write);
                let _ = read_all(&mut stream);
            }
        }
        Fate::Long => {
            let mut stream = begin(script, Script::Echo, 0);
            echo(&mut stream, LONG_BYTES);
        }
        Fate::Idle if script.is_ipv4() => {
            let stream = targets.killer.begin(script, Script::Hold, 0);
            return Some(Held::Tcp(stream));
        }
        Fate::Idle => return Some(Held::Tcp(hold(script, Script::Hold))),
        Fate::Killed => {
            let mut stream = targets.killer.begin(targets.scripts[2], Script::Hold, 0);
            assert!(targets.killer.kill(&stream), "the server has answered");
            expect_reset(&mut stream);
        }
        Fate::KilledWhileDialling => {
            let mut stream = targets.killer.connect(targets.silent);
            // Possibly before it is accepted, and then it ends by itself.
            targets.killer.kill(&stream);
            expect_reset(&mut stream);
        }
        Fate::KilledWhileSending => {
            let script = Script::SendAndClose;
            let n = LONG_BYTES as u64;
            let mut stream = targets.killer.begin(targets.scripts[0], script, n);
            // Everything may have been passed on already.
            if targets.killer.kill(&stream) {
                expect_reset(&mut stream);
            }
        }
        Fate::IdleHalfClosed => {
            // The server answers an hour later: until then the connection is half-open.
            let stream = begin(script, Script::AnswerLate, 3_600_000);
            stream.shutdown(Shutdown::Write).unwrap();
            // It has sent its FIN: only a reset can still reach the other side.
            reset_on_close(&stream);
            return Some(Held::Tcp(stream));
        }
        Fate::UnixCloses => {
            let mut stream = UnixStream::connect(&targets.unix).unwrap();
            stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
            stream
                .write_all(&Script::SendAndClose.request(n as u64))
                .unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, pattern(n));
        }
        Fate::UnixIdle => {
            let mut stream = UnixStream::connect(&targets.unix).unwrap();
            stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
            stream.write_all(&Script::Hold.request(0)).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            return Some(Held::Unix(stream));
        }
        Fate::IdleServerFinished => return Some(Held::Tcp(hold(script, Script::HoldFinished))),
    }
    None
}

/// Ends a held connection: closes, resets or kills it.
fn end_held(held: &Held, rng: &mut Rng, killer: &Killer) {
    let Held::Tcp(stream) = held else { return };
    match rng.u64(..3) {
        0 => reset_on_close(stream),
        1 if Killer::may_kill(stream) => assert!(killer.kill(stream), "it is held"),
        _ => {}
    }
}

fn expect_reset(stream: &mut TcpStream) {
    let error = read_all(stream).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).unwrap()
}

fn try_connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(support::DEADLINE))?;
    Ok(stream)
}

fn begin(address: SocketAddr, script: Script, n: u64) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&script.request(n)).unwrap();
    stream
}

/// An established connection: the server's first byte has arrived.
fn hold(address: SocketAddr, script: Script) -> TcpStream {
    let mut stream = begin(address, script, 0);
    stream.read_exact(&mut [0]).unwrap();
    stream
}

fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Sends `n` bytes through an echo while reading them back.
fn echo(stream: &mut TcpStream, n: usize) {
    let bytes = pattern(n);
    let mut sender = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&bytes).unwrap());
        let mut back = vec![0; n];
        stream.read_exact(&mut back).unwrap();
        assert!(back == bytes, "the echo differs");
    });
}

/// Waits until all connections are accepted and the gauge is `held`; then it stays so, and the
/// kernel agrees.
fn agree(coracle: &Coracle, targets: &Targets, made: &AtomicU64, held: usize, round: usize) {
    let made = made.load(Ordering::Relaxed) as f64;
    until(&format!("the gauge is {held} in round {round}"), || {
        let metrics = support::metrics::scrape(coracle.admin);
        let all_accepted = metrics.sum("coracle_connections_opened_total") == made;
        (all_accepted && open(&metrics) == held as f64).then_some(())
    });
    let tcp = [targets.refuse, targets.silent, targets.mortal];
    let addresses = || tcp.iter().chain(&targets.scripts);
    let unix = kernel::unix_connections(targets.unix.to_str().unwrap());
    let by_kernel: usize = addresses().map(|it| kernel::connections(*it)).sum();
    assert_eq!(
        by_kernel + unix,
        held,
        "the kernel's count in round {round}"
    );
    if support::has_tool("ss") {
        let by_ss = addresses().map(|it| kernel::connections_by_ss(*it));
        assert_eq!(
            by_ss.sum::<usize>() + unix,
            held,
            "the count of ss in round {round}"
        );
    }
    // The program agrees as well, once its last reading is no older than this quiet point.
    until(
        &format!("its own reading of the kernel is {held} in round {round}"),
        || {
            let metrics = support::metrics::scrape(coracle.admin);
            agrees(&metrics);
            let read = metrics.sum("coracle_kernel_connections");
            (read == held as f64 && open(&metrics) == read).then_some(())
        },
    );
}

fn open(metrics: &Metrics) -> f64 {
    metrics.sum("coracle_open_connections")
}

fn closed(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum_where(
        "coracle_connections_closed_total",
        &format!("reason=\"{reason}\""),
    )
}

fn forward(name: &str, listen: &str, to: &str) -> String {
    format!("[entrypoints.{name}]\nlisten = \"{listen}\"\nto = \"{to}\"\n")
}
