//! The control socket: who may use it, which commands it alone accepts, and how `coracle reload`
//! uses it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use coracle::admin::{Ask, ClientLimits, Control, Endpoint, Order};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support;
use crate::support::admin::{Admin, PATIENT};
use crate::support::http::{Client, get, http};
use crate::support::process::{Coracle, binary};
use crate::support::{DEADLINE, lasting_address, rng, until};

/// A coracle with a control socket.
struct Controlled {
    coracle: Coracle,
    dir: TempDir,
    socket: PathBuf,
    file: PathBuf,
}

/// One entrypoint, `web`.
const WEB: &str = "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n";

impl Controlled {
    fn start() -> Self {
        Self::start_with("listen = \"127.0.0.1:0\"\n")
    }

    /// Like `start`, with these lines in `[admin]` beside `socket`.
    fn start_with(admin: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let coracle = Coracle::start(&config(WEB, admin, &socket));
        // The file as the log names it.
        let line = coracle.logged("configuration read");
        let file = line.split("file=").nth(1).unwrap().trim().into();
        Self {
            coracle,
            dir,
            socket,
            file,
        }
    }

    /// Writes another configuration into the file that coracle was started with.
    fn write(&self, entrypoints: &str, admin: &str) {
        fs::write(&self.file, config(entrypoints, admin, &self.socket)).unwrap();
    }

    fn reload(&self, arguments: &[&str]) -> Told {
        reload_at(&self.socket, arguments)
    }

    /// Sends a request over the control socket.
    fn ask(&self, request: impl AsRef<[u8]>) -> (u16, String) {
        ask(&self.socket, request)
    }
}

fn config(entrypoints: &str, admin: &str, socket: &Path) -> String {
    let socket = socket.display();
    format!("{entrypoints}[admin]\n{admin}socket = \"{socket}\"\n")
}

/// The exit code of a command, its stdout and its stderr.
type Told = (Option<i32>, String, String);

fn reload_at(socket: &Path, arguments: &[&str]) -> Told {
    let mut command = Command::new(binary());
    command.arg("reload").arg("--socket").arg(socket);
    told(command.args(arguments).output().unwrap())
}

fn told(output: Output) -> Told {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code();
    (code, text(output.stdout), text(output.stderr))
}

fn well(text: &str) -> Told {
    (Some(0), text.to_owned(), String::new())
}

/// Sends a request to a Unix socket. Returns the last response with its status.
pub(super) fn ask(socket: &Path, request: impl AsRef<[u8]>) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // A refused client may be answered before it has sent everything.
    let _ = stream.write_all(request.as_ref());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap();
    (status[..3].parse().unwrap(), body.to_owned())
}

pub(super) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn check(file: &Path) -> Told {
    let mut command = Command::new(binary());
    told(command.arg("check").arg(file).output().unwrap())
}

#[test]
fn reload_prints_the_changes_and_applies_them() {
    let it = Controlled::start();
    assert_eq!(it.reload(&[]), well("nothing has changed\n"));
    let more = "[entrypoints.more]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n";
    it.write(&format!("{WEB}{more}"), "listen = \"127.0.0.1:0\"\n");
    let (code, out, err) = it.reload(&[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("entrypoint more added: "), "{out}");
    it.coracle.logged("entrypoint=more");
    let line = it.coracle.logged("reloaded: entrypoint more added: ");
    assert!(line.contains("by=\"control socket\""), "{line}");
    assert_eq!(it.reload(&[]), well("nothing has changed\n"));
}

#[test]
fn invalid_configuration_is_refused_with_the_output_of_check() {
    let it = Controlled::start();
    it.write("foo = 1\n[entrypoints.web]\n", "listen = \"127.0.0.1:0\"\n");
    let (code, out, err) = it.reload(&[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("unknown key `foo`"), "{err}");
    assert_eq!((code, out, err), check(&it.file));
    // The previous configuration is still in force.
    it.write(WEB, "listen = \"127.0.0.1:0\"\n");
    assert_eq!(it.reload(&[]), well("nothing has changed\n"));
}

#[test]
fn dry_run_compares_a_file_or_stdin_and_changes_nothing() {
    let it = Controlled::start();
    let file = it.dir.path().join("a b&c.toml");
    let changed = WEB.replace("127.0.0.1:9", "127.0.0.1:10");
    let admin = "listen = \"127.0.0.1:0\"\n";
    fs::write(&file, config(&changed, admin, &it.socket)).unwrap();
    let file = file.to_str().unwrap();
    let (code, change, err) = it.reload(&["--dry-run", file]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(change.contains("127.0.0.1:10"), "{change}");
    let piped = |arguments: &[&str], stdin: fs::File| {
        let mut command = Command::new(binary());
        command.arg("reload").args(arguments).stdin(stdin);
        told(command.output().unwrap())
    };
    let socket = it.socket.to_str().unwrap();
    for arguments in [
        ["--socket", socket, "--dry-run", "-"],
        ["-", "--dry-run", "--socket", socket],
    ] {
        let stdin = fs::File::open(file).unwrap();
        assert_eq!(piped(&arguments, stdin), well(&change));
    }
    // Its own file, before and after a change.
    assert_eq!(it.reload(&["--dry-run"]), well("nothing would change\n"));
    it.write(&changed, admin);
    assert_eq!(it.reload(&["--dry-run"]), well(&change));
    assert!(!it.coracle.log().iter().any(|line| line.contains("reload")));
    // An empty file differs from no file.
    fs::write(file, "").unwrap();
    assert_eq!(it.reload(&["--dry-run", file]), check(file.as_ref()));
    fs::write(file, "foo = 1\n").unwrap();
    let (code, out, err) = it.reload(&["--dry-run", file]);
    assert!(err.starts_with(&format!("{file}:1:1: ")), "{err}");
    assert_eq!((code, out, err), check(file.as_ref()));
    let (code, _, err) = it.reload(&[file]);
    assert_eq!(code, Some(1));
    assert!(err.contains("add --dry-run"), "{err}");
}

#[test]
fn tcp_address_refuses_commands_and_names_the_control_socket() {
    let it = Controlled::start();
    let request = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let (status, _, body) = http(it.coracle.admin, request);
    assert_eq!(status, 403);
    let path = it.socket.display().to_string();
    assert!(body.contains("needs the control socket"), "{body}");
    assert!(body.contains(&path), "{body}");
    for path in ["/api/v1/reload", "/api/v1/drain", "/api/v1/stop"] {
        let (status, headers, _) = get(it.coracle.admin, path);
        assert_eq!((status, headers.value("allow")), (405, Some("POST")));
        let (status, _, body) = http(it.coracle.admin, post(path, ""));
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("needs the control socket"), "{body}");
    }
    assert_eq!(reload_at(&it.socket, &[]), well("nothing has changed\n"));
    it.coracle.logged("reloaded: nothing has changed");

    let off = Coracle::start(&format!(
        "{WEB}[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"off\"\n"
    ));
    for (path, signal) in [("/api/v1/reload", "SIGHUP"), ("/api/v1/drain", "SIGTERM")] {
        let (status, _, body) = http(off.admin, post(path, ""));
        assert_eq!(status, 403);
        assert!(body.contains(signal), "{body}");
    }
}

#[test]
fn control_socket_answers_whatever_the_tcp_address_does() {
    let it = Controlled::start_with("listen = \"off\"\n");
    // No browser can reach it this way, so no host is refused.
    let get = |path: &str| it.ask(format!("GET {path} HTTP/1.0\r\nHost: evil.example\r\n\r\n"));
    assert_eq!(get("/healthz"), (200, "ok\n".to_owned()));
    assert!(get("/metrics").1.contains("coracle_open_connections"));
    assert!(get("/").1.contains("/api/v1/reload"));
    assert_eq!(get("/api/v1/reload").0, 405);
    let mut audit = Command::new(binary());
    audit.args(["audit", "--admin", &format!("unix:{}", it.socket.display())]);
    let (code, out, err) = told(audit.output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("The set and the kernel agree"), "{out}");
}

#[test]
fn malformed_commands_change_nothing() {
    let it = Controlled::start();
    it.write(
        &WEB.replace("127.0.0.1:9", "127.0.0.1:10"),
        "listen = \"127.0.0.1:0\"\n",
    );
    for (status, request) in [
        (400, post("/api/v1/reload?dryrun", "")),
        (400, post("/api/v1/reload?dry-run=no", "")),
        (400, post("/api/v1/reload", "a = 1\n")),
        (400, post("/api/v1/reload?name=a", "")),
        (400, post("/api/v1/drain?dry-run", "")),
        (400, post("/api/v1/stop?", "")),
        (404, "GET /api/v1/reloads HTTP/1.0\r\n\r\n".to_owned()),
        (405, post("/metrics", "")),
        (405, "PUT /api/v1/reload HTTP/1.0\r\n\r\n".to_owned()),
        (
            413,
            post("/api/v1/reload?dry-run", &"#".repeat((1 << 20) + 1)),
        ),
    ] {
        let start: String = request.chars().take(60).collect();
        assert_eq!(it.ask(request).0, status, "{start}");
    }
    let mut not_text = post("/api/v1/reload?dry-run", "##").into_bytes();
    not_text.pop();
    not_text.push(0xff);
    assert_eq!(it.ask(not_text).0, 400);
    assert!(!it.coracle.log().iter().any(|line| line.contains("reload")));
}

#[test]
fn longest_configuration_is_read_completely() {
    let it = Controlled::start();
    let filled = |bytes: usize| {
        let end = "foo = 1\n";
        let fill = "#".repeat(bytes - 1 - end.len());
        format!("{fill}\n{end}")
    };
    let longest = filled(1 << 20);
    let (status, said) = it.ask(post("/api/v1/reload?dry-run&name=l.toml", &longest));
    assert_eq!(status, 422);
    assert!(said.starts_with("l.toml:2:1: unknown key `foo`"), "{said}");
    // curl first asks permission to send that much.
    let body = filled(3000);
    let mut stream = UnixStream::connect(&it.socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = "POST /api/v1/reload?dry-run HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    assert!(answer.contains("configuration:2:1: "), "{answer}");
}

#[test]
fn reload_works_beside_the_most_tcp_clients_and_displaces_none() {
    let it = Controlled::start();
    let clients = ClientLimits::default().clients;
    let mut clients: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = Client::connect(it.coracle.admin);
            assert_eq!(client.get("/healthz").status, 200);
            client
        })
        .collect();
    assert_eq!(it.reload(&[]), well("nothing has changed\n"));
    for client in &mut clients {
        assert_eq!(client.get("/healthz").status, 200);
    }
}

#[test]
fn only_root_own_user_and_group_of_the_socket_may_command() {
    if !support::has_tool("setpriv") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "this needs root");
        eprintln!("skipped: other users can be played by root alone");
        return;
    }
    const GROUP: u32 = 4242;
    let it = Controlled::start();
    fs::set_permissions(it.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = it.dir.path().join("coracle");
    fs::copy(binary(), &copy).unwrap();
    let reload_as = |who: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(who).arg(&copy).args(["reload", "--socket"]);
        told(command.arg(&it.socket).current_dir("/").output().unwrap())
    };
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let member = ["--reuid=65534", "--regid=65534", "--groups=1,4242,7"];
    let many: Vec<String> = (GROUP - 200..=GROUP).map(|it| it.to_string()).collect();
    let many = format!("--groups={}", many.join(","));
    let member_of_many = ["--reuid=65534", "--regid=65534", many.as_str()];
    let primary = ["--reuid=65534", "--regid=4242", "--clear-groups"];
    // The mode keeps others out,
    let (code, _, err) = reload_as(&nobody);
    assert_eq!(code, Some(1));
    assert!(err.contains("may not connect"), "{err}");
    std::os::unix::fs::chown(&it.socket, None, Some(GROUP)).unwrap();
    for who in [&member, &member_of_many, &primary] {
        assert_eq!(reload_as(who), well("nothing has changed\n"), "{who:?}");
    }
    // and if it lets them in, coracle refuses them.
    fs::set_permissions(&it.socket, PermissionsExt::from_mode(0o666)).unwrap();
    let (code, out, err) = reload_as(&nobody);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("403 Forbidden"), "{err}");
    let reloads = || {
        let log = it.coracle.log();
        let reloads = log
            .iter()
            .filter(|line| line.contains("nothing has changed"));
        reloads.count()
    };
    until("each reload is logged", || (reloads() >= 3).then_some(()));
    assert_eq!(reloads(), 3);
}

#[test]
fn socket_is_private_to_owner_and_group_and_removed_at_exit() {
    let mut it = Controlled::start();
    let meta = fs::symlink_metadata(&it.socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    it.coracle.signal(Signal::TERM);
    assert!(it.coracle.wait().success());
    assert!(!it.socket.exists());
    let (code, _, err) = it.reload(&[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("SIGHUP") && err.lines().count() == 1, "{err}");
}

#[test]
fn abandoned_socket_is_replaced_but_one_in_use_is_not() {
    let it = Controlled::start();
    let rival = config(WEB, "listen = \"127.0.0.1:0\"\n", &it.socket);
    let file = it.dir.path().join("rival.toml");
    fs::write(&file, &rival).unwrap();
    let run = |file: &Path| {
        let mut command = Command::new(binary());
        told(command.args(["run", "-c"]).arg(file).output().unwrap())
    };
    let (code, _, err) = run(&file);
    assert_eq!(code, Some(1));
    let said = format!(
        "coracle: admin: listen on unix:{}: address in use: another program listens there",
        it.socket.display()
    );
    assert!(err.lines().last().unwrap().starts_with(&said), "{err}");
    assert_eq!(it.reload(&[]), well("nothing has changed\n"));
    it.coracle.signal(Signal::KILL);
    let Controlled {
        mut coracle,
        dir,
        socket,
        ..
    } = it;
    coracle.wait();
    assert!(socket.exists());
    let _next = Coracle::start(&rival);
    assert_eq!(reload_at(&socket, &[]), well("nothing has changed\n"));

    let nowhere = dir.path().join("none/control.sock");
    fs::write(&file, config(WEB, "listen = \"off\"\n", &nowhere)).unwrap();
    let (code, _, err) = run(&file);
    assert_eq!(code, Some(1));
    let last = err.lines().last().unwrap();
    assert!(
        last.ends_with("the directory does not exist; create it"),
        "{err}"
    );
}

#[test]
fn default_control_socket_exists_if_its_directory_does() {
    if !["unshare", "mount"].iter().all(|it| support::has_tool(it)) {
        return;
    }
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        // Other users are root only in a user namespace.
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = format!("mount -t tmpfs none /run && {script}");
        command.args(["--mount", "sh", "-c", &script]);
        command
    };
    let tried = in_namespace("true").stderr(Stdio::null()).status().unwrap();
    if !tried.success() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "namespaces cannot be made here");
        eprintln!("skipped: namespaces cannot be made here");
        return;
    }
    let config = format!("{WEB}[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\n");
    let start = |before: &str| {
        let mut command = in_namespace(&format!("{before} exec \"$0\" \"$@\""));
        command.arg(binary());
        Coracle::start_by(command, &config)
    };
    let path = |coracle: &Coracle| {
        let root = format!("/proc/{}/root/run/coracle/control.sock", coracle.pid());
        PathBuf::from(root)
    };
    let without = start("");
    let line = without.logged("no control socket");
    assert!(line.contains("level=debug"), "{line}");
    assert!(!path(&without).exists());
    // A file that is not a socket belongs to another program.
    let taken = start("mkdir /run/coracle; touch /run/coracle/control.sock;");
    taken.logged("no control socket");
    let mut with = start("mkdir /run/coracle;");
    assert_eq!(
        reload_at(&path(&with), &["--dry-run"]),
        well("nothing would change\n")
    );
    let directory = fs::File::open(path(&with).parent().unwrap()).unwrap();
    with.signal(Signal::TERM);
    assert!(with.wait().success());
    let left = rustix::fs::Dir::read_from(&directory).unwrap();
    assert_eq!(left.count(), 2, "only the dots are left");
}

#[test]
fn reload_moves_the_endpoint_and_keeps_unchanged_sockets() {
    let it = Controlled::start();
    let first = it.coracle.admin;
    let mut busy = Client::connect(first);
    busy.send("GET /healthz HTTP/1.1\r\n");
    let mut idle = Client::connect(first);
    assert_eq!(idle.get("/healthz").status, 200);
    // Another host: the same socket.
    let status =
        |host: &str, at: SocketAddr| http(at, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).0;
    assert_eq!(status("pi.example.org", first), 421);
    it.write(
        WEB,
        "listen = \"127.0.0.1:0\"\nhosts = [\"pi.example.org\"]\n",
    );
    let (code, out, _) = it.reload(&[]);
    assert!(
        code == Some(0) && out.starts_with("admin: "),
        "{code:?} {out}"
    );
    // Started requests are answered as before; later ones are not.
    busy.send("Host: localhost\r\n\r\n");
    let answer = busy.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.value("connection"), Some("close"));
    idle.expect_end();
    until("the old endpoint closes", || {
        (status("pi.example.org", first) == 200).then_some(())
    });

    // Another address, which overlaps the old one. Other tests have no socket with its port on any
    // address, as they may with one that the kernel has chosen.
    it.write(WEB, &format!("listen = \"{first}\"\n"));
    assert_eq!(it.reload(&[]).0, Some(0));
    let lasting = lasting_address(&mut rng::from_env());
    let port = lasting.port();
    it.write(WEB, &format!("listen = \"{lasting}\"\n"));
    assert_eq!(it.reload(&[]).0, Some(0));
    it.write(WEB, &format!("listen = \"*:{port}\"\nopen = true\n"));
    assert_eq!(it.reload(&[]).0, Some(0));
    let other = SocketAddr::from(([127, 0, 0, 2], port));
    assert_eq!(status("localhost", other), 200);

    // An unavailable address leaves everything unchanged, including the entrypoints.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let more = "[entrypoints.more]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n";
    it.write(&format!("{WEB}{more}"), &format!("listen = \"{taken}\"\n"));
    let (code, out, err) = it.reload(&[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        err.starts_with(&format!(
            "coracle: admin: listen on {taken}: address in use"
        )),
        "{err}"
    );
    assert_eq!(status("localhost", other), 200);
    assert!(!it.coracle.log().iter().any(|line| line.contains("more ")));

    // An unavailable socket does too, at every moment.
    let mut stays = Client::connect(other);
    assert_eq!(stays.get("/healthz").status, 200);
    let path = it.dir.path().join("taken.sock");
    let _other = UnixListener::bind(&path).unwrap();
    let admin = format!("listen = \"*:{port}\"\nopen = true\n");
    fs::write(&it.file, config(WEB, &admin, &path)).unwrap();
    let (code, _, err) = it.reload(&[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("taken.sock: address in use"), "{err}");
    assert_eq!(stays.get("/healthz").status, 200);

    // And a failing entrypoint leaves the endpoint unchanged.
    let more = more.replace("127.0.0.1:0", &taken.to_string());
    it.write(
        &format!("{WEB}{more}"),
        &format!("listen = \"127.0.0.1:{port}\"\n"),
    );
    let (code, _, err) = it.reload(&[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("entrypoint more: listen on"), "{err}");
    assert_eq!(status("localhost", other), 200);
    assert_eq!(it.reload(&["--dry-run"]).0, Some(0));

    // Only the socket, at another path.
    let elsewhere = it.dir.path().join("other.sock");
    fs::write(&it.file, config(WEB, "listen = \"off\"\n", &elsewhere)).unwrap();
    assert_eq!(it.reload(&[]).0, Some(0));
    assert!(!it.socket.exists());
    let refused = || TcpStream::connect(first).is_err();
    until("the address is closed", || refused().then_some(()));
    assert_eq!(reload_at(&elsewhere, &[]), well("nothing has changed\n"));
}

#[test]
fn retired_endpoint_answers_pending_requests_and_then_ends() {
    let admin = Admin::start(PATIENT);
    let mut idle = Client::connect(admin.address);
    assert_eq!(idle.get("/healthz").status, 200);
    let mut begun = Client::connect(admin.address);
    begun.send("GET /metrics HTTP/1.1\r\n");
    let mut never = Client::connect(admin.address);
    never.send("GET");
    admin.settle();
    let address = admin.address;
    admin.with(|world| world.endpoint.take().unwrap().retire());
    idle.expect_end();
    until("it accepts no connection", || {
        let refused = TcpStream::connect(address).err()?;
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        Some(())
    });
    begun.send("Host: localhost\r\n\r\n");
    let answer = begun.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("coracle_open_connections"));
    begun.expect_end();
    never.expect_cut();
}

#[test]
fn unanswered_command_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str, take: Option<Arc<dyn Fn(Order) + Send + Sync>>| {
        let path = dir.path().join(name);
        let control = Control::new(UnixListener::bind(&path).unwrap()).unwrap();
        let endpoint = Endpoint::on_control(control).unwrap();
        let endpoint = endpoint.with_limits(ClientLimits {
            order: Duration::from_millis(200),
            ..PATIENT
        });
        let endpoint = match take {
            Some(take) => endpoint.with_orders(take),
            None => endpoint,
        };
        (path, endpoint.start().unwrap())
    };
    let kept = std::sync::Mutex::new(Vec::new());
    let keep = move |order| kept.lock().unwrap().push(order);
    let answer = |order: Order| {
        assert_eq!(order.ask, Ask::Reload);
        order.answer.try_send(Ok("a\nb".to_owned())).unwrap();
    };
    let (never, _never) = start("never", Some(Arc::new(keep)));
    let (dropped, _dropped) = start("dropped", Some(Arc::new(drop)));
    let (nobody, _nobody) = start("nobody", None);
    let (answered, _answered) = start("answered", Some(Arc::new(answer)));
    for path in [never, dropped, nobody] {
        let (status, said) = ask(&path, post("/api/v1/reload", ""));
        assert_eq!(status, 503, "{path:?}");
        assert!(said.contains("does not answer"), "{said}");
        let (code, _, err) = reload_at(&path, &[]);
        assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    }
    assert_eq!(reload_at(&answered, &[]), well("a\nb\n"));
}

#[test]
fn foreign_control_socket_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    for (name, answer) in [
        ("silent", ""),
        ("ssh", "SSH-2.0-x\r\n"),
        ("cut", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        (
            "other",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        ),
    ] {
        let path = dir.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let (code, out, err) = reload_at(&path, &[]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{name}");
        assert!(err.contains("--socket PATH"), "{name}: {err}");
        serving.join().unwrap();
    }
}
