//! Old and small kernels: the program is run with calls withheld, and does without them or says in one line why it cannot.
//!
//! The calls fail by a seccomp filter (`support/old_kernel.py`), not by booting such a kernel.

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
use crate::support::backend::{self, Script, pattern};
use crate::support::kernel::has_closed_window;
use crate::support::metrics::{Metrics, check, scrape};
use crate::support::process::{Coracle, binary};
use crate::support::rng::{self, Rng};
use crate::support::until;

/// What Linux 3.10 has not: every later call, PR_GET_AUXV (6.4), SO_RCVTIMEO_NEW and SO_SNDTIMEO_NEW (5.1), SO_MEMINFO (4.12),
/// IPV6_FREEBIND (4.19).
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

/// Enough for several hundred fillings of a pipe.
const LONG_BYTES: usize = 16 << 20;
const HELD: usize = 5;

/// The machine that the program finds itself on.
#[derive(Clone, Copy)]
struct Machine<'a> {
    /// What is withheld, as `support/old_kernel.py` reads it.
    rules: &'a [&'a str],
    has_proc: bool,
}

impl<'a> Machine<'a> {
    /// One without these calls; `None`, which is told, where that cannot be arranged here.
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
        // What kills at a call would kill this attempt, too.
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
        // 77: this machine cannot; anything else but 0 is a mistake in a rule.
        let is_unable = tried.status.code() == Some(77) || !self.has_proc;
        assert!(tried.status.success() || is_unable, "{why}");
        if !tried.status.success() {
            let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
            assert!(!required, "calls or /proc cannot be withheld here: {why}");
            eprintln!("skipped: calls or /proc cannot be withheld here: {why}");
        }
        tried.status.success()
    }

    /// A coracle there, ready, with an entrypoint `e` on `listen` and on a Unix socket, to a backend that is known by name.
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

    /// Runs coracle there to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&binary());
        command.args(arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        // What it says fits into the pipes.
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

    /// It cannot start there, and the whole of what it says is one line that contains `why`.
    fn cannot_start(&self, forward: &str, why: &str) {
        let output = self.run(&["run", "--admin", "off", "-L", forward]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(why), "{said}");
    }
}

/// A child that does not outlive a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Root makes a mount namespace itself; others, and root in a container, are root in a user namespace alone.
fn namespace() -> &'static [&'static str] {
    let mut command = Command::new("unshare");
    let command = command.args(["--mount", "true"]).stderr(Stdio::null());
    match command.status().unwrap().success() {
        true => &["--mount"],
        false => &["--mount", "--user", "--map-root-user"],
    }
}

/// Where the numbers of the kernel's table are read on a machine.
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
    /// All that a user relies on, whatever the kernel lacks.
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
        // 9 bytes of request and one of answer.
        assert_eq!(counted, (passed + HELD * 10) as f64);
        self.tells_of_the_kernel(machine, table);

        // A receiver that stops, so that bytes are held for it meanwhile, in a pipe or copied aside.
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

    /// The gauge comes to the number of connections that are held.
    fn with_held_open(&self) -> Metrics {
        until("the gauge is right", || {
            let metrics = scrape(self.coracle.admin);
            (metrics.sum("coracle_open_connections") == HELD as f64).then_some(metrics)
        })
    }

    /// The kernel's count is right, or absent where nothing tells.
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
        assert_eq!(metrics.sum("coracle_connection_mismatch"), 0.0);
        // What only /proc tells is absent rather than wrong.
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

/// `*` is bound as an address that nobody can connect to.
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

fn hold(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
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

/// Sends many bytes, which come back while they are sent, and compares. Returns how many bytes have passed, both ways.
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

/// Finishes sending before the answer begins.
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
fn nothing_newer_than_linux_3_10_is_needed() {
    does_without(&NEWER_THAN_3_10, Table::SockDiag);
}

/// Waits of more than 24 days were asked of epoll_pwait2.
#[test]
fn a_drain_may_take_a_year() {
    let Some(machine) = Machine::without(&NEWER_THAN_3_10) else {
        return;
    };
    // Without names to look up and without keep-alive nothing else is waited for.
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
fn pipes_that_cannot_grow_or_are_too_small_do_no_harm() {
    // F_SETPIPE_SZ is 1031: the pipe stays at 64 KiB. F_GETPIPE_SZ is 1032: nothing fits into it.
    does_without(&["fcntl[1=1031]=EPERM"], Table::SockDiag);
    does_without(&["fcntl[1=1032]=0"], Table::SockDiag);
}

#[test]
fn without_netlink_the_kernels_count_is_read_from_proc() {
    does_without(&["socket[0=16]=EPROTONOSUPPORT"], Table::Proc);
    does_without(&[NO_NETLINK], Table::Proc);
}

#[test]
fn without_proc_what_only_proc_tells_is_absent() {
    for rules in [&[][..], &[NO_NETLINK]] {
        if let Some(machine) = Machine::without_proc(rules) {
            let running = machine.start("127.0.0.1:0");
            running.serves_and_drains(machine, Table::Nowhere);
        }
    }
}

#[test]
fn without_ip_freebind_addresses_that_are_there_can_be_listened_on_and_others_are_refused_in_one_line()
 {
    const BOTH: [&str; 2] = [NO_IP_FREEBIND, NO_IPV6_FREEBIND];
    does_without(&BOTH, Table::SockDiag);
    if let Some(machine) = Machine::without(&BOTH) {
        // For documentation (RFC 5737, RFC 3849): no machine has them.
        for absent in ["192.0.2.1:0:127.0.0.1:9", "[2001:db8::1]:0:127.0.0.1:9"] {
            machine.cannot_start(absent, "this machine has no such address");
        }
    }
}

#[test]
fn before_ipv6_freebind_an_absent_ipv6_address_can_be_listened_on_all_the_same() {
    if let Some(machine) = Machine::without(&[NO_IPV6_FREEBIND]) {
        let config = "[entrypoints.e]\nlisten = \"[2001:db8::1]:0\"\nto = \"127.0.0.1:9\"\n";
        let coracle = Coracle::start_by(machine.command(&binary()), config);
        assert_eq!(coracle.address("e").ip().to_string(), "2001:db8::1");
    }
}

#[test]
fn without_accept4_it_does_not_start_and_says_so_in_one_line() {
    for rule in ["accept4=ENOSYS", "accept4=EPERM"] {
        if let Some(machine) = Machine::without(&[rule]) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("front.sock");
            let unix = format!("unix:{}:127.0.0.1:9", path.display());
            machine.cannot_start("0:127.0.0.1:9", "Linux 3.10 or later");
            machine.cannot_start(&unix, "Linux 3.10 or later");
            assert!(!path.exists());
        }
    }
}

#[test]
fn without_ipv6_all_addresses_are_those_of_ipv4_and_ipv6_ones_are_refused_in_one_line() {
    if let Some(machine) = Machine::without(&[NO_IPV6]) {
        let running = machine.start("*:0");
        assert!(running.coracle.address("e").is_ipv4());
        running.serves_and_drains(machine, Table::SockDiag);
        machine.cannot_start("[::1]:0:127.0.0.1:9", "this machine has no IPv6");
        let config = "[admin]\nlisten = \"*:0\"\n\
                      [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n";
        let coracle = Coracle::start_by(machine.command(&binary()), config);
        assert!(coracle.admin.is_ipv4());
        scrape(reachable(coracle.admin));
    }
}

#[test]
fn with_all_of_it_missing_at_once_it_still_serves() {
    let missing = ["splice=ENOSYS", NO_NETLINK, NO_IP_FREEBIND, NO_IPV6];
    let rules = [&NEWER_THAN_3_10[..], &missing].concat();
    if let Some(machine) = Machine::without_proc(&rules) {
        let running = machine.start("*:0");
        running.serves_and_drains(machine, Table::Nowhere);
    }
}

/// Otherwise the tests above would withhold what nobody asks for.
#[test]
fn the_calls_that_are_withheld_are_made() {
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
        // It ends with the program, in one way or another.
        let _ = std::io::copy(&mut client, &mut std::io::sink());
        let status = running.coracle.wait();
        assert_eq!(status.signal(), Some(SIGSYS), "{in_a_long_stream}");
    }
}
