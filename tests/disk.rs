//! Routine operation writes nothing to disk: under `strace`, a busy proxy makes no call that could
//! write to a file.
//!
//! The amount of work is fixed, however long it takes; CORACLE_BUSY_ROUNDS raises it, as `.ci/run`
//! does.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use support::backend::{self, Script, pattern};
use support::http::get;
use support::metrics::{Scraper, scrape};
use support::process::{Coracle, binary};
use support::rng::{self, Rng};
use support::until;

/// Every call that takes a path, binds a name, or can write. A question mark: some machines lack
/// it.
const TRACED: &str = "trace=%file,bind,write,?writev,?pwrite64,?pwritev,?pwritev2,?sendfile,?sendfile64,?splice,?tee,\
    ?vmsplice,?copy_file_range,?ftruncate,?ftruncate64,?fallocate,?fchmod,?fchown,?fchown32,?fsetxattr,?futimesat,?utimensat,\
    ?fsync,?fdatasync,?sync,?syncfs,?sync_file_range,?sync_file_range2,?memfd_create,?io_uring_setup,?io_setup,\
    ?open_by_handle_at,?name_to_handle_at";

/// Calls that take a path and only look.
const LOOKING: [&str; 14] = [
    "execve",
    "access",
    "faccessat",
    "faccessat2",
    "stat",
    "stat64",
    "lstat",
    "lstat64",
    "newfstatat",
    "fstatat64",
    "statx",
    "readlink",
    "readlinkat",
    "getcwd",
];

/// The connections of one worker in one round.
const KINDS: [Kind; 11] = [
    Kind::Long,
    Kind::Unix,
    Kind::Unix,
    Kind::Refused,
    Kind::Refused,
    Kind::Answered,
    Kind::Answered,
    Kind::Answered,
    Kind::Answered,
    Kind::Answered,
    Kind::Answered,
];
const WORKERS: u64 = 4;
const SCRAPES: u64 = 10;
const AUDITS: u64 = 5;
const LONG_BYTES: usize = 8 << 20;

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Long enough to be spliced.
    Long,
    /// Over the Unix socket.
    Unix,
    /// Its server does not listen.
    Refused,
    /// Bytes both ways.
    Answered,
}

#[test]
fn busy_proxy_writes_to_no_file() {
    if !support::can_trace() {
        return;
    }
    let rounds = std::env::var("CORACLE_BUSY_ROUNDS").map_or(5, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (trace, front) = (dir.path().join("trace"), dir.path().join("front.sock"));
    let front_name = front.to_str().unwrap();
    let to = backend::start();
    let refusing = backend::bound_but_not_listening();
    let nowhere = refusing.local_addr().unwrap().as_socket().unwrap();
    // -D: the tracer is not the parent, so the process is the test's own child. -y: descriptors
    // with their targets.
    let mut command = Command::new("strace");
    command.args("-D -f -y -s 0 -e signal=none -e".split(' '));
    command.arg(TRACED);
    command.arg("-o").arg(&trace).arg(binary());
    let mut coracle = Coracle::start_by(
        command,
        &format!(
            "[log]\naccess = true\n\
             [entrypoints.e]\nlisten = [\"127.0.0.1:0\", \"unix:{front_name}\"]\nto = \"localhost:{}\"\n\
             [entrypoints.nowhere]\nlisten = \"127.0.0.1:0\"\nto = \"{nowhere}\"\n",
            to.port()
        ),
    );
    // Creating its socket file has written a little, and reading the hosts file may have updated
    // its access time.
    TcpStream::connect(coracle.address("e")).unwrap();
    coracle.logged("reason=done");
    let before = written_bytes(&coracle);
    let done = be_busy(&coracle, &front, rounds);
    let metrics = scrape(coracle.admin);
    let refused = metrics.sum_where("coracle_connect_errors_total", "reason=\"refused\"");
    assert_eq!(refused, done.of(Kind::Refused) as f64, "refused dials");
    assert_eq!(written_bytes(&coracle), before, "bytes written to disk");
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
    assert!(!front.exists(), "the socket's file is left behind");
    let pid = coracle.pid().to_string();
    let trace = until("the trace is complete", || {
        let trace = std::fs::read_to_string(&trace).unwrap();
        let ended = trace.lines().next_back().map(|line| line.split_once(' '));
        let ended = ended.flatten().filter(|(who, _)| *who == pid);
        ended
            .is_some_and(|(_, what)| what.contains("+++ exited with 0 +++"))
            .then_some(trace)
    });

    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for line in trace.lines() {
        if let Some(call) = Call::parse(line) {
            *calls.entry(call.name).or_default() += 1;
            assert!(
                call.leaves_disks_alone(front_name),
                "the process made this call: {line}"
            );
        }
    }
    println!("{done:?}; traced: {calls:?}");
    // The trace is complete, so it contains at least the calls that the work needs.
    let least = [
        // A long stream passes in and out of a pipe at least once.
        ("splice", 2 * done.of(Kind::Long)),
        // One call writes each log line.
        ("write", coracle.log().len() as u64),
        // One or more calls write each response of the admin endpoint.
        ("writev", done.answers),
    ];
    let n = |name: &str| calls.get(name).copied().unwrap_or(0);
    for (name, wanted) in least {
        assert!(
            wanted > 0 && n(name) >= wanted,
            "{} calls of {name} traced, expected at least {wanted} for {done:?}; traced: {calls:?}",
            n(name)
        );
    }
    let opened = n("openat") + n("open");
    assert!(opened > 3, "files opened: {opened}; traced: {calls:?}");
    assert_eq!(n("unlink") + n("unlinkat"), 1, "the socket's file");
}

/// How much the kernel says that the process has written to disk, or queued for it; `None` if it
/// keeps no account.
fn written_bytes(coracle: &Coracle) -> Option<String> {
    let account = std::fs::read_to_string(format!("/proc/{}/io", coracle.pid())).ok()?;
    let line = account
        .lines()
        .find(|line| line.starts_with("write_bytes:"));
    line.map(str::to_owned)
}

/// One line of the trace: a call as it begins. Its result does not matter.
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Call<'a> {
    /// `123  write(2<pipe:[45]>, ""..., 80) = 80`; `None` for exits of processes and resumed halves
    /// of calls.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, call) = line.split_once(' ')?;
        let (name, arguments) = call.trim_start().split_once('(')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(is_name)).then_some(Self { name, arguments })
    }

    /// `front` is the one file it creates, a socket's.
    fn leaves_disks_alone(&self, front: &str) -> bool {
        let begin = |n| self.arguments.split(", ").nth(n).unwrap_or_default();
        match self.name {
            name if LOOKING.contains(&name) => true,
            "open" | "openat" => !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
                .iter()
                .any(|flag| self.arguments.contains(flag)),
            "write" | "writev" => is_no_file(begin(0)),
            "splice" => is_no_file(begin(2)),
            "bind" => !self.arguments.contains("AF_UNIX") || self.arguments.contains(front),
            "unlink" | "unlinkat" => self.arguments.contains(&format!("\"{front}\"")),
            _ => false,
        }
    }
}

/// `7<socket:[123]>` and the like. Standard error is a pipe here.
fn is_no_file(descriptor: &str) -> bool {
    let Some((_, what)) = descriptor.split_once('<') else {
        return false;
    };
    ["socket:[", "pipe:[", "anon_inode:[eventfd"]
        .iter()
        .any(|kind| what.starts_with(kind))
}

/// What was done during the busy phase.
#[derive(Debug)]
struct Done {
    rounds: u64,
    /// Answered scrapes and audits.
    answers: u64,
}

impl Done {
    /// How many connections of this kind there were.
    fn of(&self, kind: Kind) -> u64 {
        let in_one = KINDS.iter().filter(|other| **other == kind).count() as u64;
        self.rounds * WORKERS * in_one
    }
}

/// Short and long connections over TCP and a Unix socket, refused ones, scrapes and audits, all at
/// once.
fn be_busy(coracle: &Coracle, front: &Path, rounds: u64) -> Done {
    let mut rng = rng::from_env();
    let (address, nowhere) = (coracle.address("e"), coracle.address("nowhere"));
    let scraper = Scraper::start(coracle.admin);
    let held = TcpStream::connect(address).unwrap();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let mut rng = rng.fork();
            scope.spawn(move || {
                for _ in 0..rounds {
                    let mut kinds = KINDS;
                    rng.shuffle(&mut kinds);
                    for kind in kinds {
                        live(kind, address, nowhere, front, &mut rng);
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..rounds * AUDITS {
                let (status, _, body) = get(coracle.admin, "/api/v1/agreement");
                assert_eq!(status, 200, "{body}");
            }
        });
    });
    drop(held);
    until("enough scrapes are answered", || {
        (scraper.checked() >= rounds * SCRAPES).then_some(())
    });
    let answers = scraper.stop() + rounds * AUDITS;
    Done { rounds, answers }
}

fn live(kind: Kind, address: SocketAddr, nowhere: SocketAddr, front: &Path, rng: &mut Rng) {
    let tcp = |address| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        stream
    };
    let read_all = |stream: &mut dyn Read| std::io::copy(stream, &mut std::io::sink()).unwrap();
    let n = rng.usize(..30_000);
    match kind {
        Kind::Long => {
            let mut stream = tcp(address);
            stream
                .write_all(&Script::SendAndClose.request(LONG_BYTES as u64))
                .unwrap();
            assert_eq!(read_all(&mut stream), LONG_BYTES as u64);
        }
        Kind::Unix => {
            let mut stream = UnixStream::connect(front).unwrap();
            stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
            stream
                .write_all(&Script::SendAndClose.request(n as u64))
                .unwrap();
            assert_eq!(read_all(&mut stream), n as u64);
        }
        Kind::Refused => assert!(tcp(nowhere).read(&mut [0]).is_err(), "a server answers"),
        Kind::Answered => {
            let mut stream = tcp(address);
            stream
                .write_all(&Script::AnswerAfterEnd.request(n as u64))
                .unwrap();
            stream.write_all(&pattern(n)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut stream), n as u64);
        }
    }
}
