//! Configurations with random errors, thrown at running programs: each reload applies fully or not
//! at all. The state after it is that of a fresh start with the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use coracle::config::{Config, Listen};
use tempfile::TempDir;

use super::asked;
use super::support::metrics::Metrics;
use super::support::process::{Coracle, binary};
use super::support::rng::{self, Rng};
use super::support::{self, lasting_address, namespace, until_ok};

/// Programs that reload side by side: each mostly waits, above all where it watches its file.
const PROGRAMS: usize = 4;

/// Where the sockets are within a program's directory: so deep that no two slips in a path lead out of
/// that directory to another one that exists.
const SOCKETS: &str = "in/side";

/// Series of the kernel's count, which is up to a second old and still names what was there then.
const OF_THE_KERNEL: [&str; 3] = [
    "coracle_accept_backlog{",
    "coracle_connection_mismatch{",
    "coracle_kernel_connections{",
];

#[test]
fn mutated_configurations_apply_fully_or_not_at_all() {
    let mutations = asked("CORACLE_MUTATIONS", 100);
    let is_watched = std::env::var("CORACLE_MUTATIONS_BY").is_ok_and(|by| by == "watch");
    let has_fresh = namespace::can_make();
    let mut rng = rng::from_env();
    let (mut good, mut bad, mut fresh) = (0, 0, 0);
    thread::scope(|scope| {
        let programs = (0..PROGRAMS).map(|n| {
            let share = mutations / PROGRAMS + usize::from(n < mutations % PROGRAMS);
            let mut subject = Subject::start(rng.fork(), is_watched, has_fresh);
            scope.spawn(move || {
                (0..share).for_each(|n| subject.try_mutation(n));
                subject.finish()
            })
        });
        for program in programs.collect::<Vec<_>>() {
            let sums = program.join().unwrap();
            (good, bad, fresh) = (good + sums.good, bad + sums.bad, fresh + sums.fresh);
        }
    });
    println!(
        "{mutations} mutations: {good} took effect, {bad} were refused; {fresh} states compared with fresh starts"
    );
    assert!(good > 0 && bad > 0);
    assert_eq!(good + bad, mutations);
    assert_eq!(fresh, if has_fresh { good } else { 0 });
}

/// How many mutations ended how.
#[derive(Clone, Copy, Default)]
struct Sums {
    good: usize,
    bad: usize,
    /// The good ones that were compared with a fresh start.
    fresh: usize,
}

/// A running program and its configuration.
struct Subject {
    rng: Rng,
    is_watched: bool,
    has_fresh: bool,
    /// Has all sockets, in [`SOCKETS`].
    directory: TempDir,
    /// What no mutation touches, in one line: the admin endpoint stays.
    head: String,
    base: String,
    coracle: Coracle,
    in_force: Config,
    sums: Sums,
    /// Accepts connections and keeps silent.
    _server: UnixListener,
}

/// What can be seen of a program's configuration from outside.
#[derive(Debug, PartialEq)]
struct State {
    /// Each entrypoint with its addresses.
    listening: BTreeSet<(String, String)>,
    /// The names and labels of all metrics.
    series: BTreeSet<String>,
    /// The mode and the group of each Unix socket's file.
    files: BTreeMap<PathBuf, (u32, u32)>,
}

impl Subject {
    fn start(mut rng: Rng, is_watched: bool, has_fresh: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let sockets = directory.path().join(SOCKETS);
        fs::create_dir_all(&sockets).unwrap();
        let path = |name: &str| sockets.join(name).display().to_string();
        let admin = lasting_address(&mut rng);
        let [a, b, c] = [(); 3].map(|()| lasting_address(&mut rng));
        // Servers are sockets, so that no mutation makes a name to resolve.
        let to = format!("unix:{}", path("to.sock"));
        let base = format!(
            "drain_timeout = \"5s\"\n\
             [log]\nlevel = \"info\"\n\
             [entrypoints.web]\nlisten = [\"{a}\", \"{b}\"]\nservice = \"s\"\nidle_timeout = \"1h\"\n\
             [entrypoints.ssh]\nlisten = \"{c}\"\nto = \"{to}\"\nhalf_close_timeout = \"20s\"\n\
             routes = [{{ from = \"10.0.0.0/8\", service = \"s\" }}, {{ name = \"n\", sni = \"*.lan\", service = \"s\" }}]\n\
             [entrypoints.local]\nlisten = \"unix:{}\"\nto = \"{to}\"\nsocket_mode = \"0660\"\n\
             [services.s]\nservers = [\"{to}\", \"{to}2\"]\nconnect_timeout = \"5s\"\n",
            path("local.sock"),
        );
        // The harness looks for a table [admin].
        let head = format!(
            "watch = {is_watched}\nadmin = {{ listen = \"{admin}\", socket = \"{}\" }} # [admin]\n",
            path("control.sock")
        );
        let text = format!("{head}{base}");
        let coracle = Coracle::start(&text);
        Self {
            in_force: parse(&coracle, &text).unwrap(),
            _server: UnixListener::bind(path("to.sock")).unwrap(),
            rng,
            is_watched,
            has_fresh,
            directory,
            head,
            base,
            coracle,
            sums: Sums::default(),
        }
    }

    /// Reloads the text. Returns true if it took effect.
    fn reload(&self, text: &str) -> bool {
        match self.is_watched {
            true => self.coracle.reload_watched(text),
            false => self.coracle.reload(text),
        }
    }

    fn try_mutation(&mut self, n: usize) {
        let text = format!("{}{}", self.head, mutate(&mut self.rng, &self.base));
        match (self.reload(&text), parse(&self.coracle, &text)) {
            (true, Ok(config)) => {
                self.in_force = config;
                self.sums.good += 1;
                self.compare(&text);
            }
            (true, Err(why)) => panic!("mutation {n} is invalid but took effect: {why}\n{text}"),
            // A valid configuration may still need something unavailable, such as another machine's
            // address.
            (false, _) => self.sums.bad += 1,
        }
        let control = self.control();
        assert_eq!(listening(&control), expected(&self.in_force), "{text}");
    }

    /// Checks that the configuration that just took effect left nothing out.
    fn compare(&mut self, text: &str) {
        let dry_run = Command::new(binary())
            .args(["reload", "--dry-run", "--socket"])
            .arg(self.control())
            .output()
            .unwrap();
        let said = [dry_run.stdout, dry_run.stderr].concat();
        assert_eq!(
            String::from_utf8_lossy(&said),
            "nothing would change\n",
            "{text}"
        );
        if self.has_fresh {
            let fresh = self.start_fresh(text);
            let root = PathBuf::from(format!("/proc/{}/root", fresh.pid()));
            let fresh = state(&root, &self.control());
            until_ok(
                &format!("it is as if started with this file: {text}"),
                || {
                    let state = state(Path::new("/"), &self.control());
                    let differs = || format!("reloaded: {state:#?}, started: {fresh:#?}");
                    (state == fresh).then_some(()).ok_or_else(differs)
                },
            );
            self.sums.fresh += 1;
        }
    }

    /// Starts another program with the same configuration, for which all addresses and paths are
    /// free.
    fn start_fresh(&self, text: &str) -> Coracle {
        let script = "ip link set lo up && mount -t tmpfs none \"$DIRECTORY\" && \
            mkdir -p \"$DIRECTORY/$SOCKETS\" && exec \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", script]);
        command.arg(binary());
        command.env("DIRECTORY", self.directory.path());
        command.env("SOCKETS", SOCKETS);
        Coracle::start_by(command, text)
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join(SOCKETS).join("control.sock")
    }

    /// Checks that the program still works normally, and that what cannot be seen is applied, too: a
    /// timeout and the log's level.
    fn finish(mut self) -> Sums {
        let whole = |base: &str| format!("{}{base}", self.head);
        assert!(self.reload(&whole(&self.base)));
        let sums = self.sums;
        self.in_force = parse(&self.coracle, &whole(&self.base)).unwrap();
        let short = self.base.replace("\"1h\"", "\"100ms\"");
        let quiet = short.replace("\"info\"", "\"warn\"");
        let from = self.coracle.log().len();
        assert!(self.reload(&whole(&quiet)));
        assert!(self.reload(&whole(&quiet.replace("\"5s\"\n[log]", "\"6s\"\n[log]"))));
        let Listen::Tcp { address, .. } = self.in_force.entrypoints[0].listen[0] else {
            panic!("{:?}", self.in_force.entrypoints);
        };
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let cut = client.read(&mut [0]).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
        let metrics = scrape(&self.control());
        let cut = metrics.sum_where(
            "coracle_connections_closed_total",
            "reason=\"idle_timeout\"",
        );
        assert_eq!(cut, 1.0);
        assert!(self.reload(&whole(&self.base.replace("\"5s\"\n[log]", "\"6s\"\n[log]"))));
        self.coracle
            .logged("reloaded: log: level info instead of warn");
        let log = self.coracle.log().split_off(from);
        let is_hidden = |line: &String| line.contains("drain_timeout");
        assert!(!log.iter().any(is_hidden), "{log:#?}");
        self.coracle.assert_calm();
        sums
    }
}

fn parse(coracle: &Coracle, text: &str) -> Result<Config, String> {
    let file = coracle.file().display().to_string();
    Config::parse(&file, text, &[]).map_err(|why| why.to_string())
}

/// The state of the program whose files are below `root` and that has this control socket.
fn state(root: &Path, control: &Path) -> State {
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    let listening = listening(&below(control));
    let paths = listening
        .iter()
        .filter_map(|(_, address)| address.strip_prefix("unix:"));
    let paths = paths.map(PathBuf::from).chain([control.to_owned()]);
    let files = paths.map(|path| {
        let meta = fs::metadata(below(&path)).unwrap();
        (path, (meta.mode(), meta.gid()))
    });
    let files = files.collect();
    let series = scrape(&below(control)).0.into_keys();
    let is_own = |series: &String| !OF_THE_KERNEL.iter().any(|it| series.starts_with(it));
    State {
        listening,
        series: series.filter(is_own).collect(),
        files,
    }
}

/// Fetches `/metrics` over a control socket.
fn scrape(control: &Path) -> Metrics {
    let mut stream = UnixStream::connect(control).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    Metrics::parse(body)
}

/// The addresses of each entrypoint, as `audit --json` lists what a program listens on.
fn listening(control: &Path) -> BTreeSet<(String, String)> {
    let audit = Command::new(binary())
        .args(["audit", "--json", "--admin"])
        .arg(format!("unix:{}", control.display()))
        .output()
        .unwrap();
    let text = String::from_utf8(audit.stdout).unwrap();
    let audit: serde_json::Value = serde_json::from_str(&text).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let all = audit["listening"].as_array().unwrap();
    all.iter()
        .map(|it| (text(&it["entrypoint"]), text(&it["address"])))
        .collect()
}

/// The same for a configuration, as a program that starts with it would have it.
fn expected(config: &Config) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for entrypoint in &config.entrypoints {
        for listen in &entrypoint.listen {
            let address = match listen {
                Listen::Tcp { address, .. } => address.to_string(),
                Listen::Unix(path) => format!("unix:{}", path.display()),
            };
            all.insert((entrypoint.name.clone(), address));
        }
    }
    all
}

/// A change as a typing slip, a broken disk or a bad script makes it.
fn mutate(rng: &mut Rng, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=rng.u64(..2) {
        let at = rng.usize(..bytes.len().max(1));
        let line = |bytes: &[u8]| {
            let begin = bytes[..at]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |i| i + 1);
            let end = bytes[at..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(bytes.len(), |i| at + i + 1);
            begin..end
        };
        match rng.u64(..14) {
            0 => bytes.truncate(at),
            1 => bytes[at] = rng.u8(..),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, b"[]\"=#.\n1"[rng.usize(..8)]),
            4 => drop(bytes.drain(line(&bytes))),
            5 => {
                let copy = bytes[line(&bytes)].to_vec();
                bytes.splice(at..at, copy);
            }
            6..=12 => {
                // Another digit, so that many mutations remain valid.
                let digits: Vec<_> = (0..bytes.len())
                    .filter(|i| bytes[*i].is_ascii_digit())
                    .collect();
                if !digits.is_empty() {
                    let digit = digits[rng.usize(..digits.len())];
                    bytes[digit] = b'0' + rng.u8(..10);
                }
            }
            _ => {
                let word = [
                    "\nwatch = true\n",
                    "keepalive = \"off\"\n",
                    "\n[entrypoints.x]\n",
                    "\u{feff}",
                    "é",
                ];
                let word = word[rng.usize(..5)].bytes();
                bytes.splice(at..at, word);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
