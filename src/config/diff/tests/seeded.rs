//! Seeded configurations that differ in one field, or in none.

use std::net::{Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{
    Access, Accounting, Admin, AtLimit, AtQuota, Balance, ClientLimits, Config, ControlSocket,
    Entrypoint, Expect, Health, HealthKind, Limits, Listening, Log, Metrics, OnDown, OnRemoved,
    Quota, QuotaPeriod, Resolve, Route, SendProxy, Server, Service, SocketAccess, WhenDown,
};
use crate::config::{Address, AtRefuse, Changes, Host, Listen};
use crate::state::{
    AccessList, AccessRule, Bandwidth, Bind, ByteRate, NamePattern, Network, Outgoing, Rate, Rule,
    Verdict,
};
use crate::wire::first_bytes::Protocol;

const QUOTA: Quota = Quota {
    bytes: 1 << 30,
    period: QuotaPeriod::Month,
};

/// Mutates one field of each seeded configuration, possibly to the value it already has.
#[test]
fn changes_are_empty_if_and_only_if_nothing_differs() {
    const ROUNDS: usize = 20_000;
    let mut random = Random(fastrand::Rng::with_seed(0x2672));
    let mut equal = 0;
    for round in 0..ROUNDS {
        let old = config(&mut random);
        let mut new = old.clone();
        mutate(&mut new, &mut random);
        equal += usize::from(old == new);
        let moved = shuffled(&new, &mut random);
        for (from, to) in [(&old, &new), (&new, &old), (&old, &moved), (&moved, &old)] {
            let changes = Changes::between(from, to);
            assert_eq!(
                changes.is_empty(),
                old == new,
                "round {round}: {changes}\n{from:#?}\n{to:#?}"
            );
            assert_eq!(changes.to_string().lines().count(), changes.lines().len());
            let controls = |line: &String| line.contains(char::is_control);
            assert!(!changes.lines().iter().any(controls), "{changes:?}");
        }
        assert!(Changes::between(&new, &moved).is_empty(), "round {round}");
    }
    assert!(
        (ROUNDS / 100..ROUNDS / 2).contains(&equal),
        "{equal} of {ROUNDS} are equal"
    );
}

/// Includes names that no parsed configuration can have.
const NAMES: [&str; 5] = ["web", "ssh", "nas", "a b", "\u{1b}[31m\n\u{9b}"];
const HOSTS: [&str; 3] = ["a.lan", "b.lan", "c.lan"];
const TIMES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(1500),
    Duration::from_secs(60),
];
const SWITCHES: [bool; 2] = [false, true];
const NUMBERS: [u32; 3] = [0, 1, 300];
const MOST: [Option<NonZeroU32>; 3] = [None, Some(NonZeroU32::MIN), Some(NonZeroU32::MAX)];

fn listens() -> [Listen; 6] {
    let tcp = |address: &str, v6only| {
        let address: SocketAddr = address.parse().unwrap();
        let last = address.port();
        Listen::Tcp {
            address,
            last,
            v6only,
        }
    };
    [
        "[::]:80-81".parse().unwrap(),
        tcp("[::]:80", false),
        tcp("[::]:80", true),
        tcp("0.0.0.0:80", false),
        tcp("[::1]:0", false),
        Listen::Unix("/run/\u{1b}".into()),
    ]
}

fn networks() -> [Network; 3] {
    ["10.0.0.0/8", "192.168.1.5", "fd00::/8"].map(|it| it.parse().unwrap())
}

fn servers() -> [Server; 5] {
    let host = Host::Name("nas.lan".to_owned());
    [
        Address::Tcp {
            host,
            port: 80,
            last: 80,
        },
        Address::Tcp {
            host: Host::Ip(Ipv6Addr::LOCALHOST.into()),
            port: 80,
            last: 80,
        },
        "192.168.1.10:80".parse().unwrap(),
        "192.168.1.10:80-81".parse().unwrap(),
        Address::Unix("/run/\n".into()),
    ]
    .map(Server::at)
}

/// Rates that differ in one of their parts each.
fn rates() -> [Option<Rate>; 5] {
    let [second, minute] = [1, 60].map(Duration::from_secs);
    let rate = |count, per, burst| Some(Rate { count, per, burst });
    [
        None,
        rate(1, second, 1),
        rate(2, second, 1),
        rate(1, minute, 1),
        rate(1, second, 2),
    ]
}

fn bandwidths() -> [Bandwidth; 5] {
    let way = |bytes, burst| Some(ByteRate { bytes, burst });
    let ways = |to_server, to_client| Bandwidth {
        to_server,
        to_client,
    };
    [
        Bandwidth::default(),
        ways(way(1 << 20, 1 << 14), None),
        ways(way(1 << 20, 1 << 15), None),
        ways(None, way(1 << 20, 1 << 14)),
        ways(way(1 << 20, 1 << 14), way(1 << 20, 1 << 14)),
    ]
}

/// Lists that differ in one of their parts each.
fn accesses() -> [Option<Arc<Access>>; 9] {
    let all = |verdict, text: &str| {
        let rule = AccessRule {
            network: text.parse().unwrap(),
            verdict,
            tag: 0,
        };
        Arc::new(AccessList::new(&mut [rule], Verdict::Deny, |_, _| {}))
    };
    let network: Network = "10.0.0.0/8".parse().unwrap();
    let first = Access {
        allow: Some(vec![network]),
        deny: None,
        allow_file: None,
        deny_file: None,
        list: all(Verdict::Allow, "10.0.0.0/8"),
    };
    let with = |change: &dyn Fn(&mut Access)| {
        let mut other = first.clone();
        change(&mut other);
        Some(Arc::new(other))
    };
    [
        None,
        with(&|_| {}),
        with(&|it| it.allow = None),
        with(&|it| it.allow = Some(vec![])),
        with(&|it| it.allow = Some(vec![network; 30])),
        with(&|it| it.deny = Some(vec![network])),
        with(&|it| it.allow_file = Some("/etc/\u{1b}".into())),
        with(&|it| it.deny_file = Some("/etc/\u{1b}".into())),
        with(&|it| it.list = all(Verdict::Allow, "10.0.0.0/9")),
    ]
}

fn config(random: &mut Random) -> Config {
    let services: Vec<_> = random
        .some(&NAMES)
        .into_iter()
        .map(|name| service(name, random))
        .collect();
    let entrypoint = |name: &str, random: &mut Random| Entrypoint {
        name: name.to_owned(),
        listen: random.some(&listens()),
        reuse_port: random.pick(&SWITCHES),
        listening: listening(random),
        socket: SocketAccess::default(),
        service: some_service(services.len(), random),
        routes: routes(services.len(), random),
        default_after: random.pick(&[None, Some(TIMES[1])]),
        idle_timeout: None,
        half_close_timeout: None,
        keepalive: Some(random.pick(&TIMES)),
        on_removed: OnRemoved::default(),
        max_connections: random.pick(&MOST),
        at_limit: random.pick(&[AtLimit::Wait, AtLimit::Refuse]),
        access: random.pick(&accesses()),
        per_client: ClientLimits {
            max_connections: random.pick(&MOST),
            rate: random.pick(&rates()),
            bandwidth: random.pick(&bandwidths()),
            ipv6_prefix: random.pick(&[64, 56]),
        },
        bandwidth_per_connection: random.pick(&bandwidths()),
        rate: random.pick(&rates()),
        at_refuse: AtRefuse::default(),
        accept_proxy: random.pick(&SWITCHES),
        trusted: random.some(&networks()),
        prologue_timeout: random.pick(&TIMES),
    };
    let names = random.some(&NAMES).into_iter();
    let entrypoints = names.map(|name| entrypoint(name, random)).collect();
    Config {
        drain_timeout: random.pick(&TIMES),
        watch: random.pick(&SWITCHES),
        admin: Admin {
            listen: None,
            open: random.pick(&SWITCHES),
            token_file: None,
            socket: ControlSocket::Default,
        },
        admin_hosts: random.some(&HOSTS).into_iter().map(str::to_owned).collect(),
        log: Log {
            level: log::LevelFilter::Info,
            access: random.pick(&SWITCHES),
        },
        metrics: Metrics {
            traefik: random.pick(&SWITCHES),
        },
        entrypoints,
        services,
        limits: Limits {
            max_connections: random.pick(&MOST),
            memory: random.pick(&[None, Some(32 << 20)]),
        },
        accounting: random.pick(&[None, Some(())]).map(|()| accounting(random)),
        warnings: None,
    }
}

fn listening(random: &mut Random) -> Listening {
    Listening {
        interface: random.pick(&[None, Some("lo")]).map(str::to_owned),
        backlog: random.pick(&[1, 1024]),
        fast_open: random.pick(&SWITCHES),
    }
}

fn accounting(random: &mut Random) -> Accounting {
    Accounting {
        clients: random.pick(&[1, 4096]),
        ipv4_prefix: random.pick(&[24, 32]),
        ipv6_prefix: random.pick(&[48, 64]),
        quota: random.pick(&[None, Some(QUOTA)]),
        at_quota: random.pick(&[AtQuota::Log, AtQuota::Refuse]),
        quota_rate: random.pick(&[None, Some(1 << 16)]),
        file: random.pick(&[None, Some("/a")]).map(Into::into),
        save_interval: random.pick(&TIMES),
    }
}

fn service(name: &str, random: &mut Random) -> Service {
    let mut service = Service {
        connect_timeout: random.pick(&TIMES),
        dial_timeout: random.pick(&TIMES),
        health: random.pick(&[None, Some(())]).map(|()| health(random)),
        ..Service::new(name.to_owned(), random.some(&servers()))
    };
    for _ in 0..random.below(8) {
        mutate_service(&mut service, random);
    }
    service
}

fn health(random: &mut Random) -> Health {
    Health {
        kind: random.pick(&checks()),
        interval: random.pick(&TIMES),
        jitter: random.pick(&TIMES),
        timeout: random.pick(&TIMES),
        rise: NonZeroU32::MIN,
        fall: NonZeroU32::MIN,
        port: None,
    }
}

fn checks() -> [HealthKind; 3] {
    let http = |host: Option<&str>| HealthKind::Http {
        path: "/".to_owned(),
        host: host.map(str::to_owned),
        status: (200, 399),
    };
    let tcp = HealthKind::Tcp {
        send: Vec::new(),
        expect: None,
    };
    [tcp, http(None), http(Some("\u{1b}"))]
}

/// Rules that differ in one of their conditions each.
fn rules() -> Vec<Rule> {
    let name = |name: &str, is_wildcard| NamePattern::new(name, is_wildcard);
    let first = Rule {
        sni: vec![name("nas.lan", false)],
        ..Rule::default()
    };
    let with = |change: &dyn Fn(&mut Rule)| {
        let mut other = first.clone();
        change(&mut other);
        other
    };
    vec![
        first.clone(),
        with(&|it| it.sni = vec![name("nas.lan", true)]),
        with(&|it| it.sni = (1..20).map(|n| name(&format!("{n}.lan"), false)).collect()),
        with(&|it| it.sni = (1..21).map(|n| name(&format!("{n}.lan"), false)).collect()),
        with(&|it| it.alpn = vec![b"h2"[..].into()]),
        with(&|it| it.alpn = vec![b"\x1b"[..].into()]),
        with(&|it| it.starts = vec![Protocol::Tls]),
        with(&|it| it.starts_with = vec![b"\xff\n"[..].into()]),
        with(&|it| it.host = vec![name("nas.lan", false)]),
        with(&|it| it.from = networks().to_vec()),
    ]
}

fn some_service(services: usize, random: &mut Random) -> Option<usize> {
    let service = random.below(services);
    random.pick(&[None, Some(service)])
}

fn routes(services: usize, random: &mut Random) -> Vec<Route> {
    let n = random.below(3);
    let names = [None, Some("a".to_owned()), Some("\u{1b}".to_owned())];
    let route = |_| Route {
        name: random.pick(&names),
        rule: random.pick(&rules()),
        service: random.below(services),
    };
    (0..n).map(route).collect()
}

fn mutate_route(route: &mut Route, service: usize, random: &mut Random) {
    match random.below(3) {
        0 => route.name = random.pick(&[None, Some("b".to_owned())]),
        1 => route.rule = random.pick(&rules()),
        _ => route.service = service,
    }
}

/// Changes one field of the configuration.
fn mutate(config: &mut Config, random: &mut Random) {
    let time = random.pick(&TIMES);
    let switch = random.pick(&SWITCHES);
    let at = random.below(config.services.len());
    let entrypoints = config.entrypoints.len();
    let services = config.services.len();
    let entrypoint = &mut config.entrypoints[random.below(entrypoints)];
    match random.below(49) {
        0 => config.drain_timeout = time,
        1 => config.watch = switch,
        2 => config.admin.listen = switch.then(|| ([127, 0, 0, 1], 2672).into()),
        3 => {
            let sockets = [
                ControlSocket::Default,
                ControlSocket::Off,
                ControlSocket::At("/run/\u{7f}".into()),
            ];
            config.admin.socket = random.pick(&sockets);
        }
        4 => drop(config.admin_hosts.pop()),
        5 => config.log.level = random.pick(&[log::LevelFilter::Info, log::LevelFilter::Off]),
        6 => config.log.access = switch,
        7 => config.metrics.traefik = switch,
        8 => config.limits.max_connections = random.pick(&MOST),
        9 => config.limits.memory = random.pick(&[None, Some(32 << 20), Some(1)]),
        10 => entrypoint.service = random.pick(&[None, Some(at)]),
        26 => entrypoint.routes = routes(services, random),
        27 => random.shuffle(&mut entrypoint.routes),
        28 => {
            if let Some(route) = entrypoint.routes.first_mut() {
                mutate_route(route, at, random);
            }
        }
        29 => entrypoint.default_after = random.pick(&[None, Some(time)]),
        11 => {
            let mut more = entrypoint.clone();
            more.name = "more".to_owned();
            config.entrypoints.push(more);
        }
        12 => config.services[at].name = "renamed".to_owned(),
        13 => config.admin.open = switch,
        14 => {
            let files = [None, Some("/etc/a".into()), Some("/etc/\u{7f}".into())];
            config.admin.token_file = random.pick(&files);
        }
        15 => config.accounting = random.pick(&[None, Some(Accounting::default())]),
        16 | 17 => mutate_accounting(config.accounting.get_or_insert_default(), random),
        18..26 => mutate_entrypoint(entrypoint, random),
        _ => mutate_service(&mut config.services[at], random),
    }
}

fn mutate_accounting(accounting: &mut Accounting, random: &mut Random) {
    let day = Quota {
        period: QuotaPeriod::Day,
        ..QUOTA
    };
    match random.below(8) {
        0 => accounting.clients = random.pick(&[1, 4096]),
        1 => accounting.ipv4_prefix = random.pick(&[24, 32]),
        2 => accounting.ipv6_prefix = random.pick(&[48, 64]),
        3 => accounting.quota = random.pick(&[None, Some(QUOTA), Some(day)]),
        4 => accounting.at_quota = random.pick(&[AtQuota::Slow, AtQuota::Refuse]),
        6 => accounting.quota_rate = random.pick(&[None, Some(1 << 16), Some(1)]),
        5 => accounting.file = random.pick(&[None, Some("/\u{7f}")]).map(Into::into),
        _ => accounting.save_interval = random.pick(&TIMES),
    }
}

fn mutate_entrypoint(entrypoint: &mut Entrypoint, random: &mut Random) {
    let time_or_none = random.pick(&[None, Some(TIMES[0]), Some(TIMES[1])]);
    match random.below(23) {
        0 => random.mutate(&mut entrypoint.listen, &listens()),
        1 => entrypoint.reuse_port = random.pick(&SWITCHES),
        2 => entrypoint.socket.mode = random.pick(&[None, Some(0o600)]),
        3 => entrypoint.socket.group = random.pick(&[None, Some("\u{1b}".to_owned())]),
        4 => entrypoint.idle_timeout = time_or_none,
        5 => entrypoint.half_close_timeout = time_or_none,
        6 => entrypoint.keepalive = time_or_none,
        7 => {
            let all = [OnRemoved::Keep, OnRemoved::Drain, OnRemoved::Close];
            entrypoint.on_removed = random.pick(&all);
        }
        8 => entrypoint.name = "renamed".to_owned(),
        9 => entrypoint.max_connections = random.pick(&MOST),
        10 => entrypoint.access = random.pick(&accesses()),
        11 => {
            let all = [AtRefuse::Reset, AtRefuse::Drop, AtRefuse::Close];
            entrypoint.at_refuse = random.pick(&all);
        }
        12 => entrypoint.per_client.max_connections = random.pick(&MOST),
        13 => entrypoint.per_client.rate = random.pick(&rates()),
        14 => entrypoint.per_client.ipv6_prefix = random.pick(&[64, 56]),
        15 => entrypoint.rate = random.pick(&rates()),
        16 => entrypoint.accept_proxy = random.pick(&SWITCHES),
        17 => random.mutate(&mut entrypoint.trusted, &networks()),
        18 => entrypoint.prologue_timeout = random.pick(&TIMES),
        19 => entrypoint.bandwidth_per_connection = random.pick(&bandwidths()),
        20 => entrypoint.per_client.bandwidth = random.pick(&bandwidths()),
        21 => entrypoint.listening = listening(random),
        _ => entrypoint.at_limit = random.pick(&[AtLimit::Wait, AtLimit::Refuse]),
    }
}

fn mutate_service(service: &mut Service, random: &mut Random) {
    let time = random.pick(&TIMES);
    let number = random.pick(&NUMBERS);
    match random.below(23) {
        0 => random.mutate(&mut service.servers, &servers()),
        1 => service.servers.reverse(),
        2 => service.connect_timeout = time,
        3 => service.dial_timeout = time,
        4 => {
            let all = [
                Balance::RoundRobin,
                Balance::LeastConnections,
                Balance::Random,
                Balance::Source,
            ];
            service.balance = random.pick(&all);
        }
        5 => service.retries = random.pick(&[None, Some(number)]),
        6 => service.max_fails = number,
        7 => service.fail_window = time,
        8 => service.when_down = random.pick(&[WhenDown::Try, WhenDown::Refuse]),
        9 => service.on_down = random.pick(&[OnDown::Keep, OnDown::Close]),
        10 => service.queue = number,
        11 => service.queue_timeout = time,
        12 => service.slow_start = time,
        13 => service.health = random.pick(&[None, Some(())]).map(|()| health(random)),
        14 => service.resolve = random.pick(&[Resolve::First, Resolve::All]),
        15 => service.resolve_interval = time,
        16 => {
            let all = [None, Some(SendProxy::V1), Some(SendProxy::V2)];
            service.send_proxy = random.pick(&all);
        }
        19 => service.bandwidth = random.pick(&bandwidths()),
        22 => mutate_outgoing(&mut service.outgoing, random),
        17 | 18 => {
            let at = random.below(service.servers.len());
            mutate_server(&mut service.servers[at], random);
        }
        _ => {
            if let Some(health) = &mut service.health {
                mutate_health(health, random);
            }
        }
    }
}

fn mutate_outgoing(outgoing: &mut Outgoing, random: &mut Random) {
    let ip = Ipv6Addr::LOCALHOST.into();
    match random.below(4) {
        0 => {
            let interface = Bind::Interface("\u{1b}".to_owned());
            let all = [
                interface,
                Bind::Address(ip, None),
                Bind::Address(ip, Some(5..=9)),
            ];
            outgoing.bind = Some(random.pick(&all)).filter(|_| random.pick(&SWITCHES));
        }
        1 => outgoing.transparent = random.pick(&SWITCHES),
        2 => outgoing.mark = random.pick(&MOST),
        _ => outgoing.dscp = random.pick(&[None, Some(0), Some(46)]),
    }
}

fn mutate_server(server: &mut Server, random: &mut Random) {
    match random.below(5) {
        0 => server.address = random.pick(&servers()).address,
        1 => {
            let names = [None, Some("a b"), Some("\u{1b}"), Some("192.168.1.10:80")];
            server.name = random.pick(&names).map(str::to_owned);
        }
        2 => server.weight = random.pick(&[0, 1, 256]),
        3 => server.backup = random.pick(&SWITCHES),
        _ => server.max_connections = random.pick(&MOST),
    }
}

fn mutate_health(health: &mut Health, random: &mut Random) {
    let number = random.pick(&[NonZeroU32::MIN, NonZeroU32::MAX]);
    match random.below(8) {
        0 => health.kind = random.pick(&checks()),
        1 => health.interval = random.pick(&TIMES),
        2 => health.jitter = random.pick(&TIMES),
        3 => health.timeout = random.pick(&TIMES),
        4 => health.rise = number,
        5 => health.fall = number,
        6 => health.port = random.pick(&[None, Some(NonZeroU16::MIN), Some(NonZeroU16::MAX)]),
        _ => mutate_check(&mut health.kind, random),
    }
}

fn mutate_check(check: &mut HealthKind, random: &mut Random) {
    let switch = random.pick(&SWITCHES);
    match check {
        HealthKind::Tcp { send, .. } if switch => {
            *send = random.pick(&[b"".to_vec(), b"\x1b\r\n".to_vec(), b"\xff".to_vec()]);
        }
        HealthKind::Tcp { expect, .. } => {
            let all = [
                None,
                Some(Expect::Bytes(b"\x1b".to_vec())),
                Some(Expect::Bytes(b"\xff".to_vec())),
                Some(Expect::Regex("\n".to_owned())),
            ];
            *expect = random.pick(&all);
        }
        HealthKind::Http { path, .. } if switch => {
            *path = random.pick(&["/", "/\u{7f}"]).to_owned();
        }
        HealthKind::Http { host, status, .. } => {
            *host = random.pick(&[None, Some("\u{1b}".to_owned())]);
            *status = random.pick(&[(200, 399), (200, 200)]);
        }
    }
}

/// Returns the same configuration with its parts in another order.
fn shuffled(config: &Config, random: &mut Random) -> Config {
    let mut moved = config.clone();
    let mut order: Vec<usize> = (0..config.services.len()).collect();
    random.shuffle(&mut order);
    let services = order.iter().map(|at| config.services[*at].clone());
    moved.services = services.collect();
    for entrypoint in &mut moved.entrypoints {
        let position = |service: usize| order.iter().position(|at| *at == service).unwrap();
        entrypoint.service = entrypoint.service.map(position);
        for route in &mut entrypoint.routes {
            route.service = position(route.service);
        }
        random.shuffle(&mut entrypoint.listen);
    }
    random.shuffle(&mut moved.entrypoints);
    random.shuffle(&mut moved.admin_hosts);
    moved
}

/// Makes random choices from a fixed seed, the same in every run.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// Picks one or more items, each at most once.
    fn some<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        let mut some = all.to_vec();
        self.shuffle(&mut some);
        some.truncate(1 + self.below(all.len()));
        some
    }

    /// Adds, removes or replaces an item.
    fn mutate<T: Clone>(&mut self, items: &mut Vec<T>, all: &[T]) {
        let at = self.below(items.len());
        match self.below(3) {
            0 => items.push(self.pick(all)),
            1 if items.len() > 1 => drop(items.remove(at)),
            _ => items[at] = self.pick(all),
        }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
