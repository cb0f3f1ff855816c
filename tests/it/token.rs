//! Orders over TCP: what the token lets in, what it keeps out, and how its file may look.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::backend::{self, hold};
use crate::support::http::{Answer, Client};
use crate::support::metrics::Metrics;
use crate::support::process::{Coracle, binary};
use crate::support::until;

const TOKEN: &str = "correct+horse/battery.staple==";
const WRONG: &str = "incorrect+horse/battery.staple";
/// What any number of web pages may send.
const LOCAL: &str = "Host: localhost\r\n";

/// A coracle with a token.
struct Guarded {
    coracle: Coracle,
    dir: TempDir,
    config: String,
}

impl Guarded {
    fn start() -> Self {
        Self::listening("127.0.0.1:0", "")
    }

    /// With this admin address, and more lines in `[admin]`.
    fn listening(address: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let config = format!(
            "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n[admin]\nlisten = \"{address}\"\n\
             socket = \"off\"\ntoken_file = \"{}\"\n{more}",
            backend::start(),
            file.display()
        );
        let coracle = Coracle::start(&config);
        Self {
            coracle,
            dir,
            config,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Sends a request on a connection of its own, with these header lines.
    fn send(&self, method: &str, target: &str, headers: &str) -> Answer {
        send(self.coracle.admin, method, target, headers)
    }

    fn with(&self, token: &str, method: &str, target: &str) -> Answer {
        self.send(method, target, &bearer(token))
    }

    fn access(&self, headers: &str) -> Value {
        let answer = self.send("GET", "/api/v1/access", headers);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Runs a command, over TCP and with these arguments. Returns its exit code, what it prints, and
    /// its errors.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let admin = self.coracle.admin.to_string();
        let mut command = Command::new(binary());
        command.arg(arguments[0]).args(["--admin", &admin]);
        let output = command.args(&arguments[1..]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code();
        (code, text(output.stdout), text(output.stderr))
    }
}

fn send(admin: SocketAddr, method: &str, target: &str, headers: &str) -> Answer {
    let mut client = Client::connect(admin);
    let host = if headers.contains("Host:") { "" } else { LOCAL };
    client.send(format!(
        "{method} {target} HTTP/1.1\r\n{host}{headers}Content-Length: 0\r\n\r\n"
    ));
    client.answer()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn counted(metrics: &str, code: u16) -> f64 {
    let metrics = Metrics::parse(metrics);
    let code = format!("code=\"{code}\"");
    let labels = ["endpoint=\"order\"", &code];
    metrics.sum_of("coracle_admin_requests_total", &labels)
}

#[test]
fn orders_over_tcp_need_the_token() {
    let it = Guarded::start();
    let client = hold(it.coracle.address("web"));
    for headers in [
        "",
        "Authorization: Basic Y29ycmVjdA==\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: correct+horse/battery.staple==\r\n",
    ] {
        for path in ["reload", "server", "kill?peer=127.0.0.1", "drain", "stop"] {
            let answer = it.send("POST", &format!("/api/v1/{path}"), headers);
            assert_eq!(answer.status, 401, "{path} {headers}");
            let challenge = answer.headers.value("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
            assert!(answer.body.contains("token_file"), "{}", answer.body);
        }
    }
    let answer = it.with(WRONG, "POST", "/api/v1/kill?peer=127.0.0.1");
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("wrong token"), "{}", answer.body);
    // Reading needs none here.
    let listed = it.send("GET", "/api/v1/connections", "");
    assert!(listed.body.contains("\"total\":1"), "{}", listed.body);

    let answer = it.send("POST", "/api/v1/reload", &bearer(TOKEN));
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let line = it.coracle.logged("reloaded: nothing has changed");
    assert!(line.contains("by=token"), "{line}");
    let scheme = format!("authorization: BEARER  {TOKEN}\r\n");
    let answer = it.send("POST", "/api/v1/kill?peer=127.0.0.1", &scheme);
    assert_eq!(answer.body, "1 connection ended\n");
    assert_eq!(it.send("GET", "/api/v1/kill", &bearer(TOKEN)).status, 405);
    drop(client);
    assert!(!it.coracle.log().concat().contains(TOKEN));
}

#[test]
fn pages_of_other_origins_order_nothing_even_with_the_token() {
    let it = Guarded::start();
    let own = format!("http://{}", it.coracle.admin);
    for (host, origin, status) in [
        ("localhost", "http://evil.example", 403),
        ("localhost", "null", 403),
        ("evil.example", "http://evil.example", 421),
        (own.split_once("//").unwrap().1, own.as_str(), 200),
    ] {
        let headers = format!("Host: {host}\r\nOrigin: {origin}\r\n{}", bearer(TOKEN));
        let answer = it.send("POST", "/api/v1/reload", &headers);
        assert_eq!(answer.status, status, "{host} {origin}");
        // No page learns that it might ask with the header.
        let answer = it.send("OPTIONS", "/api/v1/reload", &headers);
        assert!(matches!(answer.status, 403 | 405 | 421));
        let allowed = answer.headers.value("access-control-allow-origin");
        assert_eq!(allowed, None);
    }
    // What a page guesses does not count against the user whose browser shows it.
    for _ in 0..20 {
        let headers = format!("Host: evil.example\r\n{}", bearer(WRONG));
        assert_eq!(it.send("POST", "/api/v1/reload", &headers).status, 421);
    }
    assert_eq!(it.with(TOKEN, "POST", "/api/v1/reload").status, 200);
}

#[test]
fn client_learns_what_it_may_do() {
    let it = Guarded::start();
    let free = |token: &str| {
        serde_json::json!({"coracle": env!("CARGO_PKG_VERSION"), "reads": true,
        "acts": false, "by": null, "token": token})
    };
    assert_eq!(it.access(""), free("missing"));
    let mut accepted = free("accepted");
    accepted["acts"] = true.into();
    accepted["by"] = "token".into();
    assert_eq!(it.access(&bearer(TOKEN)), accepted);
    let wrong = it.with(WRONG, "GET", "/api/v1/access");
    assert_eq!(wrong.status, 401);
    let problem: Value = serde_json::from_str(&wrong.body).unwrap();
    assert_eq!(problem["status"], 401);

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let without = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n[admin]\n\
         listen = \"127.0.0.1:0\"\nsocket = \"{}\"\n",
        socket.display()
    ));
    let answer = send(without.admin, "GET", "/api/v1/access", &bearer(TOKEN));
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(said, free("not configured"));
    let request = "GET /api/v1/access HTTP/1.0\r\n\r\n";
    let (_, said) = crate::control::ask(&socket, request);
    let mut control = free("not configured");
    control["acts"] = true.into();
    control["by"] = "control socket".into();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), control);
}

#[test]
fn wrong_tokens_are_limited_counted_and_logged_once() {
    let it = Guarded::start();
    let mut refused = 0;
    // One more may be let in for each second that this takes.
    let limited = until("the limit", || {
        let answer = it.with(WRONG, "POST", "/api/v1/reload");
        refused += u32::from(answer.status == 401);
        (answer.status != 401).then_some(answer)
    });
    assert!(refused >= 10, "{refused}");
    assert_eq!(limited.status, 429);
    assert_eq!(limited.headers.value("retry-after"), Some("1"));
    // Otherwise the limit would keep nobody from guessing. It may be over by now.
    let right = it.with(TOKEN, "POST", "/api/v1/reload").status;
    assert!(matches!(right, 429 | 200), "{right}");
    assert_eq!(it.send("GET", "/healthz", &bearer(WRONG)).status, 200);
    until("the limit is over", || {
        (it.with(TOKEN, "POST", "/api/v1/reload").status == 200).then_some(())
    });
    let metrics = it.send("GET", "/metrics", "").body;
    assert_eq!(counted(&metrics, 401), f64::from(refused));
    assert!(counted(&metrics, 429) >= 1.0, "{metrics}");
    let line = it.coracle.logged("wrong token");
    assert!(line.contains("peer=127.0.0.1"), "{line}");
    let log = it.coracle.log();
    let lines = log.iter().filter(|line| line.contains("wrong token"));
    assert_eq!(lines.count(), 1);
}

#[test]
fn address_beyond_loopback_needs_the_token_for_reading_too() {
    let it = Guarded::listening("0.0.0.0:0", "");
    let _client = hold(it.coracle.address("web"));
    for path in [
        "/metrics",
        "/",
        "/none",
        "/api/v1/status",
        "/api/v1/connections",
        "/api/v1/events",
        "/api/v1/openapi.json",
    ] {
        let answer = it.send("GET", path, "");
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.headers.value("www-authenticate").is_some());
        let is_json = answer.headers.value("content-type") == Some("application/problem+json");
        assert_eq!(is_json, path.starts_with("/api/"), "{path}");
    }
    let mut head = Client::connect(it.coracle.admin);
    head.send("HEAD /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(head.answer_to_head().status, 401);
    head.expect_end();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(it.send("GET", path, "").status, 200, "{path}");
    }
    assert_eq!(it.access("")["reads"], false);
    assert_eq!(it.access(&bearer(TOKEN))["reads"], true);
    // A browser gets the page, so that it can ask for the token, and nothing else.
    let page = it.send("GET", "/", "Accept: text/html\r\n");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<html"), "{}", page.body);
    assert!(!page.body.contains("127.0.0.1"), "{}", page.body);
    for (path, shows) in [
        ("/metrics", "coracle_open_connections"),
        ("/api/v1/connections", "127.0.0.1"),
        ("/", "/metrics"),
    ] {
        let answer = it.with(TOKEN, "GET", path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.contains(shows), "{}", answer.body);
    }
    assert_eq!(it.with(TOKEN, "POST", "/api/v1/reload").status, 200);

    let open = Guarded::listening("0.0.0.0:0", "open = true\n");
    assert_eq!(open.send("GET", "/metrics", "").status, 200);
    assert_eq!(open.send("POST", "/api/v1/reload", "").status, 401);
}

#[test]
fn token_without_a_good_file_prevents_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let config = dir.path().join("coracle.toml");
    let said = |content: Option<&str>| {
        let _ = fs::remove_file(&file);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let text = format!(
            "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n[admin]\n\
             listen = \"127.0.0.1:0\"\nsocket = \"off\"\ntoken_file = \"{}\"\n",
            file.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(binary());
        let output = command.args(["run", "-c"]).arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let log = String::from_utf8(output.stderr).unwrap();
        log.lines().last().unwrap().to_owned()
    };
    for (content, why) in [
        (None, "no such file; write one with `head"),
        (Some(""), "is empty; write one with `head"),
        (Some(" \n"), "is empty"),
        (Some("short\n"), "the token has 5 characters"),
    ] {
        let start = format!("coracle: admin: token_file {}: {why}", file.display());
        let line = said(content);
        assert!(line.starts_with(&start), "{line}");
    }
}

#[test]
fn token_that_everybody_can_read_gives_a_warning() {
    let it = Guarded::start();
    fs::set_permissions(it.file(), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(it.with(TOKEN, "POST", "/api/v1/reload").status, 200);
    it.coracle.logged("reloaded: nothing has changed");
    let warned = || {
        let log = it.coracle.log();
        let warnings = log
            .iter()
            .filter(|line| line.contains("can read the token"));
        warnings.count()
    };
    let before = warned();
    fs::set_permissions(it.file(), PermissionsExt::from_mode(0o604)).unwrap();
    assert_eq!(it.with(TOKEN, "POST", "/api/v1/reload").status, 200);
    until("the warning", || (warned() == before + 1).then_some(()));
    let line = it.coracle.logged("can read the token");
    assert!(line.contains("chmod o-r"), "{line}");
}

#[test]
fn reload_replaces_the_token_and_refuses_a_bad_one() {
    let it = Guarded::start();
    let other = "another-token-of-24-bytes";
    fs::write(it.file(), other).unwrap();
    let dry = it.with(TOKEN, "POST", "/api/v1/reload?dry-run");
    assert_eq!(dry.body, "admin: another token in token_file\n");
    let reloaded = it.with(TOKEN, "POST", "/api/v1/reload");
    assert_eq!(reloaded.body, "admin: another token in token_file\n");
    assert_eq!(it.with(TOKEN, "POST", "/api/v1/reload").status, 401);
    assert_eq!(it.with(other, "POST", "/api/v1/reload").body, "");
    fs::write(it.file(), "short").unwrap();
    for target in ["/api/v1/reload?dry-run", "/api/v1/reload"] {
        let refused = it.with(other, "POST", target);
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("5 characters"), "{}", refused.body);
    }
    it.coracle.logged("not reloaded: admin: token_file");
    // The one in force stays.
    assert_eq!(it.with(other, "POST", "/api/v1/reload?dry-run").status, 422);
    // Without the key there is none.
    let config = it.config.replace("token_file", "#");
    assert!(it.coracle.reload(&config));
    let refused = it.with(other, "POST", "/api/v1/reload");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("`token_file`"), "{}", refused.body);
}

#[test]
fn commands_send_the_token() {
    let it = Guarded::listening("0.0.0.0:0", "");
    let file = it.file().display().to_string();
    let token = ["--token-file", &*file];
    let client = hold(it.coracle.address("web"));
    for (command, shows) in [
        ("list", "ENTRYPOINT"),
        ("status", "SERVICE"),
        ("audit", "agree"),
    ] {
        let (code, out, err) = it.run(&[&[command][..], &token].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{command}");
        assert!(out.contains(shows), "{out}");
        let (code, out, err) = it.run(&[command]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{command}");
        assert!(err.contains("answers 401 Unauthorized: "), "{err}");
        assert!(err.contains("--token-file FILE"), "{err}");
    }
    let server = it.run(&[&["status", "--json"][..], &token].concat()).1;
    let server: Value = serde_json::from_str(&server).unwrap();
    let server = server["servers"][0]["name"].as_str().unwrap();
    let (code, out, _) = it.run(&[&["server"][..], &token, &["web", server, "drain"]].concat());
    assert_eq!(code, Some(0));
    assert!(out.contains("drain; 1 connection continues"), "{out}");
    let (code, out, _) = it.run(&[&["kill"][..], &token, &["--entrypoint", "web"]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "1 connection ended\n"));
    // Larger than any body that is read without the token.
    let other = it.dir.path().join("other.toml");
    let long = format!("{}\n{}", "#".repeat(900_000), it.config);
    fs::write(&other, long).unwrap();
    let other = other.to_str().unwrap();
    let (code, out, err) = it.run(&[&["reload", "--dry-run"][..], &token, &[other]].concat());
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "nothing would change\n", "")
    );
    let (code, out, _) = it.run(&[&["reload"][..], &token].concat());
    assert_eq!((code, out.as_str()), (Some(0), "nothing has changed\n"));
    let (code, _, err) = it.run(&["kill", "1"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("answers: 401 Unauthorized: "), "{err}");
    let (code, _, err) = it.run(&["kill", "--token-file", "/nowhere/token", "1"]);
    assert_eq!(code, Some(1));
    assert!(
        err.starts_with("coracle: /nowhere/token: no such file; "),
        "{err}"
    );
    let (code, _, err) = it.run(&["kill", "--socket", "/run/a.sock", "1"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("--socket and --admin"), "{err}");
    drop(client);
}
