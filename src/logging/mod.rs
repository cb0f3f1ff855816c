//! Log lines on stderr: limited per cause, and written by a dedicated thread so that a blocked
//! stderr blocks nothing else. The last ones are kept in memory too.

mod flood;
mod line;
mod stderr;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};

use flood::{Cause, Floods, WINDOW};
use line::Style;

use crate::state::LogLines;

/// Lines that may be queued while stderr is blocked. Further lines are dropped and counted.
const QUEUE_LINES: usize = 1024;
/// The same for lines with the target `setup`: a configuration has a bounded number of them, and
/// each matters.
const SETUP_QUEUE_LINES: usize = 65_536;
/// Lines with the same cause and object that are written per window.
const LINES_PER_WINDOW: u32 = 10;
/// Access lines that are written per window. Each one matters, but a flood of them does not.
const ACCESS_LINES_PER_WINDOW: u32 = 1000;
/// How long the program waits at its end for stderr to take the queued lines. It may wait twice and
/// must end within a second.
const FLUSH: Duration = Duration::from_millis(400);

static LOGGER: OnceLock<&'static Logger> = OnceLock::new();

/// Installs the logger.
///
/// Everything logged before is lost, so call this first. With `access`, access lines are written at
/// any level. Lines with the target `access` have their own limit. Lines with the target `setup`,
/// which report how a configuration came into force, have none.
///
/// # Errors
/// Returns an error if no thread can be started, or a logger is already installed.
pub fn install(level: LevelFilter, access: bool) -> io::Result<()> {
    let (sender, receiver) = channel();
    let style = Style::of_stderr();
    let logger: &'static Logger = Box::leak(Box::new(Logger {
        style,
        level: AtomicU8::new(level as u8),
        access: AtomicBool::new(access),
        sender,
        waiting: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
        floods: Mutex::default(),
        kept: Arc::default(),
    }));
    let thread = std::thread::Builder::new().name("log".into());
    // The thread formats nothing, so a small stack is enough.
    thread
        .stack_size(64 * 1024)
        .spawn(move || logger.write_lines(&receiver))?;
    log::set_logger(logger).map_err(io::Error::other)?;
    let _ = LOGGER.set(logger);
    set(level, access);
    // The default hook writes to stderr, which may block.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    Ok(())
}

/// Changes the level, and whether access lines are written. Does nothing without a logger.
pub fn set(level: LevelFilter, access: bool) {
    let Some(logger) = LOGGER.get() else {
        return;
    };
    logger.level.store(level as u8, Ordering::Relaxed);
    logger.access.store(access, Ordering::Relaxed);
    logger.kept().set_level(level);
    let access_level = if access {
        LevelFilter::Info
    } else {
        LevelFilter::Off
    };
    log::set_max_level(level.max(access_level));
}

/// Changes the level alone. Returns the one before, or `None` without a logger.
pub fn set_level(level: LevelFilter) -> Option<LevelFilter> {
    let logger = LOGGER.get()?;
    let before = logger.kept().level();
    set(level, logger.access.load(Ordering::Relaxed));
    Some(before)
}

/// Returns the last lines. They stay empty without a logger.
#[must_use]
pub fn kept() -> Arc<Mutex<LogLines>> {
    LOGGER
        .get()
        .map_or_else(Arc::default, |logger| logger.kept.clone())
}

/// Writes `text` unchanged to stderr, after everything logged before. Returns within half a second
/// even if stderr is blocked.
pub fn say(text: &str) {
    let text = format!("{text}\n");
    match LOGGER.get() {
        // Only the log thread writes, so that two threads never compete for the same space.
        Some(logger) => {
            logger.send(text, SETUP_QUEUE_LINES);
            logger.flush();
        }
        None => stderr::write_within(&text, FLUSH),
    }
}

/// A message to the log thread.
enum Message {
    Line(String),
    /// Answers once everything before this has been written.
    Flush(SyncSender<()>),
}

struct Logger {
    style: Style,
    /// A [`LevelFilter`] as a number.
    level: AtomicU8,
    /// Whether access lines are written.
    access: AtomicBool,
    sender: Sender<Message>,
    /// Lines that were sent and not yet written.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    floods: Mutex<Floods>,
    /// The last lines. Locked only for as long as it takes to add or copy some pointers.
    kept: Arc<Mutex<LogLines>>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() as u8 <= self.level.load(Ordering::Relaxed)
            || metadata.target() == "access"
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || is_foreign_noise(record) {
            return;
        }
        let (suppressed, room) = match record.target() {
            "setup" => (Some(0), SETUP_QUEUE_LINES),
            _ => (self.admit(record), QUEUE_LINES),
        };
        if let Some(suppressed) = suppressed {
            let now = SystemTime::now();
            let line = self.style.line(record, suppressed, now);
            self.kept().push(now, record.level(), line.trim_end());
            self.send(line, room);
        }
    }

    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH);
        }
    }
}

impl Logger {
    /// Returns how many similar lines were left out before, or `None` if this line is left out too.
    fn admit(&self, record: &Record<'_>) -> Option<u64> {
        let (limit, object) = match record.target() {
            "access" => (ACCESS_LINES_PER_WINDOW, String::new()),
            _ => (LINES_PER_WINDOW, line::object(record)),
        };
        let place = (
            record.file_static().unwrap_or_default(),
            record.line().unwrap_or(0),
        );
        let what = || record.args().to_string();
        self.floods()
            .admit(Cause { place, object }, limit, Instant::now(), what)
    }

    fn floods(&self) -> MutexGuard<'_, Floods> {
        self.floods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, LogLines> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line of the logger itself, on the log thread.
    fn write_own(&self, text: &str, object: &str, count: u64) {
        let line = self.style.own_line(text, object, count);
        let now = SystemTime::now();
        self.kept().push(now, Level::Warn, line.trim_end());
        stderr::write_all(&line);
    }

    fn send(&self, line: String, room: usize) {
        let is_full = self.waiting.fetch_add(1, Ordering::Relaxed) >= room;
        if is_full || self.sender.send(Message::Line(line)).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs the log thread, the only thread that a blocked stderr can block.
    fn write_lines(&self, receiver: &Receiver<Message>) {
        let mut told = Instant::now();
        loop {
            match receiver.recv_timeout(WINDOW) {
                Ok(message) => self.receive(message, &mut told),
                Err(RecvTimeoutError::Timeout) => {
                    told = Instant::now();
                    self.write_left_out(false);
                    if self.floods().nothing_is_left_out() {
                        // Sleep until there is a line, so that an idle proxy never wakes.
                        match receiver.recv() {
                            Ok(message) => self.receive(message, &mut told),
                            Err(_) => return,
                        }
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let text = "lines dropped because stderr was blocked";
                self.write_own(text, "", dropped);
            }
        }
    }

    fn receive(&self, message: Message, told: &mut Instant) {
        match message {
            Message::Line(line) => {
                stderr::write_all(&line);
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                if told.elapsed() >= WINDOW {
                    *told = Instant::now();
                    self.write_left_out(false);
                }
            }
            Message::Flush(done) => {
                self.write_left_out(true);
                let _ = done.try_send(());
            }
        }
    }

    /// Reports how many lines were left out in windows that have ended, or in all windows.
    fn write_left_out(&self, all: bool) {
        let left_out = self.floods().left_out(Instant::now(), all);
        for flood::LeftOut {
            what,
            object,
            count,
        } in left_out
        {
            let text = format!("similar lines left out: {what}");
            self.write_own(&text, &object, count);
        }
    }
}

/// Returns whether the record is debug output of a library, which comes with every event of the
/// loop and would drown out our lines.
fn is_foreign_noise(record: &Record<'_>) -> bool {
    let target = record.target();
    let is_ours = target.starts_with("coracle") || matches!(target, "access" | "setup");
    !is_ours && record.level() > Level::Warn
}
