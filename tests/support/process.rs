//! A coracle in its own process: started from a configuration, watched through its log, ended with
//! the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, until};

/// A running coracle.
pub struct Coracle {
    child: Child,
    /// Its admin endpoint; `0.0.0.0:0` if that is off.
    pub admin: SocketAddr,
    addresses: HashMap<String, Vec<String>>,
    log: Arc<Mutex<Vec<String>>>,
    config: tempfile::NamedTempFile,
}

/// How to start one.
pub struct Start<'a> {
    /// The configuration. An admin endpoint is added if it has none.
    pub config: &'a str,
    /// `ulimit -n`, soft and hard.
    pub descriptors: Option<u64>,
}

impl Coracle {
    /// Starts the binary with this configuration and waits until it is ready.
    pub fn start(config: &str) -> Self {
        Self::start_with(&Start {
            config,
            descriptors: None,
        })
    }

    pub fn start_with(start: &Start<'_>) -> Self {
        let command = match start.descriptors {
            None => Command::new(binary()),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
                shell.arg(binary());
                shell
            }
        };
        Self::start_by(command, start.config)
    }

    /// Starts it through a command that ends with the binary and becomes it: a program that kept
    /// the process would take its signals.
    pub fn start_by(mut command: Command, config: &str) -> Self {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(config.as_bytes()).unwrap();
        if !config.contains("[admin]") {
            file.write_all(b"\n[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"off\"\n")
                .unwrap();
        }
        command.arg("run").arg("-c").arg(file.path());
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let lines = follow(&mut child, log.clone());
        let mut addresses: HashMap<String, Vec<String>> = HashMap::new();
        let mut admin = None;
        loop {
            let Ok(line) = lines.recv_timeout(DEADLINE) else {
                let _ = child.kill();
                panic!(
                    "it did not become ready; output: {:#?}",
                    log.lock().unwrap()
                );
            };
            let value = |key: &str| field(&line, key);
            match field(&line, "msg").as_deref() {
                Some("listening") => {
                    let entrypoint = value("entrypoint").unwrap();
                    let listening = addresses.entry(entrypoint).or_default();
                    listening.push(value("address").unwrap());
                }
                Some("admin endpoint listening") => admin = value("address"),
                Some("ready") => break,
                _ => {}
            }
        }
        Self {
            child,
            admin: match admin {
                Some(address) => address.parse().unwrap(),
                None if config.contains("listen = \"off\"") => ([0; 4], 0).into(),
                None => panic!("no admin endpoint"),
            },
            addresses,
            log,
            config: file,
        }
    }

    /// The first address of an entrypoint.
    pub fn address(&self, entrypoint: &str) -> SocketAddr {
        self.addresses[entrypoint][0].parse().unwrap()
    }

    /// All TCP addresses of an entrypoint.
    pub fn addresses(&self, entrypoint: &str) -> Vec<SocketAddr> {
        self.addresses[entrypoint]
            .iter()
            .map(|address| address.parse().unwrap())
            .collect()
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        self.config.path()
    }

    /// Replaces its configuration by a rename, as most editors do.
    pub fn write_config(&self, config: &str) {
        let new = self.file().with_extension("new");
        std::fs::write(&new, config).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Makes it reload this configuration, whose admin endpoint must be where it was. Returns true
    /// if it took effect.
    pub fn reload(&self, config: &str) -> bool {
        self.reloaded(config, || self.signal(Signal::HUP))
    }

    /// The same for a coracle that watches the file.
    pub fn reload_watched(&self, config: &str) -> bool {
        self.reloaded(config, || ())
    }

    fn reloaded(&self, config: &str, tell: impl FnOnce()) -> bool {
        let loaded = || {
            let metrics = super::metrics::scrape(self.admin);
            metrics.sum("coracle_config_last_reload_success_timestamp_seconds")
        };
        let refused = || {
            self.log()
                .iter()
                .filter(|line| line.contains("not reloaded:"))
                .count()
        };
        let before = (loaded(), refused());
        self.write_config(config);
        tell();
        until("it has reloaded its configuration", || {
            if refused() > before.1 {
                return Some(false);
            }
            (loaded() != before.0).then_some(true)
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it, and waits until it no longer runs: a thread can be slow to notice the signal, and
    /// have taken note of something until then.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid());
        until("each of its threads has stopped", || {
            let mut tasks = std::fs::read_dir(&tasks).unwrap().flatten();
            let has_stopped = |task: std::fs::DirEntry| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ")
                    .is_some_and(|(_, rest)| rest.starts_with('T'))
            };
            tasks.all(has_stopped).then_some(())
        });
    }

    /// Waits for it to exit.
    pub fn wait(&mut self) -> ExitStatus {
        until("the process ends", || self.child.try_wait().unwrap())
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log line that contains `text`.
    pub fn logged(&self, text: &str) -> String {
        until(&format!("a log line with {text:?}"), || {
            self.log().into_iter().find(|line| line.contains(text))
        })
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(path).unwrap().count()
    }

    /// The names of its threads, in the order of their IDs.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let mut tasks: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
        tasks.sort_by_key(|task| {
            task.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        });
        let name = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm"));
        tasks
            .iter()
            .map(|task| name(task).unwrap().trim().to_owned())
            .collect()
    }

    /// The inodes in its epoll sets, as the kernel shows them (proc_pid_fdinfo(5)).
    pub fn watched(&self) -> Vec<u64> {
        let folder = std::fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        let texts = folder
            .flatten()
            .filter_map(|it| std::fs::read_to_string(it.path()).ok());
        let inode = |line: &str| {
            let (_, inode) = line.strip_prefix("tfd:")?.split_once("ino:")?;
            u64::from_str_radix(inode.split_whitespace().next()?, 16).ok()
        };
        texts
            .flat_map(|text| text.lines().filter_map(inode).collect::<Vec<_>>())
            .collect()
    }

    /// How many descriptors it has open while its admin endpoint has no client.
    pub fn settled_descriptors(&self) -> usize {
        until("the admin clients are gone", || {
            (super::kernel::connections(self.admin) == 0).then(|| self.descriptors())
        })
    }

    /// Checks that it uses almost no CPU with nothing to do: it sleeps or backs off, and none of
    /// its loops spins.
    ///
    /// Rest is no event to wait for, so this is the one check over a span of time. It compares CPU
    /// time: load takes some from a spinning loop (the whole span on an idle machine) and adds none
    /// to a resting one (a few milliseconds). A slow or busy machine may therefore miss a fault,
    /// but never reports a false one.
    pub fn assert_calm(&self) {
        const WATCHED: Duration = Duration::from_secs(2);
        const NEXT_TO_NOTHING: Duration = Duration::from_millis(500);
        let before = self.cpu_time();
        std::thread::sleep(WATCHED);
        let used = self.cpu_time() - before;
        assert!(
            used < NEXT_TO_NOTHING,
            "{used:?} of CPU with nothing to do, over at least {WATCHED:?}"
        );
    }

    /// The CPU time of all its threads, including those that have ended, in ticks of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name in parentheses, utime and stime are fields 12 and 13 (proc_pid_stat(5)).
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|n| n.parse::<u64>().unwrap())
            .sum();
        Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap()
    }
}

impl Drop for Coracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let last = &log[log.len().saturating_sub(30)..];
            eprintln!("coracle's last lines: {last:#?}");
        }
    }
}

/// The binary under test; CORACLE_BINARY selects another, such as an emulated one.
pub fn binary() -> String {
    let built = env!("CARGO_BIN_EXE_coracle").to_owned();
    std::env::var("CORACLE_BINARY").unwrap_or(built)
}

/// Collects its log lines and sends them on.
pub fn follow(child: &mut Child, log: Arc<Mutex<Vec<String>>>) -> Receiver<String> {
    let (sender, receiver) = channel();
    let stderr = child.stderr.take().unwrap();
    assert!(stderr.as_raw_fd() > 2);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line.clone());
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The value of a logfmt field.
fn field(line: &str, key: &str) -> Option<String> {
    let start = line.find(&format!("{key}="))? + key.len() + 1;
    let rest = &line[start..];
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split_whitespace().next()?,
    };
    Some(value.to_owned())
}
