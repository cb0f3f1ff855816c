//! The process under test, held before its configuration until a tracer attaches, and observed from
//! outside.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::server::{self, Violations};
use super::traffic::Targets;
use crate::support::process::{binary, follow};
use crate::support::rng::Rng;
use crate::support::{DEADLINE, backend, lasting_address, until};

pub struct Subject {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Closed when all of its output is in the log.
    log_open: Receiver<String>,
    pub targets: Targets,
    config: String,
    fifo: Option<std::fs::File>,
    _dir: tempfile::TempDir,
    _refusing: socket2::Socket,
}

/// How many descriptors of each kind a process has.
pub type Descriptors = BTreeMap<String, usize>;

impl Subject {
    /// Starts the program with its configuration in a FIFO. Returns once it reads from there.
    pub fn start(violations: &Violations, rng: &mut Rng) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("coracle.toml");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        let server = server::start(violations);
        let server_path = dir.path().join("server.sock");
        server::start_unix(&server_path, violations);
        let refusing = backend::bound_but_not_listening();
        let nowhere = refusing.local_addr().unwrap().as_socket().unwrap();
        let unix = dir.path().join("front.sock");
        // Chosen here, since the log that would name them may be what fails.
        let [direct, name, second, back, refused, admin] =
            std::array::from_fn(|_| lasting_address(rng));
        let config = format!(
            "[log]\naccess = true\n\
             [admin]\nlisten = \"{admin}\"\n\
             [entrypoints.direct]\nlisten = [\"{direct}\", \"unix:{}\"]\nto = \"{server}\"\n\
             [entrypoints.name]\nlisten = \"{name}\"\nto = \"localhost:{}\"\n\
             [entrypoints.second]\nlisten = \"{second}\"\nservice = \"second\"\n\
             [entrypoints.back]\nlisten = \"{back}\"\nto = \"unix:{}\"\nidle_timeout = \"20s\"\n\
             [entrypoints.refused]\nlisten = \"{refused}\"\nto = \"{nowhere}\"\n\
             [services.second]\nservers = [\"{nowhere}\", \"{server}\"]\n",
            unix.display(),
            server.port(),
            server_path.display(),
        );
        let mut child = Command::new(binary())
            .args(["run", "-c"])
            .arg(&fifo)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let log_open = follow(&mut child, log.clone());
        // Opening a FIFO for writing without waiting requires a reader.
        let fifo = until("the configuration is read", || {
            OpenOptions::new()
                .write(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .open(&fifo)
                .ok()
        });
        Self {
            child,
            log,
            log_open,
            targets: Targets {
                served: vec![direct, name, second, back],
                refused,
                unix,
                admin,
            },
            config,
            fifo: Some(fifo),
            _dir: dir,
            _refusing: refusing,
        }
    }

    /// Lets it read its configuration.
    pub fn configure(&mut self) {
        let mut fifo = self.fifo.take().unwrap();
        // It may have ended.
        let _ = fifo.write_all(self.config.as_bytes());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// All of its output, once it has ended.
    pub fn last_words(&self) -> Vec<String> {
        while self.log_open.recv_timeout(DEADLINE).is_ok() {}
        self.log()
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Asks it to stop and waits for it to exit.
    pub fn stop(&mut self) -> ExitStatus {
        // Once its exit is seen, its PID may belong to another process.
        if let Some(status) = self.ended() {
            return status;
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        until("it ends when asked to", || self.ended())
    }

    /// What it has open, without the numbers that tell sockets apart.
    pub fn descriptors(&self) -> Descriptors {
        let mut kinds = Descriptors::new();
        let dir = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        for entry in dir.flatten() {
            let Ok(what) = std::fs::read_link(entry.path()) else {
                continue;
            };
            let what = what.to_string_lossy().into_owned();
            let kind = what.split(":[").next().unwrap_or_default();
            let kind = kind.replace(&format!("/{}", self.pid()), "/PID");
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }

    /// Waits until it rests: over a span of time it hardly runs or waits to run, and rarely wakes.
    pub fn rests(&self) {
        const SPAN: Duration = Duration::from_millis(250);
        /// Of time on a processor or waiting for one: a spinning loop has all of it, however busy
        /// the machine is.
        const MOST: Duration = Duration::from_millis(60);
        /// Timers that it and its libraries may have fire less often.
        const WAKES: u64 = 20;
        until("it rests", || {
            let (used, wakes) = self.scheduled()?;
            std::thread::sleep(SPAN);
            let (used_later, wakes_later) = self.scheduled()?;
            let is_quiet = used_later.saturating_sub(used) < MOST.as_nanos() as u64
                && wakes_later.saturating_sub(wakes) < WAKES;
            is_quiet.then_some(())
        });
    }

    /// Nanoseconds on a processor or waiting for one, and how often it was given one, of all
    /// threads (sched-stats).
    fn scheduled(&self) -> Option<(u64, u64)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
        let mut sum = (0, 0);
        for task in tasks.flatten() {
            let Ok(line) = std::fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let mut numbers = line
                .split_whitespace()
                .map(|n| n.parse::<u64>().unwrap_or(0));
            sum.0 += numbers.next()? + numbers.next()?;
            sum.1 += numbers.next()?;
        }
        Some(sum)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
