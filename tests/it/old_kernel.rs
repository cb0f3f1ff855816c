//! Old and small kernels: the program runs with system calls withheld, and copes or says in one
//! line why it cannot.
//!
//! A seccomp filter (`support/old_kernel.py`) makes the calls fail; no such kernel is booted.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::support;
use crate::support::backend::{self, Script, hold, pattern};
use crate::support::kernel::has_closed_window;
use crate::support::metrics::{self, Metrics, check, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::rng::{self, Rng};
use crate::support::until;

/// What Linux 3.10 lacks: every later call, PR_GET_AUXV (6.4), SO_RCVTIMEO_NEW and SO_SNDTIMEO_NEW
/// (5.1), SO_MEMINFO (4.12), IPV6_FREEBIND (4.19).
const NEWER_THAN_3_10: [&str; 6] = [
    "newer-than-3.10=ENOSYS",
    "prctl[0=1096112214]=EINVAL",
    "setsockopt[1=1,2=66]=ENOPROTOOPT",
    "setsockopt[1=1,2=67]=ENOPROTOOPT",
    "getsockopt[1=1,2=55]=ENOPROTOOPT",
    "setsockopt[1=41,2=78]=ENOPROTOOPT",
];
const NO_IP_FREEBIND: &str = "setsockopt[1=0,2=15]=ENOPROTOOPT";
const NO_IPV6_FREEBIND: &str = "setsockopt[1=41,2=78]=ENOPROTOOPT";
/// AF_NETLINK is 16, AF_INET6 is 10.
const NO_NETLINK: &str = "socket[0=16]=EPERM";
const NO_IPV6: &str = "socket[0=10]=EAFNOSUPPORT";

/// Enough to fill a pipe several hundred times.
const LONG_BYTES: usize = 16 << 20;
const HELD: usize = 5;

/// The machine as the program sees it.
#[derive(Clone, Copy)]
struct Machine<'a> {
    /// What is withheld, in the syntax of `support/old_kernel.py`.
    rules: &'a [&'a str],
    has_proc: bool,
}

impl<'a> Machine<'a> {
    /// A machine without these calls; `None`, with a message, if that cannot be arranged here.
    fn without(rules: &'a [&'a str]) -> Option<Self> {
        let machine = Self {
            rules,
            has_proc: true,
        };
        machine.can_be_had().then_some(machine)
    }

    /// The same without `/proc`.
    fn without_proc(rules: &'a [&'a str]) -> Option<Self> {
        let machine = Self {
            rules,
            has_proc: false,
        };
        machine.can_be_had().then_some(machine)
    }

    /// A command that runs `program` there, in the process that the command starts.
    fn command(&self, program: &str) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/old_kernel.py");
        let mut command = if self.has_proc {
            Command::new("python3")
        } else {
            let mut unshare = Command::new("unshare");
            unshare.args(namespace()).args(["sh", "-c"]);
            unshare.args([r#"mount -t tmpfs none /proc && exec "$0" "$@""#, "python3"]);
            unshare
        };
        command.arg(script).args(self.rules).args(["--", program]);
        command
    }

    fn can_be_had(&self) -> bool {
        let tools: &[&str] = if self.has_proc {
            &["python3"]
        } else {
            &["python3", "unshare", "mount"]
        };
        if !tools.iter().all(|tool| support::has_tool(tool)) {
            return false;
        }
        // A filter that kills at a call would kill this attempt too.
        let kills = |rule: &&str| rule.ends_with("=KILL");
        let rules: Vec<&str> = self
            .rules
            .iter()
            .copied()
            .filter(|rule| !kills(rule))
            .collect();
        let harmless = Machine {
            rules: &rules,
            ..*self
        };
        let tried = harmless.command("true").output().unwrap();
        let why = String::from_utf8_lossy(&tried.stderr);
        // 77: not possible on this machine; any other failure is an error in a rule.
        let is_unable = tried.status.code() == Some(77) || !self.has_proc;
        assert!(tried.status.success() || is_unable, "{why}");
        if !tried.status.success() {
            let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
            assert!(!required, "calls or /proc cannot be withheld here: {why}");
            eprintln!("skipped: calls or /proc cannot be withheld here: {why}");
        }
        tried.status.success()
    }

    /// A ready coracle there, with an entrypoint `e` on `listen` and on a Unix socket, to a backend
    /// known by name.
    fn start(&self, listen: &str) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("front.sock");
        let port = backend::start().port();
        let config = format!(
            "drain_timeout = \"1h\"\n\
             [entrypoints.e]\nlisten = [\"{listen}\", \"unix:{}\"]\nto = \"localhost:{port}\"\n",
            path.display()
        );
        Running {
            coracle: Coracle::start_by(self.command(&binary()), &config),
            path,
            _dir: dir,
        }
    }

    /// Runs coracle there until it exits.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&binary());
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        // Its output fits into the pipes.
        let status = until("the program ends", || child.0.try_wait().unwrap());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let said = (child.0.stdout.take(), child.0.stderr.take());
        said.0.unwrap().read_to_end(&mut stdout).unwrap();
        said.1.unwrap().read_to_end(&mut stderr).unwrap();
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// Startup fails there, and its whole output is one line that contains `why`.
    fn cannot_start(&self, forward: &str, why: &str) {
        let output = self.run(&["run", "--admin", "off", "-L", forward]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(why), "{said}");
    }
}

/// A child that does not outlive a failing test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Root makes a mount namespace itself; other users, and root in a container, are root only in a
/// user namespace.
fn namespace() -> &'static [&'static str] {
    let mut command = Command::new("unshare");
    let command = command.args(["--mount", "true"]).stderr(Stdio::null());
    match command.status().unwrap().success() {
        true => &["--mount"],
        false => &["--mount", "--user", "--map-root-user"],
    }
}

/// Where an architecture's system call numbers are defined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    SockDiag,
    Proc,
    Nowhere,
}

struct Running {
    coracle: Coracle,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Running {
    /// Checks everything a user relies on, whatever the kernel lacks.
    fn serves_and_drains(mut self, machine: Machine<'_>, table: Table) {
        let address = reachable(self.coracle.address("e"));
        let mut rng = rng::from_env();
        let mut passed = pass_long(connect(address), &mut rng);
        passed += pass_long(connect_unix(&self.path), &mut rng);
        passed += answer_after_end(connect(address));

        let held: Vec<TcpStream> = (0..HELD).map(|_| hold(address)).collect();
        let metrics = self.with_held_open();
        check(&Metrics::default(), &metrics);
        let counted = metrics.sum("coracle_bytes_total");
        // 9 bytes of request and one of response.
        assert_eq!(counted, (passed + HELD * 10) as f64);
        self.tells_of_the_kernel(machine, table);

        // A receiver that stops, so that bytes for it are held in a pipe or copied aside.
        let mut stopped = connect(address);
        let socket = socket2::SockRef::from(&stopped);
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let request = Script::SendAndClose.request(LONG_BYTES as u64);
        stopped.write_all(&request).unwrap();
        let its_port = stopped.local_addr().unwrap().port();
        until("its window is closed", || {
            has_closed_window(address.port(), its_port).then_some(())
        });
        self.coracle.assert_calm();
        let passed = scrape(self.coracle.admin).sum("coracle_bytes_total");
        assert!(passed < counted + LONG_BYTES as f64, "it is not blocked");
        let mut rest = Vec::new();
        stopped.read_to_end(&mut rest).unwrap();
        assert!(rest == pattern(LONG_BYTES), "{} bytes came", rest.len());
        drop(stopped);
        self.with_held_open();

        self.coracle.signal(Signal::TERM);
        self.coracle.logged("draining");
        drop(held);
        assert_eq!(self.coracle.wait().code(), Some(0));
        self.coracle
            .logged(&format!("msg=drained ended={HELD} cut=0"));
        assert!(!self.path.exists(), "the socket's file is removed");
        let log = self.coracle.log();
        let is_bad = |line: &&String| line.contains("level=error") || line.contains("panic");
        assert_eq!(log.iter().find(is_bad), None);
    }

    /// Waits until the gauge equals the number of held connections.
    fn with_held_open(&self) -> Metrics {
        until("the gauge is right", || {
            let metrics = scrape(self.coracle.admin);
            (metrics.sum("coracle_open_connections") == HELD as f64).then_some(metrics)
        })
    }

    /// Checks that the kernel's count is right, or absent if no source has it.
    fn tells_of_the_kernel(&self, machine: Machine<'_>, table: Table) {
        let admin = self.coracle.admin.to_string();
        let audit = machine.run(&["audit", "--admin", &admin]);
        let said = String::from_utf8([audit.stdout, audit.stderr].concat()).unwrap();
        let agrees = |source: &str| format!("The set and the kernel agree: {HELD} open ({source})");
        let (expected, code) = match table {
            Table::SockDiag => (agrees("sock_diag"), 0),
            Table::Proc => (agrees("proc"), 0),
            Table::Nowhere => ("the kernel's table of sockets cannot be read".into(), 1),
        };
        assert!(said.contains(&expected), "{said}");
        assert_eq!(audit.status.code(), Some(code), "{said}");

        let metrics = until("a reading that is young enough", || {
            let metrics = scrape(self.coracle.admin);
            let kernel = metrics.sum("coracle_kernel_connections");
            (table == Table::Nowhere || kernel == HELD as f64).then_some(metrics)
        });
        let has = |name: &str| metrics.series(name).next().is_some();
        for name in ["coracle_kernel_connections", "coracle_connection_mismatch"] {
            assert_eq!(has(name), table != Table::Nowhere, "{name}");
        }
        metrics::agrees(&metrics);
        // Metrics that only /proc can provide are absent rather than wrong.
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_start_time_seconds",
            "process_open_fds",
            "process_threads",
        ] {
            assert_eq!(has(name), machine.has_proc, "{name}");
        }
        assert!(metrics.sum("process_max_fds") > 0.0);
    }
}

/// `*` is bound as an address that cannot be connected to.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], address.port())),
        false => address,
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.set_write_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.set_write_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

/// What a client does with a connection, TCP or Unix.
trait Client: Read + Write + Send + Sized {
    fn another(&self) -> Self;
    fn finish(&self);
}

impl Client for TcpStream {
    fn another(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Client for UnixStream {
    fn another(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// Sends many bytes through an echo while reading them back, and compares. Returns how many bytes
/// passed, both ways.
fn pass_long<C: Client>(mut client: C, rng: &mut Rng) -> usize {
    let mut sender = client.another();
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            sender.write_all(&Script::Echo.request(0)).unwrap();
            let mut hash = Sha256::new();
            let mut chunk = vec![0; 64 * 1024];
            for _ in 0..LONG_BYTES / chunk.len() {
                rng.fill(&mut chunk);
                hash.update(&chunk);
                sender.write_all(&chunk).unwrap();
            }
            sender.finish();
            hash.finalize()
        });
        let mut hash = Sha256::new();
        let n = std::io::copy(&mut client, &mut Hashing(&mut hash)).unwrap() as usize;
        assert_eq!(n, LONG_BYTES);
        assert!(hash.finalize() == sending.join().unwrap(), "other bytes");
        9 + 2 * n
    })
}

struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Finishes sending before the response begins.
fn answer_after_end<C: Client>(mut client: C) -> usize {
    const ANSWER: usize = 1 << 20;
    let request = Script::AnswerAfterEnd.request(ANSWER as u64);
    client.write_all(&request).unwrap();
    client.finish();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer == pattern(ANSWER), "{} bytes came", answer.len());
    request.len() + ANSWER
}

fn does_without(rules: &[&str], table: Table) {
    if let Some(machine) = Machine::without(rules) {
        machine
            .start("127.0.0.1:0")
            .serves_and_drains(machine, table);
    }
}

#[test]
fn linux_3_10_suffices() {
    does_without(&NEWER_THAN_3_10, Table::SockDiag);
}

/// Waits of more than 24 days once used epoll_pwait2.
#[test]
fn drain_timeout_of_a_year_works() {
    let Some(machine) = Machine::without(&NEWER_THAN_3_10) else {
        return;
    };
    // Without lookups and keep-alive, the drain is the only wait.
    let to = backend::start();
    let config = format!(
        "drain_timeout = \"366d\"\n\
         [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\nkeepalive = \"off\"\n"
    );
    let mut coracle = Coracle::start_by(machine.command(&binary()), &config);
    let held = hold(coracle.address("e"));
    coracle.signal(Signal::TERM);
    coracle.logged("draining");
    let open = scrape(coracle.admin).sum("coracle_open_connections");
    assert_eq!(open, 1.0);
    drop(held);
    assert_eq!(coracle.wait().code(), Some(0));
}

#[test]
fn without_splice_streams_are_copied() {
    does_without(&["splice=EINVAL"], Table::SockDiag);
    does_without(&["splice=ENOSYS"], Table::SockDiag);
}

#[test]
fn without_pipes_streams_are_copied() {
    does_without(&["pipe2=EMFILE"], Table::SockDiag);
    does_without(&["pipe2=ENFILE"], Table::SockDiag);
}

#[test]
fn pipes_that_cannot_grow_or_are_too_small_still_work() {
    // F_SETPIPE_SZ is 1031: the pipe stays at 64 KiB. F_GETPIPE_SZ is 1032: nothing fits into it.
    does_without(&["fcntl[1=1031]=EPERM"], Table::SockDiag);
    does_without(&["fcntl[1=1032]=0"], Table::SockDiag);
}

#[test]
fn without_netlink_the_kernel_count_comes_from_proc() {
    does_without(&["socket[0=16]=EPROTONOSUPPORT"], Table::Proc);
    does_without(&[NO_NETLINK], Table::Proc);
}

#[test]
fn without_proc_its_metrics_are_absent() {
    for rules in [&[][..], &[NO_NETLINK]] {
        if let Some(machine) = Machine::without_proc(rules) {
            let running = machine.start("127.0.0.1:0");
            running.serves_and_drains(machine, Table::Nowhere);
        }
    }
}

#[test]
fn without_ip_freebind_only_present_addresses_can_be_listened_on() {
    const BOTH: [&str; 2] = [NO_IP_FREEBIND, NO_IPV6_FREEBIND];
    does_without(&BOTH, Table::SockDiag);
    if let Some(machine) = Machine::without(&BOTH) {
        // Reserved for documentation (RFC 5737, RFC 3849): no machine has them.
        for absent in ["192.0.2.1:0:127.0.0.1:9", "[2001:db8::1]:0:127.0.0.1:9"] {
            machine.cannot_start(absent, "this machine does not have this address");
        }
    }
}

#[test]
fn absent_ipv6_address_can_be_listened_on_without_ipv6_freebind() {
    if let Some(machine) = Machine::without(&[NO_IPV6_FREEBIND]) {
        let config = "[entrypoints.e]\nlisten = \"[2001:db8::1]:0\"\nto = \"127.0.0.1:9\"\n";
        let coracle = Coracle::start_by(machine.command(&binary()), config);
        assert_eq!(coracle.address("e").ip().to_string(), "2001:db8::1");
    }
}

#[test]
fn without_accept4_startup_fails_with_one_line() {
    for rule in ["accept4=ENOSYS", "accept4=EPERM"] {
        if let Some(machine) = Machine::without(&[rule]) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("front.sock");
            let unix = format!("unix:{}:127.0.0.1:9", path.display());
            machine.cannot_start("0:127.0.0.1:9", "Linux 3.10 and later");
            machine.cannot_start(&unix, "Linux 3.10 and later");
            assert!(!path.exists());
        }
    }
}

#[test]
fn without_ipv6_wildcards_mean_ipv4_and_ipv6_addresses_are_refused() {
    if let Some(machine) = Machine::without(&[NO_IPV6]) {
        let running = machine.start("*:0");
        assert!(running.coracle.address("e").is_ipv4());
        running.serves_and_drains(machine, Table::SockDiag);
        machine.cannot_start("[::1]:0:127.0.0.1:9", "this machine has no IPv6");
        let config = "[admin]\nlisten = \"*:0\"\nopen = true\n\
                      [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n";
        let coracle = Coracle::start_by(machine.command(&binary()), config);
        assert!(coracle.admin.is_ipv4());
        scrape(reachable(coracle.admin));
    }
}

#[test]
fn serves_with_everything_optional_missing_at_once() {
    let missing = ["splice=ENOSYS", NO_NETLINK, NO_IP_FREEBIND, NO_IPV6];
    let rules = [&NEWER_THAN_3_10[..], &missing].concat();
    if let Some(machine) = Machine::without_proc(&rules) {
        let running = machine.start("*:0");
        running.serves_and_drains(machine, Table::Nowhere);
    }
}

/// Otherwise the tests above would withhold calls that are never made.
#[test]
fn withheld_calls_are_made_otherwise() {
    const SIGSYS: i32 = 31;
    for at_start in [
        "newer-than-3.10=KILL",
        "socket[0=16]=KILL",
        "socket[0=10]=KILL",
        "setsockopt[1=0,2=15]=KILL",
        "setsockopt[1=41,2=78]=KILL",
        "setsockopt[1=1,2=66]=KILL",
        "accept4=KILL",
    ] {
        let rules = [at_start];
        let Some(machine) = Machine::without(&rules) else {
            return;
        };
        let forwards = ["-L", "0:127.0.0.1:9", "-L", "*:0:127.0.0.1:9"];
        let output = machine.run(&[&["run", "--admin", "127.0.0.1:0"], &forwards[..]].concat());
        assert_eq!(output.status.signal(), Some(SIGSYS), "{at_start}");
    }
    for in_a_long_stream in [
        "splice=KILL",
        "pipe2=KILL",
        "getsockopt[1=1,2=55]=KILL",
        "fcntl[1=1031]=KILL",
        "fcntl[1=1032]=KILL",
    ] {
        let rules = [in_a_long_stream];
        let Some(machine) = Machine::without(&rules) else {
            return;
        };
        let mut running = machine.start("127.0.0.1:0");
        let mut client = connect(running.coracle.address("e"));
        let request = Script::SendAndClose.request(LONG_BYTES as u64);
        client.write_all(&request).unwrap();
        // It ends with the program, one way or another.
        let _ = std::io::copy(&mut client, &mut std::io::sink());
        let status = running.coracle.wait();
        assert_eq!(status.signal(), Some(SIGSYS), "{in_a_long_stream}");
    }
}
