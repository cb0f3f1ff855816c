//! OpenWrt's init script: every configuration key has a UCI option, and an unknown option prevents
//! startup.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use coracle::config::{Config, Overrides};

use crate::support;

const SCRIPT: &str = include_str!("../../packaging/openwrt/coracle.init");
const SHIPPED: &str = include_str!("../../packaging/openwrt/coracle.config");

/// Options with the values they are set to, and the same in TOML. The list is complete.
const VALUES: &[(&str, &str, &[&str], &str)] = &[
    ("coracle", "enabled", &["1"], ""),
    ("coracle", "interface", &["lan", "wan"], ""),
    ("coracle", "drain_timeout", &["3s"], "\"3s\""),
    ("coracle", "watch", &["1"], "true"),
    (
        "coracle",
        "admin",
        &["127.0.0.1:2673"],
        "\"127.0.0.1:2673\"",
    ),
    ("coracle", "admin_open", &["1"], "true"),
    (
        "coracle",
        "admin_token_file",
        &["/etc/coracle.token"],
        "\"/etc/coracle.token\"",
    ),
    (
        "coracle",
        "admin_socket",
        &["/var/run/coracle/control.sock"],
        "\"/var/run/coracle/control.sock\"",
    ),
    (
        "coracle",
        "admin_hosts",
        &["pi.example.org"],
        "[\"pi.example.org\"]",
    ),
    ("coracle", "log_level", &["warn"], "\"warn\""),
    ("coracle", "access_log", &["1"], "true"),
    ("coracle", "compat", &["traefik"], "[\"traefik\"]"),
    ("coracle", "max_connections", &["500"], "500"),
    ("coracle", "memory", &["32MiB"], "\"32MiB\""),
    ("coracle", "accounting_clients", &["100"], "100"),
    ("coracle", "accounting_ipv4_prefix", &["24"], "24"),
    ("coracle", "accounting_ipv6_prefix", &["56"], "56"),
    (
        "coracle",
        "accounting_quota",
        &["5GiB/week"],
        "\"5GiB/week\"",
    ),
    ("coracle", "accounting_at_quota", &["slow"], "\"slow\""),
    (
        "coracle",
        "accounting_quota_rate",
        &["64KiB/s"],
        "\"64KiB/s\"",
    ),
    (
        "coracle",
        "accounting_file",
        &["/etc/coracle.accounting"],
        "\"/etc/coracle.accounting\"",
    ),
    ("coracle", "accounting_save_interval", &["1h"], "\"1h\""),
    ("entrypoint", "enabled", &["1"], ""),
    ("entrypoint", "name", &[r#"a "b" \ $(c) `d` ü"#], ""),
    (
        "entrypoint",
        "listen",
        &["127.0.0.1:8080", "[::1]:8080"],
        "[\"127.0.0.1:8080\", \"[::1]:8080\"]",
    ),
    (
        "entrypoint",
        "to",
        &["192.168.1.10:80"],
        "\"192.168.1.10:80\"",
    ),
    ("entrypoint", "service", &["shell"], "\"shell\""),
    ("entrypoint", "connect_timeout", &["2s"], "\"2s\""),
    ("entrypoint", "dial_timeout", &["8s"], "\"8s\""),
    ("entrypoint", "idle_timeout", &["1h"], "\"1h\""),
    ("entrypoint", "half_close_timeout", &["5m"], "\"5m\""),
    ("entrypoint", "keepalive", &["30s"], "\"30s\""),
    ("entrypoint", "on_removed", &["drain"], "\"drain\""),
    ("entrypoint", "max_connections", &["10"], "10"),
    ("entrypoint", "at_limit", &["refuse"], "\"refuse\""),
    (
        "entrypoint",
        "allow",
        &["10.0.0.0/8", "::1"],
        "[\"10.0.0.0/8\", \"::1\"]",
    ),
    ("entrypoint", "deny", &["10.0.0.1"], "[\"10.0.0.1\"]"),
    ("entrypoint", "allow_file", &["/dev/null"], "\"/dev/null\""),
    ("entrypoint", "deny_file", &["/dev/null"], "\"/dev/null\""),
    ("entrypoint", "max_connections_per_client", &["20"], "20"),
    ("entrypoint", "client_ipv6_prefix", &["56"], "56"),
    (
        "entrypoint",
        "connection_rate_per_client",
        &["10/s"],
        "\"10/s\"",
    ),
    ("entrypoint", "connection_burst_per_client", &["20"], "20"),
    ("entrypoint", "connection_rate", &["100/m"], "\"100/m\""),
    ("entrypoint", "connection_burst", &["200"], "200"),
    (
        "entrypoint",
        "bandwidth_per_connection",
        &["2MiB/s"],
        "\"2MiB/s\"",
    ),
    (
        "entrypoint",
        "bandwidth_per_client",
        &["4MiB/s"],
        "\"4MiB/s\"",
    ),
    ("entrypoint", "at_refuse", &["drop"], "\"drop\""),
    ("entrypoint", "accept_proxy", &["1"], "true"),
    (
        "entrypoint",
        "trusted",
        &["10.0.0.0/8", "fd00::7"],
        "[\"10.0.0.0/8\", \"fd00::7\"]",
    ),
    ("entrypoint", "prologue_timeout", &["3s"], "\"3s\""),
    ("entrypoint", "default_after", &["300ms"], "\"300ms\""),
    ("route", "entrypoint", &[r#"a "b" \ $(c) `d` ü"#], ""),
    ("route", "name", &["lan"], "\"lan\""),
    ("route", "service", &["shell"], "\"shell\""),
    (
        "route",
        "sni",
        &["nas.lan", "*.org"],
        "[\"nas.lan\", \"*.org\"]",
    ),
    ("route", "alpn", &["h2"], "[\"h2\"]"),
    ("route", "starts", &["tls", "http"], "[\"tls\", \"http\"]"),
    ("route", "starts_with", &["hex:16 03"], "[\"hex:16 03\"]"),
    ("route", "host", &["*.lan"], "[\"*.lan\"]"),
    ("route", "from", &["10.0.0.0/8"], "[\"10.0.0.0/8\"]"),
    ("entrypoint", "reuse_port", &["yes"], "true"),
    ("entrypoint", "only_v6", &["0"], "false"),
    ("entrypoint", "interface", &["br-lan"], "\"br-lan\""),
    ("entrypoint", "backlog", &["4096"], "4096"),
    ("entrypoint", "fast_open", &["1"], "true"),
    ("entrypoint", "socket_mode", &["0660"], "\"0660\""),
    ("entrypoint", "socket_group", &["www-data"], "\"www-data\""),
    ("service", "name", &["shell"], ""),
    (
        "service",
        "servers",
        &["192.168.1.10:22", "192.168.1.11:22"],
        "[\"192.168.1.10:22\", \"192.168.1.11:22\"]",
    ),
    ("service", "connect_timeout", &["1s"], "\"1s\""),
    ("service", "dial_timeout", &["4s"], "\"4s\""),
    (
        "service",
        "balance",
        &["least_connections"],
        "\"least_connections\"",
    ),
    ("service", "fail_window", &["20s"], "\"20s\""),
    ("service", "when_down", &["refuse"], "\"refuse\""),
    ("service", "on_down", &["close"], "\"close\""),
    ("service", "queue_timeout", &["5s"], "\"5s\""),
    ("service", "slow_start", &["1m"], "\"1m\""),
    ("service", "resolve", &["all"], "\"all\""),
    ("service", "resolve_interval", &["1m"], "\"1m\""),
    ("service", "send_proxy", &["v1"], "\"v1\""),
    ("service", "bandwidth", &["10MiB/s"], "\"10MiB/s\""),
    ("service", "bind", &["wg0"], "\"wg0\""),
    ("service", "transparent", &["1"], "true"),
    ("service", "mark", &["7"], "7"),
    ("service", "dscp", &["ef"], "\"ef\""),
    ("service", "retries", &["2"], "2"),
    ("service", "max_fails", &["007"], "7"),
    ("service", "queue", &["9"], "9"),
    ("server", "service", &["shell"], ""),
    (
        "server",
        "address",
        &["unix:/run/a b.sock"],
        "\"unix:/run/a b.sock\"",
    ),
    (
        "server",
        "name",
        &[r#"a "b", \ {c}"#],
        r#""a \"b\", \\ {c}""#,
    ),
    ("server", "weight", &["16"], "16"),
    ("server", "backup", &["on"], "true"),
    ("server", "max_connections", &["1"], "1"),
    ("health", "service", &["shell"], ""),
    ("health", "kind", &["tcp"], "\"tcp\""),
    ("health", "interval", &["20s"], "\"20s\""),
    ("health", "timeout", &["2s"], "\"2s\""),
    ("health", "jitter", &["0s"], "\"0s\""),
    ("health", "send", &["hex:0d0a"], "\"hex:0d0a\""),
    ("health", "expect", &["PONG"], "\"PONG\""),
    ("health", "path", &["/health"], "\"/health\""),
    ("health", "host", &["nas.lan"], "\"nas.lan\""),
    ("health", "status", &["200-299"], "\"200-299\""),
    ("health", "rise", &["1"], "1"),
    ("health", "fall", &["5"], "5"),
    ("health", "port", &["81"], "81"),
];

/// A router with this /etc/config/coracle.
struct Router {
    dir: tempfile::TempDir,
}

impl Router {
    fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("coracle"), config).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs a function of the init script. Returns whether it succeeded and what it logged.
    fn call(&self, function: &str) -> (bool, String) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let Output { status, stderr, .. } = Command::new("dash")
            .args(["-c", ". \"$0\"; set --; . packaging/openwrt/coracle.init; PROG=$PROGRAM TOML=$OUT; $CALL"])
            .arg(root.join("tests/support/uci.sh"))
            .current_dir(root)
            .env("UCI", self.dir.path())
            .env("PROCD", self.path("procd"))
            .env("PROGRAM", support::process::binary())
            .env("OUT", self.path("coracle.toml"))
            .env("CALL", function)
            .output()
            .unwrap();
        (status.success(), String::from_utf8(stderr).unwrap())
    }

    /// What it asked of procd.
    fn procd(&self) -> String {
        fs::read_to_string(self.path("procd")).unwrap_or_default()
    }

    fn toml(&self) -> String {
        fs::read_to_string(self.path("coracle.toml")).unwrap()
    }
}

/// The rows of the script's table: type, option, form, table and key.
fn rows() -> Vec<Vec<&'static str>> {
    let table = SCRIPT.split("OPTIONS='\n").nth(1).unwrap();
    let rows = table.split("\n'").next().unwrap().lines();
    rows.map(|row| row.split_whitespace().collect()).collect()
}

/// The keys that coracle knows in each table, as it lists them itself.
pub(crate) fn known() -> BTreeSet<(String, String)> {
    let mut known = BTreeSet::new();
    let base = "[entrypoints.e]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n";
    let of_table = |text: &str| -> Vec<String> {
        let told = Config::parse("test.toml", text, &[]).unwrap_err();
        let lists = told.told.iter().filter_map(|told| {
            let (_, list) = told.message.split_once("; expected one of ")?;
            Some(list.to_owned())
        });
        let list = lists.into_iter().next().unwrap();
        let keys = list.split(", ").map(|key| key.trim_matches('`').to_owned());
        keys.collect()
    };
    let root = of_table(&format!("zzzzzzzzzz = 1\n{base}"));
    for key in root {
        let table = match key.as_str() {
            "entrypoints" => "[entrypoints.zz]",
            "services" => "[services.zz]",
            _ => &format!("[{key}]"),
        };
        let text = format!("{table}\nzzzzzzzzzz = 1\n{base}");
        let is_table = Config::parse("test.toml", &text, &[])
            .unwrap_err()
            .told
            .iter()
            .any(|told| told.message.contains("unknown key `zzzzzzzzzz`"));
        // The error for a value that is not a table names the value, not its key.
        let single = format!("{key} = \"\"\n{base}");
        let single = Config::parse("test.toml", &single, &[]).unwrap_err();
        let wants_table = single
            .told
            .iter()
            .any(|told| told.message.contains("expected a table"));
        if is_table && wants_table {
            let keys = of_table(&text).into_iter();
            known.extend(keys.map(|it| (key.clone(), it)));
        } else {
            known.insert(("-".to_owned(), key));
        }
    }
    // What services and entrypoints have in tables of their own.
    assert!(known.remove(&("services".to_owned(), "health".to_owned())));
    assert!(known.remove(&("entrypoints".to_owned(), "routes".to_owned())));
    for (table, text) in [
        ("health", "[services.zz.health]\nzzzzzzzzzz = 1\n"),
        ("servers", "[[services.zz.servers]]\nzzzzzzzzzz = 1\n"),
        ("routes", "[[entrypoints.zz.routes]]\nzzzzzzzzzz = 1\n"),
    ] {
        let keys = of_table(&format!("{text}{base}")).into_iter();
        known.extend(keys.map(|it| (table.to_owned(), it)));
    }
    known
}

#[test]
fn every_configuration_key_has_a_uci_option() {
    let options: BTreeSet<_> = rows()
        .iter()
        .filter(|row| row[4] != "-")
        .map(|row| (row[3].to_owned(), row[4].to_owned()))
        .collect();
    let known = known();
    assert!(known.len() > 15, "{known:?}");
    assert_eq!(
        options, known,
        "OPTIONS in packaging/openwrt/coracle.init (left) are not what coracle knows (right)"
    );
    let valued: BTreeSet<_> = VALUES
        .iter()
        .map(|(kind, name, ..)| (*kind, *name))
        .collect();
    let named: BTreeSet<_> = rows().iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(
        valued, named,
        "VALUES in this test (left) lack what OPTIONS have (right)"
    );
    let page = include_str!("../../docs/configuration.md");
    for (_, name) in named {
        assert!(
            SHIPPED.contains(name) && page.contains(&format!("`{name}`")),
            "`{name}` is not explained in packaging/openwrt/coracle.config and in docs/configuration.md"
        );
    }
}

/// A section with all options that `wanted` accepts.
fn section(kind: &str, name: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = match name {
        "" => format!("config {kind}\n"),
        _ => format!("config {kind} '{name}'\n"),
    };
    for (of, option, values, _) in VALUES {
        if *of != kind || !wanted(option) {
            continue;
        }
        let form = rows()
            .into_iter()
            .find(|row| row[0] == kind && row[1] == *option)
            .unwrap()[2];
        let word = if form == "list" { "list" } else { "option" };
        for value in *values {
            text += &format!("\t{word} {option} '{value}'\n");
        }
    }
    text
}

/// The same in TOML.
fn table(kind: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut open = None;
    for row in rows() {
        let found = VALUES.iter().find(|it| (it.0, it.1) == (row[0], row[1]));
        let (_, _, _, toml) = found.unwrap();
        if row[0] != kind || row[4] == "-" || !wanted(row[1]) {
            continue;
        }
        if kind == "coracle" && row[3] != "-" && open != Some(row[3]) {
            open = Some(row[3]);
            text += &format!("[{}]\n", row[3]);
        }
        text += &format!("{} = {toml}\n", row[4]);
    }
    text
}

/// A service without a list of servers, and the check whose keys exclude those of the other one.
const BARE: &str = "
config health
\toption service 'bare'
\toption kind 'http'
\toption port '081'
\toption path '/health'
\toption host 'nas.lan'
\toption status '204'

config server
\toption service 'bare'
\toption address 'h:1'

config service 'bare'

";

#[test]
fn complete_uci_configuration_translates_faithfully() {
    if !support::has_tool("dash") {
        return;
    }
    // Two entrypoints and two health checks, since some keys exclude each other.
    let tcp = |option: &str| !matches!(option, "service" | "socket_mode" | "socket_group");
    let unix = |option: &str| {
        matches!(
            option,
            "service" | "socket_mode" | "socket_group" | "idle_timeout"
        )
    };
    // TLS and HTTP exclude each other, and names are unique.
    let tls = |option: &str| option != "host";
    let http = |option: &str| !matches!(option, "sni" | "alpn" | "name");
    // A Unix socket among the servers has no port.
    let tcp_check = |option: &str| !matches!(option, "path" | "host" | "status" | "port");
    let router = Router::with(&format!(
        "{}\n{}\n{}\tlist listen 'unix:/run/x.sock'\n{}\n{}\n{}\n{}\n{}\n{BARE}config entrypoint 'off'\n\toption enabled '0'\n",
        section("coracle", "main", |_| true),
        section("entrypoint", "web", tcp),
        section("entrypoint", "sock", unix),
        section("route", "", tls),
        section("route", "", http),
        section("service", "s", |_| true),
        section("server", "", |_| true),
        section("health", "", tcp_check),
    ));
    let (succeeded, said) = router.call("start_service");
    assert!(succeeded, "{said}");
    let rules = [tls as fn(&str) -> bool, http];
    let rules = rules.map(|it| table("route", it).trim_end().replace('\n', ", "));
    let rules = format!("routes = [{{ {} }}, {{ {} }}]\n", rules[0], rules[1]);
    let listed = "servers = [\"192.168.1.10:22\", \"192.168.1.11:22\"";
    let server = table("server", |_| true).trim_end().replace('\n', ", ");
    let service = table("service", |_| true).replace(listed, &format!("{listed}, {{ {server} }}"));
    let wanted = format!(
        "{}[services.shell]\n{service}[services.shell.health]\n{}[services.bare]\nservers = [\"h:1\"]\nhealth = {{ kind = \"http\", port = 81, path = \"/health\", host = \"nas.lan\", status = 204 }}\n[entrypoints.'a \"b\" \\ $(c) `d` ü']\n{}[entrypoints.sock]\nlisten = [\"unix:/run/x.sock\"]\n{}",
        table("coracle", |_| true),
        table("health", tcp_check),
        rules + &table("entrypoint", tcp),
        table("entrypoint", unix)
    );
    // Warnings have places, which differ.
    let read = |text: &str| Config {
        warnings: None,
        ..Config::with_files(Some(("test.toml", text)), &Overrides::default(), &|_| {
            Ok(String::new())
        })
        .unwrap_or_else(|it| panic!("{it}\n{text}"))
    };
    assert_eq!(read(&router.toml()), read(&wanted));
    let procd = router.procd();
    let run = format!("run -c {}", router.path("coracle.toml"));
    assert!(procd.contains(&run), "{procd}");
    // A reload restarts nothing.
    let file = format!("file {}", router.path("coracle.toml"));
    for param in [file.as_str(), "reload_signal HUP"] {
        assert!(procd.lines().any(|line| line == param), "{procd}");
    }
}

#[test]
fn unknown_option_is_named_and_prevents_startup() {
    if !support::has_tool("dash") {
        return;
    }
    let main = "config coracle 'main'\n\toption enabled '1'\n";
    let web =
        "config entrypoint 'web'\n\tlist listen '127.0.0.1:8080'\n\toption to '192.168.1.10:80'\n";
    for (config, named) in [
        (
            format!("{main}{web}\toption idle_timout '1h'\n"),
            "entrypoint 'web': unknown option 'idle_timout'",
        ),
        (
            format!("{main}\toption access '1'\n{web}"),
            "coracle 'main': unknown option 'access'",
        ),
        (
            format!("{main}{web}config service 's'\n\tlist server 'a:1'\n"),
            "service 's': unknown option 'server'",
        ),
        (
            format!("{main}config entrypont 'x'\n{web}"),
            "section 'x' has the unknown type 'entrypont'",
        ),
        (
            format!("config coracle 'mian'\n\toption enabled '1'\n{web}"),
            "section 'mian' of type coracle is not read",
        ),
        (
            format!("{main}{web}\toption reuse_port 'ja'\n"),
            "option 'reuse_port' is 'ja'; write '1' or '0'",
        ),
        (
            format!("{main}{web}\tlist keepalive '10s'\n"),
            "'keepalive' has one value; write option keepalive '10s'",
        ),
        (
            format!("{main}{web}\toption max_connections 'many'\n"),
            "option 'max_connections' is 'many'; write a number",
        ),
        (
            format!("{main}{web}config server 'spare'\n\toption service 'x'\n"),
            "server 'spare': there is no service 'x'",
        ),
        (
            format!("{main}{web}config health 'h'\n\toption kind 'tcp'\n"),
            "health 'h': there is no service ''",
        ),
        (
            format!("{main}{web}config route 'r'\n\toption entrypoint 'wed'\n"),
            "route 'r': there is no entrypoint 'wed'",
        ),
        (
            format!("config coracle 'main'\n\toption enabeld '1'\n{web}"),
            "unknown option 'enabeld'",
        ),
        (
            format!("{main}{web}\toption idle_timeout '1x'\n"),
            "is not a unit of time",
        ),
    ] {
        for call in ["start_service", "reload_service"] {
            let router = Router::with(&config);
            let (succeeded, said) = router.call(call);
            assert!(!succeeded, "{config}");
            assert!(said.contains(named), "{named:?} is not in {said:?}");
            assert_eq!(router.procd(), "", "{config}");
        }
    }
}

#[test]
fn shipped_configuration_starts_nothing_silently() {
    if !support::has_tool("dash") {
        return;
    }
    let router = Router::with(SHIPPED);
    assert_eq!(router.call("start_service"), (true, String::new()));
    assert_eq!(router.procd(), "");
    // With its commented examples enabled, it is still a valid configuration.
    let uncommented: String = SHIPPED
        .lines()
        .map(|line| line.replacen("\t#", "\t", 1) + "\n")
        .map(
            |line| match line.starts_with("#config") || line.starts_with("#\t") {
                true => line[1..].to_owned(),
                false => line,
            },
        )
        .map(|line| {
            line.replace("\t#", "\t")
                .replace("enabled '0'", "enabled '1'")
        })
        .filter(|line| !line.starts_with("\t "))
        .collect();
    let router = Router::with(&uncommented);
    let (succeeded, said) = router.call("start_service");
    assert!(succeeded, "{said}\n{uncommented}");
    assert!(router.procd().contains("command"), "{uncommented}");
}
