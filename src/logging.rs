//! Log lines on stderr: logfmt, bounded per cause, written by a thread of their own so that a blocked stderr blocks nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Lines that wait while stderr takes none. What comes after is dropped and counted.
const QUEUE_LINES: usize = 1024;
/// The span over which lines of one cause are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// Lines of one cause that are written in a window.
const LINES_PER_WINDOW: u32 = 10;
/// Access lines that are written in a window: each is news, but a flood of them is not.
const ACCESS_LINES_PER_WINDOW: u32 = 1000;
/// How long the end of the program waits for stderr to take what is queued.
const FLUSH: Duration = Duration::from_secs(1);

/// Installs the logger. Everything logged before is lost, so call it first. With `access`, access lines are written whatever
/// the level.
///
/// # Panics
/// When a logger is installed already, or no thread can be started.
pub fn install(level: LevelFilter, access: bool) {
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    let style = Style::of_stderr();
    let logger: &'static Logger = Box::leak(Box::new(Logger {
        style,
        level,
        sender,
        dropped: AtomicU64::new(0),
        causes: Mutex::default(),
    }));
    let installed = log::set_logger(logger);
    installed.expect("the logger is installed once");
    let access_level = if access {
        LevelFilter::Info
    } else {
        LevelFilter::Off
    };
    log::set_max_level(level.max(access_level));
    let thread = std::thread::Builder::new().name("log".into());
    // It formats nothing: a small stack does.
    let started = thread
        .stack_size(64 * 1024)
        .spawn(move || logger.write_lines(&receiver));
    started.expect("the log thread starts");
    // The default hook writes to stderr, which may block.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// How a line begins and which fields it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// With the time and the level as fields.
    Plain,
    /// With the priority that journald reads (sd-daemon(3)); it keeps the time itself.
    Journal,
}

impl Style {
    /// systemd names the device and inode of the stream that it reads in JOURNAL_STREAM (systemd.exec(5)).
    fn of_stderr() -> Self {
        let named = std::env::var("JOURNAL_STREAM").ok();
        let stderr = rustix::fs::fstat(std::io::stderr()).ok();
        let is_journal = named
            .zip(stderr)
            .is_some_and(|(named, stderr)| named == format!("{}:{}", stderr.st_dev, stderr.st_ino));
        if is_journal {
            Self::Journal
        } else {
            Self::Plain
        }
    }
}

/// What goes to the log thread.
enum Message {
    Line(String),
    /// Answer when all before this has been written.
    Flush(SyncSender<()>),
}

struct Logger {
    style: Style,
    level: LevelFilter,
    sender: SyncSender<Message>,
    dropped: AtomicU64,
    causes: Mutex<HashMap<Cause, Window>>,
}

/// A place in the source: all that it logs has one cause.
type Cause = (&'static str, u32);

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    suppressed: u64,
    what: String,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level || metadata.target() == "access"
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || is_foreign_noise(record) {
            return;
        }
        let Some(suppressed) = self.admit(record, Instant::now()) else {
            return;
        };
        self.send(self.style.line(record, suppressed, SystemTime::now()));
    }

    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        let deadline = Instant::now() + FLUSH;
        let mut message = Message::Flush(done);
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
            message = back;
        }
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Logger {
    /// Whether this line may be written; if so, how many like it were left out before.
    fn admit(&self, record: &Record<'_>, now: Instant) -> Option<u64> {
        let cause = (
            record.file_static().unwrap_or_default(),
            record.line().unwrap_or(0),
        );
        let limit = match record.target() {
            "access" => ACCESS_LINES_PER_WINDOW,
            _ => LINES_PER_WINDOW,
        };
        let mut causes = self
            .causes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let window = causes.entry(cause).or_insert_with(|| Window {
            began: now,
            written: 0,
            suppressed: 0,
            what: String::new(),
        });
        if now.saturating_duration_since(window.began) >= WINDOW {
            window.began = now;
            window.written = 0;
        }
        if window.written >= limit {
            if window.suppressed == 0 {
                window.what = record.args().to_string();
            }
            window.suppressed += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.suppressed))
    }

    fn send(&self, line: String) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The log thread: the only one that a blocked stderr can block.
    fn write_lines(&self, receiver: &Receiver<Message>) {
        let mut told = Instant::now();
        loop {
            match receiver.recv_timeout(WINDOW) {
                Ok(Message::Line(line)) => {
                    write_stderr(&line);
                    if told.elapsed() >= WINDOW {
                        told = Instant::now();
                        self.write_suppressed(false);
                    }
                }
                Ok(Message::Flush(done)) => {
                    self.write_suppressed(true);
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.write_suppressed(false);
                    if self.nothing_suppressed() {
                        // Sleeps for good until there is a line, so that an idle proxy never wakes.
                        match receiver.recv() {
                            Ok(Message::Line(line)) => write_stderr(&line),
                            Ok(Message::Flush(done)) => drop(done.try_send(())),
                            Err(_) => return,
                        }
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let text = "lines were dropped because nobody read stderr";
                write_stderr(&self.style.plain_line(Level::Warn, text, dropped));
            }
        }
    }

    fn nothing_suppressed(&self) -> bool {
        let causes = self
            .causes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        causes.values().all(|window| window.suppressed == 0)
    }

    /// Tells how many lines were left out by windows that have ended since.
    fn write_suppressed(&self, all: bool) {
        let now = Instant::now();
        let mut lines = Vec::new();
        {
            let mut causes = self
                .causes
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            for window in causes.values_mut() {
                let over = all || now.saturating_duration_since(window.began) >= WINDOW;
                if over && window.suppressed > 0 {
                    let suppressed = std::mem::take(&mut window.suppressed);
                    let text = format!("more lines were left out like: {}", window.what);
                    lines.push(self.style.plain_line(Level::Warn, &text, suppressed));
                }
            }
        }
        lines.iter().for_each(|line| write_stderr(line));
    }
}

/// The libraries' own debugging talk, at every event of the loop, which would drown ours.
fn is_foreign_noise(record: &Record<'_>) -> bool {
    let ours = record.target().starts_with("coracle") || record.target() == "access";
    !ours && record.level() > Level::Warn
}

fn write_stderr(line: &str) {
    // There is nowhere to report that stderr is gone.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

impl Style {
    fn line(self, record: &Record<'_>, suppressed: u64, time: SystemTime) -> String {
        let mut line = String::with_capacity(160);
        self.begin(&mut line, record.level(), time);
        field(&mut line, "msg", &record.args().to_string());
        let _ = record.key_values().visit(&mut Fields(&mut line));
        end(line, suppressed)
    }

    fn plain_line(self, level: Level, text: &str, count: u64) -> String {
        let mut line = String::new();
        self.begin(&mut line, level, SystemTime::now());
        field(&mut line, "msg", text);
        end(line, count)
    }

    fn begin(self, line: &mut String, level: Level, time: SystemTime) {
        match self {
            Self::Plain => {
                let time = humantime::format_rfc3339_millis(time);
                let level = level.as_str().to_ascii_lowercase();
                let _ = write!(line, "time={time} level={level}");
            }
            Self::Journal => {
                let priority = match level {
                    Level::Error => 3,
                    Level::Warn => 4,
                    Level::Info => 6,
                    Level::Debug | Level::Trace => 7,
                };
                let _ = write!(line, "<{priority}>");
            }
        }
    }
}

fn end(mut line: String, suppressed: u64) -> String {
    if suppressed > 0 {
        field(&mut line, "suppressed", &suppressed.to_string());
    }
    line.push('\n');
    line
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        field(self.0, key.as_str(), &value.to_string());
        Ok(())
    }
}

/// Appends `key=value`, the value in quotes where it needs them.
fn field(line: &mut String, key: &str, value: &str) {
    if !line.is_empty() && !line.ends_with('>') {
        line.push(' ');
    }
    line.push_str(key);
    line.push('=');
    let is_bare = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(is_bare) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logfmt_and_cannot_be_broken_by_its_values() {
        let pairs = [
            ("entrypoint", "a b"),
            ("peer", "[::1]:80"),
            ("odd", "x\"\n\u{7}="),
        ];
        let args = format_args!("closed");
        let record = Record::builder()
            .args(args)
            .level(Level::Info)
            .key_values(&pairs)
            .build();
        let line = Style::Plain.line(&record, 3, SystemTime::UNIX_EPOCH);
        assert_eq!(
            line,
            "time=1970-01-01T00:00:00.000Z level=info msg=closed entrypoint=\"a b\" peer=[::1]:80 \
             odd=\"x\\\"\\n\\u0007=\" suppressed=3\n"
        );
        let line = Style::Journal.line(&record, 0, SystemTime::UNIX_EPOCH);
        assert!(line.starts_with("<6>msg=closed entrypoint="), "{line}");
    }

    #[test]
    fn one_cause_writes_a_bounded_number_of_lines_and_tells_what_it_left_out() {
        let (sender, _receiver) = sync_channel(1);
        let logger = Logger {
            style: Style::Plain,
            level: LevelFilter::Info,
            sender,
            dropped: AtomicU64::new(0),
            causes: Mutex::default(),
        };
        let record = |line| {
            Record::builder()
                .args(format_args!("x"))
                .file_static(Some("a.rs"))
                .line(Some(line))
                .build()
        };
        let now = Instant::now();
        let written = (0..100)
            .filter(|_| logger.admit(&record(1), now).is_some())
            .count();
        assert_eq!(written, LINES_PER_WINDOW as usize);
        assert_eq!(logger.admit(&record(2), now), Some(0), "another cause");
        assert_eq!(logger.admit(&record(1), now + WINDOW), Some(90));
        assert_eq!(logger.admit(&record(1), now + WINDOW), Some(0));
    }
}
