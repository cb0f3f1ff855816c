//! The oracle for several servers: while servers die, hang and come back, an operator drains them
//! and reloads replace them, every quiet point finds one number in the gauges, in the servers, in
//! this test and in the kernel's table.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::support::backend::reset_on_close;
use crate::support::fleet::{Member, Session, closed, service, with};
use crate::support::metrics::{Metrics, Scraper, agrees, balances, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::rng::{self, Rng};
use crate::support::{kernel, lasting_address, until_ok};

const ROUNDS: usize = 8;
/// What must happen at least once.
const SOMETIMES: [&str; 3] = [
    "coracle_retries_total",
    "coracle_queue_duration_seconds_count",
    "coracle_connections_refused_total",
];
const SERVERS: u8 = 5;
/// In each round, under load: the clients of each worker, and what happens meanwhile.
const WORKERS: usize = 8;
const CLIENTS: usize = 12;
const EVENTS: usize = 10;
/// In each round after that: what happens, each followed by a quiet point.
const STEPS: usize = 10;
/// Held connections leave room at an entrypoint where the others wait.
const MOST_HELD: usize = 8;
const AT_ENTRYPOINT: usize = 12;

#[test]
fn gauges_servers_and_kernel_agree_while_servers_come_and_go() {
    let mut rng = rng::from_env();
    let mut world = World::start(&mut rng);
    scrape(world.admin);
    let descriptors_at_start = world.coracle.settled_descriptors();
    let scraper = Scraper::start_with(world.admin, |_, now| {
        balances(now);
        agrees(now);
    });
    // By chance a few rounds may lack one of these.
    let happened = |admin| {
        let metrics = scrape(admin);
        SOMETIMES.iter().all(|name| metrics.sum(name) > 0.0)
    };
    let mut round = 0;
    while round < ROUNDS || (round < 10 * ROUNDS && !happened(world.admin)) {
        world.round = round;
        world.reload(Phase::Load, &mut rng);
        world.load(&mut rng);
        world.agree();
        world.reload(Phase::Patience, &mut rng);
        for _ in 0..STEPS {
            world.step(&mut rng);
            world.agree();
        }
        match round % 2 {
            // Some continue into the next round.
            0 => world.held.truncate(rng.usize(..=MOST_HELD)),
            _ => world.serve_all(),
        }
        world.agree();
        if round % 4 == 3 {
            world.agree_with_own_reading();
        }
        round += 1;
    }
    world.held.clear();
    world.agree();
    world.agree_with_own_reading();
    let scrapes = scraper.stop();
    let metrics = scrape(world.admin);
    // The series of servers go with them.
    for name in SOMETIMES {
        assert!(metrics.sum(name) > 0.0, "no {name}");
    }
    for reason in ["panic", "dropped"] {
        assert_eq!(closed(&metrics, reason), 0.0, "{reason}");
    }
    until_ok("every descriptor is released", || {
        match world.coracle.descriptors() {
            n if n <= descriptors_at_start => Ok(()),
            n => Err(format!("{n} of {descriptors_at_start}")),
        }
    });
    let opened = metrics.sum("coracle_connections_opened_total");
    println!("{opened} connections, {scrapes} consistent scrapes");
}

/// What the clients of a configuration are like.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Many, none of which waits in the queue for long.
    Load,
    /// Few, which wait until they are served.
    Patience,
}

/// What the test knows of the server of a configuration.
#[derive(Clone, Copy)]
struct Share {
    server: u8,
    weight: u8,
    most: usize,
    is_backup: bool,
}

/// A connection that the test holds. It may wait for a server.
struct Client {
    stream: TcpStream,
    /// The server that it has reached.
    server: Option<u8>,
    /// The servers from which it must get the first that has room: none if it may have tried some.
    choices: Vec<u8>,
}

impl Client {
    /// Takes note of its server. Returns whether it is still open.
    fn is_open(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => self.server.replace(byte[0]).is_none(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
            Ok(_) => false,
        }
    }

    fn waits(&self) -> bool {
        self.server.is_none()
    }
}

struct World {
    coracle: Coracle,
    admin: SocketAddr,
    listen: SocketAddr,
    socket: PathBuf,
    _dir: TempDir,
    members: Vec<Member>,
    /// The servers of the configuration in force.
    shares: Vec<Share>,
    /// The last share of each server, which it keeps when it is removed.
    last: [Option<Share>; SERVERS as usize],
    /// Whether clients of the configuration in force try one server each.
    tries_one: bool,
    held: Vec<Client>,
    round: usize,
}

impl World {
    fn start(rng: &mut Rng) -> Self {
        let (admin, listen) = (lasting_address(rng), lasting_address(rng));
        let members = Member::several(SERVERS, rng);
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let first = service(&[with(&members[0], "")], "");
        Self {
            coracle: Coracle::start(&placed(admin, listen, &socket, &first)),
            admin,
            listen,
            socket,
            _dir: dir,
            members,
            shares: Vec::new(),
            last: [None; SERVERS as usize],
            tries_one: false,
            held: Vec::new(),
            round: 0,
        }
    }

    /// Brings a random configuration into force.
    fn reload(&mut self, phase: Phase, rng: &mut Rng) {
        let mut shares = Vec::new();
        for server in 0..SERVERS {
            shares.push(Share {
                server,
                weight: pick(rng, &[0, 1, 1, 3]),
                most: match phase {
                    Phase::Load => pick(rng, &[1, 2, 9, usize::MAX]),
                    // Few places, so that clients do wait.
                    Phase::Patience => pick(rng, &[1, 1, 2, 3]),
                },
                is_backup: rng.u32(..4) == 0,
            });
        }
        rng.shuffle(&mut shares);
        shares.truncate(rng.usize(1..=shares.len()));
        let servers: Vec<_> = shares.iter().map(|it| self.written(it)).collect();
        let balance = pick(
            rng,
            &["round_robin", "least_connections", "random", "source"],
        );
        let balance = format!("balance = \"{balance}\"");
        let retries = pick(rng, &["", "retries = 0", "retries = 0", "retries = 7"]);
        let queue = match phase {
            Phase::Load => pick(rng, &["queue = 0", "queue_timeout = \"50ms\""]),
            Phase::Patience => pick(
                rng,
                &[
                    "queue = 3\nqueue_timeout = \"1h\"",
                    "queue_timeout = \"1h\"",
                ],
            ),
        };
        let settings = [
            balance.as_str(),
            retries,
            queue,
            pick(rng, &["max_fails = 0", "max_fails = 1", "max_fails = 3"]),
            pick(rng, &["", "when_down = \"refuse\""]),
            pick(rng, &["", "on_down = \"close\""]),
            pick(rng, &["", "slow_start = \"1s\""]),
            // Attempts to reach a server that hangs, and pauses between retries, end soon.
            "connect_timeout = \"100ms\"\ndial_timeout = \"200ms\"",
        ];
        let mut config = service(&servers, &settings.join("\n"));
        let limit = match (rng.u32(..3), phase) {
            (0, _) => "max_connections = 8\nat_limit = \"refuse\"\n".to_owned(),
            (1, Phase::Load) => format!("max_connections = {AT_ENTRYPOINT}\n"),
            _ => String::new(),
        };
        config.insert_str(config.find("service = ").unwrap(), &limit);
        let config = placed(self.admin, self.listen, &self.socket, &config);
        assert!(self.coracle.reload(&config));
        for share in &shares {
            self.last[usize::from(share.server)] = Some(*share);
        }
        self.shares = shares;
        self.tries_one = retries == "retries = 0";
    }

    fn written(&self, share: &Share) -> String {
        let mut settings = format!(", weight = {}, backup = {}", share.weight, share.is_backup);
        if share.most < usize::MAX {
            settings.push_str(&format!(", max_connections = {}", share.most));
        }
        with(&self.members[usize::from(share.server)], &settings)
    }

    /// Lets clients come and go while everything else changes.
    fn load(&mut self, rng: &mut Rng) {
        let holds = AtomicUsize::new(self.held.len());
        let rngs: Vec<Rng> = (0..WORKERS).map(|_| rng.fork()).collect();
        let (holds, listen) = (&holds, self.listen);
        thread::scope(|scope| {
            let workers: Vec<_> = rngs
                .into_iter()
                .map(|mut rng| {
                    scope.spawn(move || {
                        let lives = (0..CLIENTS).filter_map(|_| live(listen, holds, &mut rng));
                        lives.collect::<Vec<_>>()
                    })
                })
                .collect();
            for _ in 0..EVENTS {
                match rng.u32(..8) {
                    0 => self.reload(Phase::Load, rng),
                    1 => self.order(rng),
                    2 => self.members[rng.usize(..self.members.len())].resume(),
                    3 => {
                        let up: Vec<_> = self.members.iter().filter(|it| it.is_up()).collect();
                        up.first().inspect(|_| pick(rng, &up).hang());
                    }
                    _ => self.come_or_go(rng),
                }
                // The program has gone round.
                scrape(self.admin);
            }
            self.members.iter().for_each(Member::resume);
            for worker in workers {
                self.held.extend(worker.join().unwrap());
            }
        });
    }

    /// Lets one thing happen while clients wait.
    fn step(&mut self, rng: &mut Rng) {
        let one = |them: Vec<usize>, rng: &mut Rng| {
            (!them.is_empty()).then(|| them[rng.usize(..them.len())])
        };
        let place = |(index, _)| index;
        let all = self.held.iter().enumerate();
        let leaves = match rng.u32(..12) {
            0..4 => {
                for _ in 0..rng.u32(1..6) {
                    self.held.extend(self.join());
                }
                return;
            }
            4..6 => one(all.filter(|(_, it)| it.waits()).map(place).collect(), rng),
            6..8 => one(all.filter(|(_, it)| !it.waits()).map(place).collect(), rng),
            8 => return self.order(rng),
            9 => return self.reload(Phase::Patience, rng),
            _ => return self.come_or_go(rng),
        };
        if let Some(client) = leaves.map(|index| self.held.remove(index))
            && rng.bool()
        {
            reset_on_close(&client.stream);
        }
    }

    fn join(&self) -> Option<Client> {
        let stream = connect(self.listen)?;
        stream.set_nonblocking(true).unwrap();
        let servers = self.shares.iter().map(|it| it.server);
        let choices = servers.filter(|_| self.tries_one).collect();
        Some(Client {
            stream,
            server: None,
            choices,
        })
    }

    /// Takes a server down or brings it back.
    fn come_or_go(&mut self, rng: &mut Rng) {
        let member = &mut self.members[rng.usize(..usize::from(SERVERS))];
        match (member.is_up(), rng.bool()) {
            (false, _) => member.come(),
            (true, true) => member.die(),
            (true, false) => member.go(),
        }
    }

    /// Gives an order for one server.
    fn order(&self, rng: &mut Rng) {
        let share = self.shares[rng.usize(..self.shares.len())];
        let address = self.members[usize::from(share.server)].address.to_string();
        let state = pick(rng, &["drain", "down", "ready", "ready"]);
        let mut command = Command::new(binary());
        command.arg("server").arg("--socket").arg(&self.socket);
        let output = command.args(["s", &address, state]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Whoever is served leaves, until nobody waits any more.
    fn serve_all(&mut self) {
        until_ok("nobody waits any more", || {
            self.held.retain_mut(|it| it.is_open() && it.waits());
            equal("this test", 0, self.held.len())
        });
    }

    /// Waits until only the held connections are left, and everyone counts the same.
    fn agree(&mut self) {
        until_ok(&format!("all counts agree in round {}", self.round), || {
            self.held.retain_mut(Client::is_open);
            let metrics = scrape(self.admin);
            balances(&metrics);
            agrees(&metrics);
            let sockets = kernel::tcp_sockets();
            for member in &self.members {
                let own = |it: &&Client| it.server == Some(member.id);
                let own = self.held.iter().filter(own).count();
                let port = member.address.port();
                let by_kernel = sockets.iter().filter(|it| it.remote_port == port);
                equal("the server", own, member.open())?;
                equal("the gauge of the server", own, open_at(member, &metrics))?;
                equal("the kernel, of the server", own, by_kernel.count())?;
            }
            let (open, waiting) = (self.held.len(), self.waiting().count());
            let sum = |name| metrics.sum(name) as usize;
            equal(
                "the gauge of the entrypoint",
                open,
                sum("coracle_open_connections"),
            )?;
            equal(
                "all servers together",
                open - waiting,
                sum("coracle_service_open_connections"),
            )?;
            equal("the queue", waiting, sum("coracle_queue_length"))?;
            equal("the kernel", open, kernel::connections(self.listen))?;
            match self.waiting().find(|it| self.could_serve(it, &metrics)) {
                Some(_) => Err("a client waits although a server has room".to_owned()),
                None => Ok(()),
            }
        });
    }

    /// Waits until the program has read the kernel's table, which it does once a second.
    fn agree_with_own_reading(&self) {
        until_ok("its own reading of the kernel is right", || {
            let read = scrape(self.admin).sum("coracle_kernel_connections");
            equal("coracle's own reading", self.held.len(), read as usize)
        });
    }

    fn waiting(&self) -> impl Iterator<Item = &Client> {
        self.held.iter().filter(|it| it.waits())
    }

    /// Whether a server that is up has room for a client that has tried none.
    fn could_serve(&self, client: &Client, metrics: &Metrics) -> bool {
        let shares = client
            .choices
            .iter()
            .filter_map(|id| self.last[usize::from(*id)]);
        let usable = shares.filter(|share| {
            let member = &self.members[usize::from(share.server)];
            let is = |name, value| member.metric(metrics, name, "") == value;
            share.weight > 0
                && is("coracle_server_up", 1.0)
                && is("coracle_server_admin_state", 0.0)
        });
        let usable: Vec<Share> = usable.collect();
        let only_backups = usable.iter().all(|it| it.is_backup);
        usable.iter().any(|it| {
            let member = &self.members[usize::from(it.server)];
            it.is_backup == only_backups && open_at(member, metrics) < it.most
        })
    }
}

/// Connects. Returns `None` if the client is refused so soon that connect(2) itself reports it.
fn connect(listen: SocketAddr) -> Option<TcpStream> {
    match TcpStream::connect(listen) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        connected => Some(connected.unwrap()),
    }
}

/// Runs one connection. Returns it if it is to be held.
fn live(listen: SocketAddr, holds: &AtomicUsize, rng: &mut Rng) -> Option<Client> {
    let mut stream = connect(listen)?;
    match rng.u32(..10) {
        // Gone before it is served, in one of the ways.
        0 => return None,
        1 => {
            reset_on_close(&stream);
            return None;
        }
        2 => {
            let _ = stream.write_all(b"hello");
            return None;
        }
        _ => {}
    }
    let Session { stream, server } = Session::try_over(stream).ok()?;
    let may_hold = || {
        let more = |n| (n < MOST_HELD).then_some(n + 1);
        let held = holds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        held.is_ok()
    };
    if rng.u32(..4) == 0 && may_hold() {
        stream.set_nonblocking(true).unwrap();
        return Some(Client {
            stream,
            server: Some(server),
            choices: Vec::new(),
        });
    }
    if rng.u32(..4) == 0 {
        reset_on_close(&stream);
    }
    None
}

/// A configuration with its admin endpoint, control socket and listener.
fn placed(admin: SocketAddr, listen: SocketAddr, socket: &std::path::Path, config: &str) -> String {
    let config = config.replace("127.0.0.1:0", &listen.to_string());
    let socket = socket.display();
    format!("{config}[admin]\nlisten = \"{admin}\"\nsocket = \"{socket}\"\n")
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn open_at(member: &Member, metrics: &Metrics) -> usize {
    member.metric(metrics, "coracle_service_open_connections", "") as usize
}

fn equal(who: &str, expected: usize, counted: usize) -> Result<(), String> {
    match expected == counted {
        true => Ok(()),
        false => Err(format!("{who} counts {counted} instead of {expected}")),
    }
}
