//! What a configuration's values become, what the command line adds to them, and limits; no text
//! makes the reader panic. `config_cases` has the errors and warnings of files.

use std::fs;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::time::Duration;

use coracle::config::{
    Admin, AtLimit, Balance, Config, ControlSocket, Diagnostic, Diagnostics, Expect, Forward,
    Health, HealthKind, Limits, Listen, Location, OnDown, OnRemoved, Overrides, Resolve, SendProxy,
    Server, Service, WhenDown,
};

use crate::config_cases::configurations;

/// Each message with its line and column.
fn messages(diagnostics: &Diagnostics) -> Vec<String> {
    let told = diagnostics.told.iter();
    told.map(|Diagnostic { location, message }| match location {
        Some(Location { line, column, .. }) => format!("{line}:{column}: {message}"),
        None => message.clone(),
    })
    .collect()
}

#[test]
fn warnings_of_the_command_line_name_the_flag() {
    let forward: Forward = "80:127.0.0.1:2672".parse().unwrap();
    let overrides = Overrides {
        forwards: vec![forward],
        ..Overrides::default()
    };
    let config = Config::with_overrides(None, &overrides).unwrap();
    assert_eq!(
        config.warnings.unwrap().to_string(),
        "command line: warning: -L 80:127.0.0.1:2672: `127.0.0.1:2672` is the admin endpoint; anyone who can reach the entrypoint can read it\n\n1 warning"
    );
    let forward: Forward = "80:127.0.0.1:80".parse().unwrap();
    let overrides = Overrides {
        forwards: vec![forward],
        ..Overrides::default()
    };
    let mistakes = Config::with_overrides(None, &overrides).unwrap_err();
    assert_eq!(
        messages(&mistakes),
        [
            "-L 80:127.0.0.1:80: entrypoint `127.0.0.1:80` listens on `127.0.0.1:80` itself and would forward to itself forever; use another server"
        ]
    );
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let text = format!(
        "[log]\nlevel = \"info\" # {0}\n[x.{0}]\n{0} = [5]\n",
        "y".repeat(5000)
    );
    let told = Config::parse("t.toml", &text, &[]).unwrap_err().to_string();
    assert!(
        told.lines().all(|line| line.chars().count() < 250),
        "{told}"
    );
}

#[test]
fn many_mistakes_are_told_up_to_a_number() {
    let text: String = (0..1000).map(|n| format!("key{n} = {n}\n")).collect();
    let mistakes = Config::parse("t.toml", &text, &[]).unwrap_err();
    assert_eq!(mistakes.told.len(), Diagnostics::MAX_TOLD);
    let told = mistakes.to_string();
    assert!(told.ends_with("and 901 more\n\n1001 errors"), "{told}");
}

#[test]
fn a_control_character_never_reaches_the_terminal() {
    let text =
        "[log]\nlevel = \"a\u{1b}[31m\u{202e}\"\n\"\u{9b}\" = 1\n[entrypoints.\"\\u001b\"]\n";
    let told = Config::parse("\u{1b}", text, &[]).unwrap_err().to_string();
    let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!told.contains(bad), "{told:?}");
}

const FULL: &str = r#"# Everything there is.
drain_timeout = "0s"
watch = true
admin.listen = "off"
admin.socket = "/run/control.sock"
admin.hosts = ["nas.example.org", "coracle"]
[log]
level = "debug"
access = true
[metrics]
compat = ["traefik"]
[limits]
max_connections = 0x1f4
memory = "64MiB"
[entrypoints."ssh to nas"]
listen = ["0.0.0.0:2222", "[::]:2222", "unix:/run/ssh.sock"]
to = "nas.lan.:22"
connect_timeout = "1500ms"
dial_timeout = "4s"
idle_timeout = "1h 30m"
half_close_timeout = "30s"
keepalive = "off"
on_removed = "drain"
reuse_port = false
[entrypoints.web]
listen = "*:80"
reuse_port = true
max_connections = 1_000
at_limit = "refuse"
accept_proxy = true
trusted = ["10.0.0.0/8", "fd00::7"]
prologue_timeout = "2s"
service = "web"
[entrypoints.any]
on_removed = "close"
listen = [":0", "127.0.0.1:0", ":0"]
to = "unix:/run/app.sock"
[services.web]
servers = [
    "192.168.1.10:80",
    "[fd00::10]:80",
    { address = "nas.lan:80", name = "the nas", weight = 0, backup = true, max_connections = 7 },
]
balance = "least_connections"
retries = 0
max_fails = 5
fail_window = "1m"
when_down = "refuse"
on_down = "close"
queue = 16
queue_timeout = "5s"
slow_start = "30s"
resolve = "all"
resolve_interval = "5m"
send_proxy = "v2"
[services.web.health]
kind = "http"
interval = "4s"
path = "/health"
host = "nas.lan:8080"
status = 204
port = 8081
rise = 1
fall = 2
[services.unused]
servers = ["h:1"]
health = { send = "hex:01 03ff", expect = "regex:^\\d+", timeout = "5s", jitter = "0s" }
"#;

#[test]
fn every_key_is_read() {
    let config = Config::parse("t.toml", FULL, &[]).unwrap();
    assert_eq!(config.drain_timeout, Duration::ZERO);
    assert!(config.watch);
    assert_eq!(config.admin.listen, None);
    assert_eq!(
        config.admin.socket,
        ControlSocket::At("/run/control.sock".into())
    );
    assert_eq!(config.admin_hosts, ["nas.example.org", "coracle"]);
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert!(config.log.access);
    assert!(config.metrics.traefik);
    let names = |config: &Config| -> Vec<String> {
        config
            .entrypoints
            .iter()
            .map(|it| it.name.clone())
            .collect()
    };
    assert_eq!(names(&config), ["ssh to nas", "web", "any"]);
    let ssh = &config.entrypoints[0];
    assert_eq!(ssh.idle_timeout, Some(Duration::from_secs(5400)));
    assert_eq!(ssh.half_close_timeout, Some(Duration::from_secs(30)));
    assert_eq!(ssh.keepalive, None);
    let on_removed: Vec<_> = config.entrypoints.iter().map(|it| it.on_removed).collect();
    assert_eq!(
        on_removed,
        [OnRemoved::Drain, OnRemoved::Keep, OnRemoved::Close]
    );
    let reuse: Vec<_> = config.entrypoints.iter().map(|it| it.reuse_port).collect();
    assert_eq!(reuse, [false, true, false]);
    let v6only = |listen: &Listen| matches!(listen, Listen::Tcp { v6only: true, .. });
    let v6only =
        |at: usize| -> Vec<bool> { config.entrypoints[at].listen.iter().map(v6only).collect() };
    assert_eq!(v6only(0), [false, true, false]);
    assert_eq!(v6only(1), [false]);
    assert_eq!(v6only(2), [false, false, false]);
    let services: Vec<_> = config.services.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(services, ["web", "unused", "ssh to nas", "any"]);
    let service = |at: usize| &config.services[config.entrypoints[at].service.unwrap()];
    assert_eq!(service(0).servers[0].label(), "nas.lan.:22");
    assert_eq!(service(0).connect_timeout, Duration::from_millis(1500));
    assert_eq!(service(0).dial_timeout, Duration::from_secs(4));
    assert_eq!(service(1).servers[1].label(), "[fd00::10]:80");
    assert_eq!(service(2).servers[0].label(), "unix:/run/app.sock");
}

#[test]
fn every_key_of_balancing_health_and_limits_is_read() {
    let number = NonZeroU32::new;
    let config = Config::parse("t.toml", FULL, &[]).unwrap();
    let limits = Limits {
        max_connections: number(500),
        memory: Some(64 << 20),
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.entrypoints[1].max_connections, number(1000));
    assert_eq!(config.entrypoints[1].at_limit, AtLimit::Refuse);
    assert!(config.entrypoints[1].accept_proxy);
    let trusted = ["10.0.0.0/8", "fd00::7"].map(|it| it.parse().unwrap());
    assert_eq!(config.entrypoints[1].trusted, trusted);
    let timeout = Duration::from_secs(2);
    assert_eq!(config.entrypoints[1].prologue_timeout, timeout);
    let server = |address: &str| Server::at(address.parse().unwrap());
    let servers = vec![
        server("192.168.1.10:80"),
        server("[fd00::10]:80"),
        Server {
            name: Some("the nas".to_owned()),
            weight: 0,
            backup: true,
            max_connections: number(7),
            ..server("nas.lan:80")
        },
    ];
    let web = Service {
        balance: Balance::LeastConnections,
        retries: Some(0),
        max_fails: 5,
        fail_window: Duration::from_secs(60),
        when_down: WhenDown::Refuse,
        on_down: OnDown::Close,
        queue: 16,
        queue_timeout: Duration::from_secs(5),
        slow_start: Duration::from_secs(30),
        resolve: Resolve::All,
        resolve_interval: Duration::from_secs(300),
        send_proxy: Some(SendProxy::V2),
        health: Some(Health {
            kind: HealthKind::Http {
                path: "/health".to_owned(),
                host: Some("nas.lan:8080".to_owned()),
                status: (204, 204),
            },
            interval: Duration::from_secs(4),
            jitter: Duration::from_millis(400),
            timeout: Duration::from_secs(2),
            rise: NonZeroU32::MIN,
            fall: number(2).unwrap(),
            port: NonZeroU16::new(8081),
        }),
        ..Service::new("web".to_owned(), servers)
    };
    assert_eq!(config.services[0], web);
    let health = config.services[1].health.as_ref().unwrap();
    let kind = HealthKind::Tcp {
        send: vec![1, 3, 0xff],
        expect: Some(Expect::Regex("^\\d+".to_owned())),
    };
    assert_eq!(health.kind, kind);
    assert_eq!(health.timeout, Duration::from_secs(5));
    assert_eq!(health.jitter, Duration::ZERO);
}

#[test]
fn defaults_are_the_documented_ones() {
    let text = "entrypoints.a = { listen = \"127.0.0.1:80\", to = \"h:1\" }";
    let config = Config::parse("t.toml", text, &[]).unwrap();
    assert_eq!(config.drain_timeout, Duration::from_secs(9));
    assert!(!config.watch);
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:2672");
    assert_eq!(config.admin.socket, ControlSocket::Default);
    assert_eq!(
        config.admin.socket.path(),
        Some(Path::new("/run/coracle/control.sock"))
    );
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert!(!config.log.access);
    assert!(!config.metrics.traefik);
    let entrypoint = &config.entrypoints[0];
    assert_eq!(entrypoint.idle_timeout, None);
    assert_eq!(entrypoint.half_close_timeout, None);
    assert_eq!(entrypoint.keepalive, Some(Duration::from_secs(60)));
    assert_eq!(entrypoint.on_removed, OnRemoved::Keep);
    assert!(!entrypoint.reuse_port);
    assert_eq!(config.services[0].connect_timeout, Duration::from_secs(5));
    assert_eq!(config.services[0].dial_timeout, Duration::from_secs(10));
}

#[test]
fn the_most_servers_are_allowed_and_no_more() {
    let text = |n: usize| {
        let servers: Vec<_> = (1..=n).map(|port| format!("\"h:{port}\"")).collect();
        let servers = servers.join(",");
        format!(
            "[entrypoints.a]\nlisten = \":80\"\nservice = \"s\"\n[services.s]\nservers = [{servers}]"
        )
    };
    assert_eq!(
        Config::parse("t", &text(1024), &[]).unwrap().services[0]
            .servers
            .len(),
        1024
    );
    let mistakes = Config::parse("t", &text(1025), &[]).unwrap_err();
    assert_eq!(
        mistakes.told[0].message,
        "the list has 1025 servers; the limit is 1024"
    );
}

#[test]
fn forwards_are_read_as_ssh_does() {
    const GOOD: &[(&str, &str, &str)] = &[
        ("8080:192.168.1.10:80", "127.0.0.1:8080", "192.168.1.10:80"),
        ("0:h:80", "127.0.0.1:0", "h:80"),
        ("*:8080:h:80", "[::]:8080", "h:80"),
        (":8080:h:80", "[::]:8080", "h:80"),
        ("0.0.0.0:8080:h:80", "0.0.0.0:8080", "h:80"),
        ("[::1]:8080:[fd00::1]:80", "[::1]:8080", "[fd00::1]:80"),
        ("8080:[fd00::1]:80", "127.0.0.1:8080", "[fd00::1]:80"),
        (
            "8080:unix:/run/app.sock",
            "127.0.0.1:8080",
            "unix:/run/app.sock",
        ),
        ("[::]:8080:unix:/run/a:b", "[::]:8080", "unix:/run/a:b"),
        ("unix:/run/x.sock:h:80", "unix:/run/x.sock", "h:80"),
        ("unix:/run/x:y:[::1]:80", "unix:/run/x:y", "[::1]:80"),
        ("unix:/run/x:unix:/run/y", "unix:/run/x", "unix:/run/y"),
    ];
    for (text, listen, to) in GOOD {
        let forward: Forward = text.parse().unwrap();
        assert_eq!(forward.listen.to_string(), *listen, "{text}");
        assert_eq!(forward.to.to_string(), *to, "{text}");
    }
}

#[test]
fn a_bad_forward_is_told_by_its_part() {
    const BAD: &[(&str, &str)] = &[
        (
            "",
            "the port to listen on, the host and the port to connect to are missing",
        ),
        ("8080", "the host and the port to connect to are missing"),
        ("8080:h", "the port to connect to is missing"),
        (
            "8080:/run/app.sock",
            "the port to connect to is missing; write `unix:/run/app.sock` for a Unix socket",
        ),
        (
            "h:80:8080",
            "listening port: `h` is not a port; a port is a number from 1 to 65535",
        ),
        (
            "udp/53:h:53",
            "listening port: `udp/53` is not a port; a port is a number from 1 to 65535",
        ),
        (
            "70000:h:80",
            "listening port: port 70000 is too large; the largest is 65535",
        ),
        (
            "8080:h:0",
            "target: cannot connect to port 0; a port is a number from 1 to 65535",
        ),
        (
            "8080:h:http",
            "target: `http` is not a port; a port is a number from 1 to 65535",
        ),
        (
            "8080::80",
            "target: the host to connect to is missing; write one, such as `192.168.1.10:80`",
        ),
        (
            "8080:a..b:80",
            "target: host name `a..b` has an empty part; remove the extra dot",
        ),
        (
            "localhost:8080:h:80",
            "bind address: `localhost` is not an IP address; listen on one, such as `127.0.0.1:8080`, or on all with `*:8080`",
        ),
        (
            "8080:fd00::1:80",
            "too many parts; IPv6 addresses must be in brackets, such as [::1]",
        ),
        ("[::1:8080:h:80", "missing `]`"),
        ("[::1]8080:h:80", "missing `:` after `]`"),
        (
            "[::g]:8080:h:80",
            "bind address: `::g` is not an IPv6 address",
        ),
        ("unix:/run/x", "the host and port to connect to are missing"),
        (
            "unix:/run/x:80",
            "the host and port to connect to are missing",
        ),
        (
            "unix:run/x:h:80",
            "`unix:run/x` is not an absolute path; write one such as `unix:/run/app.sock`",
        ),
        (
            "8080:unix:app",
            "`unix:app` is not an absolute path; write one such as `unix:/run/app.sock`",
        ),
        ("a:b:8080:unix:/x", "too many parts before `unix:`"),
    ];
    for (text, why) in BAD {
        let mistake = text.parse::<Forward>().unwrap_err().to_string();
        let form = "(the form is [BIND:]PORT:HOST:HOSTPORT, for example 8080:192.168.1.10:80)";
        assert_eq!(mistake, format!("{why} {form}"));
    }
}

#[test]
fn forwards_join_the_file() {
    let text = "[entrypoints.\"127.0.0.1:0\"]\nlisten = \":80\"\nto = \"h:1\"\n";
    let forwards = ["0:a:1", "0:b:1", "*:81:c:1", "unix:/run/d:h:1"].map(|it| it.parse().unwrap());
    let config = Config::parse("t.toml", text, &forwards).unwrap();
    let names: Vec<_> = config
        .entrypoints
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "127.0.0.1:0",
            "127.0.0.1:0-2",
            "127.0.0.1:0-3",
            "*:81",
            "unix:d"
        ]
    );
    let servers = config
        .entrypoints
        .iter()
        .map(|it| &config.services[it.service.unwrap()].servers[0]);
    let servers: Vec<_> = servers.map(Server::label).collect();
    assert_eq!(servers, ["h:1", "a:1", "b:1", "c:1", "h:1"]);

    let again = ["127.0.0.1:80:h:1".parse().unwrap()];
    let mistakes = Config::parse("t.toml", text, &again).unwrap_err();
    assert_eq!(
        mistakes.told[0].message,
        "`*:80` takes IPv4 too, but entrypoint `127.0.0.1:80` listens on `127.0.0.1:80` (-L 127.0.0.1:80:h:1); write `[::]:80` for IPv6 alone"
    );
}

#[test]
fn forwards_do_without_a_file() {
    let mut overrides = Overrides {
        forwards: vec!["8080:h:80".parse().unwrap()],
        ..Overrides::default()
    };
    let config = Config::with_overrides(None, &overrides).unwrap();
    assert_eq!(config.entrypoints[0].name, "127.0.0.1:8080");
    overrides.forwards.clear();
    let none = Config::with_overrides(None, &overrides).unwrap_err();
    let none = none.to_string();
    assert!(none.starts_with("command line: no entrypoints"), "{none}");
}

#[test]
fn the_command_line_has_the_last_word() {
    let text =
        "admin.socket = \"/run/c\"\n[entrypoints.a]\nlisten = \"127.0.0.1:2672\"\nto = \"h:1\"\n";
    let mut overrides = Overrides {
        admin: Some("off".parse().unwrap()),
        access_log: true,
        ..Overrides::default()
    };
    let config = Config::with_overrides(Some(("t.toml", text)), &overrides).unwrap();
    let admin = Admin {
        listen: None,
        open: false,
        token_file: None,
        socket: ControlSocket::At("/run/c".into()),
    };
    assert_eq!(config.admin, admin);
    assert!(config.log.access);
    overrides.admin = Some("0.0.0.0:2672".parse().unwrap());
    let mistakes = Config::with_overrides(Some(("t.toml", text)), &overrides).unwrap_err();
    assert_eq!(
        mistakes.told[0].message,
        "`127.0.0.1:2672` and `0.0.0.0:2672` of the admin endpoint (--admin) overlap; change one"
    );
}

#[test]
fn deep_nesting_ends_in_a_mistake() {
    for text in [
        "a = ".to_owned() + &"[".repeat(200_000),
        "{a = ".repeat(100_000),
        "a.".repeat(100_000) + "a = 1",
        "[".repeat(100_000),
    ] {
        Config::parse("t.toml", &text, &[]).unwrap_err();
    }
}

/// Seeded mutations of sound texts: whatever comes of them, the reader says it with a place inside the text.
#[test]
fn no_text_makes_the_reader_panic() {
    const ROUNDS: usize = 10_000;
    let mut random = Random(fastrand::Rng::with_seed(0x2672));
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let cases: Vec<String> = configurations().into_iter().map(read).collect();
    let cases = cases.iter().map(String::as_str);
    let seeds: Vec<&str> = std::iter::once(FULL).chain(cases).collect();
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let seed = if round % 2 == 0 {
            FULL
        } else {
            seeds[random.below(seeds.len())]
        };
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &seeds, &mut random);
        }
        let text = String::from_utf8_lossy(&bytes);
        let Err(mistakes) = Config::parse("t.toml", &text, &[]) else {
            accepted += 1;
            continue;
        };
        assert!(!mistakes.to_string().is_empty());
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let lines: Vec<_> = text.split('\n').collect();
        for location in mistakes.told.iter().filter_map(|it| it.location.as_ref()) {
            let line = lines.get(location.line - 1);
            let columns = line.map_or(0, |line| line.chars().count() + 1);
            assert!(
                (1..=columns).contains(&location.column),
                "round {round}: {location:?}\n{text}"
            );
        }
    }
    assert!(
        (ROUNDS / 100..ROUNDS / 2).contains(&accepted),
        "{accepted} accepted"
    );
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[&str], random: &mut Random) {
    const TELLING: &[u8] = b"\"'[]{}=.,:#\\\n\r\t 0-*%\x00\x7f\xc3\xef";
    let from = random.below(bytes.len() + 1);
    let to = (from + random.below(12)).min(bytes.len());
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if from < bytes.len() => bytes[from] ^= 1 << random.below(8),
        1 if from < bytes.len() => bytes[from] = TELLING[random.below(TELLING.len())],
        2 => drop(bytes.drain(from..to)),
        3 => {
            let part = bytes[from..to].to_vec();
            bytes.splice(at..at, part);
        }
        4 if from < bytes.len() && at < bytes.len() => bytes.swap(from, at),
        _ => {
            let other = seeds[random.below(seeds.len())].as_bytes();
            let start = random.below(other.len() + 1);
            let end = (start + random.below(40)).min(other.len());
            bytes.splice(at..at, other[start..end].iter().copied());
        }
    }
}

/// Choices from a fixed seed: each run makes the same ones.
struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }
}
