//! The oracle of the door: thousands of clients, each in a random way, are refused by lists, limits
//! and rates, or come through a proxy with a header that is right, malformed, cut off, late, or from
//! nobody who is trusted. At every quiet point each count is exact, by reason, and the kernel
//! agrees.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use coracle::wire::proxy_header::{Client, Version};

use crate::killer::Killer;
use crate::support::backend::{self, Script, pattern, reset_on_close};
use crate::support::clients::{connect_from, is_cut};
use crate::support::metrics::{Metrics, Scraper, agrees, scrape};
use crate::support::process::Coracle;
use crate::support::rng::{self, Rng};
use crate::support::{has_tool, kernel, until, until_ok};

const ROUNDS: usize = 8;
const EPISODES_PER_ROUND: usize = 400;
const WORKERS: usize = 12;
/// As in the configuration.
const CLIENT_CONNECTIONS: usize = 3;
const CLIENT_BURST: usize = 2;
const BURST: usize = 25;

/// What a client, which has an address of its own, does and meets.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Denied,
    AllowedWithinTheDenied,
    AtItsLimit,
    TooOften,
    AllTooOften,
    Full,
    Proxied,
    ProxiedAndHeld,
    ProxiedAndKilled,
    ProxiedLocal,
    Untrusted,
    Malformed,
    CutOff,
    Silent,
    Late,
    KilledInPrologue,
    NamedAndDenied,
    NamedAndAtItsLimit,
}

const FATES: [Fate; 18] = [
    Fate::Denied,
    Fate::AllowedWithinTheDenied,
    Fate::AtItsLimit,
    Fate::TooOften,
    Fate::AllTooOften,
    Fate::Full,
    Fate::Proxied,
    Fate::ProxiedAndHeld,
    Fate::ProxiedAndKilled,
    Fate::ProxiedLocal,
    Fate::Untrusted,
    Fate::Malformed,
    Fate::CutOff,
    Fate::Silent,
    Fate::Late,
    Fate::KilledInPrologue,
    Fate::NamedAndDenied,
    Fate::NamedAndAtItsLimit,
];

/// What has happened so far, as the metrics should count it.
#[derive(Default)]
struct Told(Mutex<BTreeMap<&'static str, usize>>);

impl Told {
    /// Counts connections: `opened`, a reason why they were refused, or `=` and why they closed.
    fn add(&self, what: &'static str, n: usize) {
        *self.0.lock().unwrap().entry(what).or_default() += n;
    }

    fn of(&self, what: &str) -> usize {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

struct World {
    coracle: Coracle,
    addresses: AtomicU32,
    told: Told,
    killer: Killer,
}

impl World {
    fn start(control: PathBuf, token: PathBuf) -> Self {
        std::fs::write(&token, Killer::TOKEN).unwrap();
        let server = backend::start();
        let entrypoint = |name: &str, more: &str| {
            format!("[entrypoints.{name}]\nlisten = \"127.0.0.1:0\"\nto = \"{server}\"\n{more}\n")
        };
        // No token comes back while the test runs.
        let rates = format!(
            "connection_rate_per_client = \"1/h\"\nconnection_burst_per_client = {CLIENT_BURST}"
        );
        let rate = format!("connection_rate = \"1/h\"\nconnection_burst = {BURST}");
        let proxied = "accept_proxy = true\ntrusted = [\"127.0.0.0/10\"]\n";
        let config = [
            entrypoint(
                "lists",
                "deny = [\"127.64.0.0/10\"]\nallow = [\"127.0.0.0/8\", \"127.96.0.0/11\"]",
            ),
            entrypoint(
                "clients",
                &format!("max_connections_per_client = {CLIENT_CONNECTIONS}"),
            ),
            entrypoint("often", &rates),
            entrypoint("rate", &rate),
            entrypoint("full", "max_connections = 1\nat_limit = \"refuse\""),
            entrypoint(
                "proxied",
                &format!(
                    "{proxied}prologue_timeout = \"5m\"\ndeny = [\"203.0.113.0/24\"]\n\
                     max_connections_per_client = 1"
                ),
            ),
            entrypoint("late", &format!("{proxied}prologue_timeout = \"100ms\"")),
            format!(
                "[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\ntoken_file = \"{}\"\n",
                control.display(),
                token.display()
            ),
        ];
        let coracle = Coracle::start(&config.concat());
        Self {
            killer: Killer::new(control).over_tcp(coracle.admin),
            addresses: AtomicU32::new(1),
            told: Told::default(),
            coracle,
        }
    }

    /// A number that no other client has.
    fn number(&self) -> u32 {
        self.addresses.fetch_add(1, Ordering::Relaxed)
    }

    /// Connects from an address of the network that begins at `first`. The reset of a client that
    /// is refused may arrive before connect(2) has returned.
    fn try_connect(&self, from: Ipv4Addr, name: &str) -> std::io::Result<TcpStream> {
        connect_from(from, self.coracle.address(name))
    }

    fn connect(&self, from: Ipv4Addr, name: &str) -> TcpStream {
        self.told.add("opened", 1);
        self.try_connect(from, name).unwrap()
    }

    /// Connects, and is refused for this reason.
    fn is_refused(&self, from: Ipv4Addr, name: &str, reason: &'static str) {
        self.told.add(reason, 1);
        let error = self
            .try_connect(from, name)
            .and_then(|mut client| client.read(&mut [0]));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    /// Expects the reset of a connection that was in the set, and this reason.
    fn is_cut(&self, client: TcpStream, reason: &'static str) {
        self.sends_and_is_cut(client, b"", reason);
    }

    /// The same for one that sends something, which the reset may precede. One call reports it.
    fn sends_and_is_cut(&self, client: TcpStream, bytes: &[u8], reason: &'static str) {
        self.told.add(reason, 1);
        is_cut(client, bytes);
    }

    /// Sends the header of a proxy in random pieces.
    fn named(&self, from: Ipv4Addr, source: Ipv4Addr, rng: &mut Rng) -> TcpStream {
        let named = Client::Tcp {
            source: SocketAddr::from((source, 1)),
            destination: SocketAddr::from(([192, 0, 2, 1], 443)),
        };
        let version = [Version::V1, Version::V2][rng.usize(..2)];
        let mut client = self.connect(from, "proxied");
        in_pieces(&mut client, &version.header(named), rng);
        client
    }

    /// Runs one client. Returns the connections to hold.
    fn live(&self, fate: Fate, rng: &mut Rng) -> Vec<TcpStream> {
        let number = self.number();
        let within = |first: [u8; 4]| Ipv4Addr::from_bits(u32::from_be_bytes(first) + number);
        let own = within([127, 1, 0, 0]);
        let named = within([198, 18, 0, 0]);
        match fate {
            Fate::Denied => self.is_refused(within([127, 65, 0, 0]), "lists", "denied"),
            Fate::AllowedWithinTheDenied => {
                passes(self.connect(within([127, 97, 0, 0]), "lists"), rng);
            }
            Fate::AtItsLimit => {
                let held = (0..CLIENT_CONNECTIONS).map(|_| held(self.connect(own, "clients")));
                let held: Vec<_> = held.collect();
                (0..rng.usize(1..4)).for_each(|_| self.is_refused(own, "clients", "client_limit"));
                return held;
            }
            Fate::TooOften => {
                (0..CLIENT_BURST).for_each(|_| passes(self.connect(own, "often"), rng));
                (0..rng.usize(1..4)).for_each(|_| self.is_refused(own, "often", "client_rate"));
            }
            // Whether it is among the first is seen by its answer.
            Fate::AllTooOften => match self.try_connect(own, "rate").and_then(answer) {
                Ok(()) => self.told.add("opened", 1),
                Err(_) => self.told.add("rate", 1),
            },
            Fate::Full => self.is_refused(own, "full", "limit"),
            Fate::Proxied => passes(self.named(own, named, rng), rng),
            Fate::ProxiedAndHeld => return vec![held(self.named(own, named, rng))],
            Fate::ProxiedAndKilled => {
                let client = self.killer.connect(self.coracle.address("proxied"));
                self.told.add("opened", 1);
                // The killer names the client by its address.
                let mut client = client;
                in_pieces(&mut client, b"PROXY UNKNOWN\r\n", rng);
                let client = held(client);
                assert!(self.killer.kill(&client), "the server has answered");
                self.is_cut(client, "=killed");
            }
            Fate::ProxiedLocal => {
                let mut client = self.connect(own, "proxied");
                let local = Version::V2.header(Client::Local);
                in_pieces(&mut client, &local, rng);
                passes(client, rng);
            }
            Fate::Untrusted => {
                let client = self.connect(within([127, 70, 0, 0]), "proxied");
                self.sends_and_is_cut(client, b"PROXY UNKNOWN\r\n", "=untrusted");
            }
            Fate::Malformed => {
                let client = self.connect(own, "proxied");
                let wrong = [
                    &b"GET / HTTP/1.1\r\n\r\n"[..],
                    b"PROXY TCP4 1.2.3\r\n",
                    b"\r\n\r\nX",
                ];
                self.sends_and_is_cut(client, wrong[rng.usize(..3)], "=prologue");
            }
            Fate::CutOff => {
                let mut client = self.connect(own, "proxied");
                let header = Version::V2.header(Client::Local);
                client
                    .write_all(&header[..rng.usize(1..header.len())])
                    .unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                self.is_cut(client, "=prologue");
            }
            Fate::Silent => {
                let client = self.connect(own, "proxied");
                client.shutdown(Shutdown::Write).unwrap();
                self.is_cut(client, "=prologue");
            }
            Fate::Late => {
                let client = self.connect(own, "late");
                self.sends_and_is_cut(client, b"PROXY", "=prologue");
            }
            Fate::KilledInPrologue => {
                self.told.add("opened", 1);
                let client = self.killer.connect(self.coracle.address("proxied"));
                until("it is accepted", || self.killer.kill(&client).then_some(()));
                self.is_cut(client, "=killed");
            }
            Fate::NamedAndDenied => {
                self.told.add("denied", 1);
                let last = Ipv4Addr::new(203, 0, 113, rng.u8(..));
                self.is_cut(self.named(own, last, rng), "=refused");
            }
            Fate::NamedAndAtItsLimit => {
                let first = held(self.named(own, named, rng));
                self.told.add("client_limit", 1);
                self.is_cut(self.named(own, named, rng), "=refused");
                return vec![first];
            }
        }
        Vec::new()
    }

    /// Waits until everything is counted, and then each number is right.
    fn agree(&self, held: usize, round: usize) {
        let expect = |metrics: &Metrics| {
            let sum = |name: &str, reason: &str| {
                metrics.sum_where(name, &format!("reason=\"{reason}\"")) as usize
            };
            let equal = |what: &str, expected: usize, found: usize| match expected == found {
                true => Ok(()),
                false => Err(format!("{what} is {found} instead of {expected}")),
            };
            for reason in [
                "denied",
                "client_limit",
                "client_rate",
                "rate",
                "limit",
                "quota",
            ] {
                let found = sum("coracle_connections_refused_total", reason);
                equal(reason, self.told.of(reason), found)?;
            }
            for reason in ["=prologue", "=untrusted", "=refused", "=killed"] {
                let found = sum("coracle_connections_closed_total", &reason[1..]);
                equal(reason, self.told.of(reason), found)?;
            }
            let opened = metrics.sum("coracle_connections_opened_total") as usize;
            equal("opened", self.told.of("opened"), opened)?;
            let open = metrics.sum("coracle_open_connections") as usize;
            equal("open", held, open)?;
            let read = metrics.sum("coracle_kernel_connections") as usize;
            equal("its own reading of the kernel", held, read)
        };
        until_ok(&format!("all counts of round {round} are right:"), || {
            let metrics = scrape(self.coracle.admin);
            agrees(&metrics);
            expect(&metrics)
        });
        let names = [
            "lists", "clients", "often", "rate", "full", "proxied", "late",
        ];
        let addresses = || names.iter().map(|name| self.coracle.address(name));
        let by_kernel: usize = addresses().map(kernel::connections).sum();
        assert_eq!(by_kernel, held, "the kernel's count in round {round}");
        if has_tool("ss") {
            let by_ss: usize = addresses().map(kernel::connections_by_ss).sum();
            assert_eq!(by_ss, held, "the count of ss in round {round}");
        }
    }
}

/// Sends bytes in a few pieces.
fn in_pieces(client: &mut TcpStream, bytes: &[u8], rng: &mut Rng) {
    client.set_nodelay(true).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=rest.len()));
        client.write_all(piece).unwrap();
        rest = after;
    }
}

/// Gets the server's first byte. The server keeps the connection.
fn held(mut client: TcpStream) -> TcpStream {
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.write_all(&Script::SendAndClose.request(1))?;
    client.read_exact(&mut [0])
}

/// Gets its bytes back, and ends.
fn passes(mut client: TcpStream, rng: &mut Rng) {
    let bytes = pattern(rng.usize(1..5_000));
    client
        .write_all(&Script::AnswerAfterEnd.request(bytes.len() as u64))
        .unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn refusals_and_headers_are_counted_exactly_by_reason() {
    let _ = coracle::sys::descriptors::raise_limit();
    let mut rng = rng::from_env();
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path().join("control.sock"), dir.path().join("token"));
    let full = held(world.connect([127, 0, 0, 2].into(), "full"));
    let scraper = Scraper::start(world.coracle.admin);
    let mut all: Vec<TcpStream> = Vec::new();
    for round in 0..ROUNDS {
        let rngs: Vec<Rng> = (0..WORKERS).map(|_| rng.fork()).collect();
        let next = AtomicU32::new(0);
        let held: Vec<_> = thread::scope(|scope| {
            let (world, next) = (&world, &next);
            let workers = rngs.into_iter().map(|mut rng| {
                scope.spawn(move || {
                    let mut held = Vec::new();
                    while next.fetch_add(1, Ordering::Relaxed) < EPISODES_PER_ROUND as u32 {
                        let fate = FATES[rng.usize(..FATES.len())];
                        held.extend(world.live(fate, &mut rng));
                    }
                    held
                })
            });
            let workers: Vec<_> = workers.collect();
            workers
                .into_iter()
                .flat_map(|it| it.join().unwrap())
                .collect()
        });
        all.extend(held);
        world.agree(all.len() + 1, round);
        // Some of those held end, each in one of two ways.
        rng.shuffle(&mut all);
        for client in all.drain(..rng.usize(..=all.len())) {
            if rng.bool() {
                reset_on_close(&client);
            }
        }
        world.agree(all.len() + 1, round);
    }
    drop(full);
    all.clear();
    world.agree(0, ROUNDS);
    let scrapes = scraper.stop();
    for reason in [
        "denied",
        "client_limit",
        "client_rate",
        "rate",
        "limit",
        "=prologue",
    ] {
        assert!(world.told.of(reason) > 0, "nobody was refused by {reason}");
    }
    assert_eq!(world.told.of("=killed") as u64, world.killer.killed());
    println!(
        "{} opened, {scrapes} consistent scrapes",
        world.told.of("opened")
    );
}
