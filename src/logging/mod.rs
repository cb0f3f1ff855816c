//! Log lines on stderr: bounded per cause, written by a thread of their own so that a blocked stderr blocks nothing.

mod flood;
mod line;
mod stderr;

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};

use flood::{Cause, Floods, WINDOW};
use line::Style;

/// Lines that wait while stderr takes none. What comes after is dropped and counted.
const QUEUE_LINES: usize = 1024;
/// The same for lines of the target `setup`: a configuration has a bounded number, and each is news.
const SETUP_QUEUE_LINES: usize = 65_536;
/// Lines of one cause about one object that are written in a window.
const LINES_PER_WINDOW: u32 = 10;
/// Access lines that are written in a window: each is news, but a flood of them is not.
const ACCESS_LINES_PER_WINDOW: u32 = 1000;
/// How long the end of the program waits for stderr to take what is queued. It may wait twice and is to end within a second.
const FLUSH: Duration = Duration::from_millis(400);

static LOGGER: OnceLock<&'static Logger> = OnceLock::new();

/// Installs the logger. Everything logged before is lost, so call it first. With `access`, access lines are written whatever
/// the level.
///
/// Lines of the target `access` have a limit of their own, and those of the target `setup`, which say how a configuration came
/// into force, have none.
///
/// # Errors
/// When no thread can be started, or a logger is installed already.
pub fn install(level: LevelFilter, access: bool) -> io::Result<()> {
    let (sender, receiver) = channel();
    let style = Style::of_stderr();
    let logger: &'static Logger = Box::leak(Box::new(Logger {
        style,
        level: AtomicU8::new(level as u8),
        sender,
        waiting: AtomicUsize::new(0),
        dropped: AtomicU64::new(0),
        floods: Mutex::default(),
    }));
    let thread = std::thread::Builder::new().name("log".into());
    // It formats nothing: a small stack does.
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

/// Writes lines of another level from now on, and access lines or none. Without a logger nothing happens.
pub fn set(level: LevelFilter, access: bool) {
    let Some(logger) = LOGGER.get() else {
        return;
    };
    logger.level.store(level as u8, Ordering::Relaxed);
    let access_level = if access {
        LevelFilter::Info
    } else {
        LevelFilter::Off
    };
    log::set_max_level(level.max(access_level));
}

/// Writes `text` to stderr as it is, after what was logged before. Whether or not somebody reads it, this returns within half a
/// second.
pub fn say(text: &str) {
    let text = format!("{text}\n");
    match LOGGER.get() {
        // The log thread alone writes, so that two never wait for the same room.
        Some(logger) => {
            logger.send(text, SETUP_QUEUE_LINES);
            logger.flush();
        }
        None => stderr::write_within(&text, FLUSH),
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
    /// A [`LevelFilter`] as a number.
    level: AtomicU8,
    sender: Sender<Message>,
    /// Lines that were sent and are not written yet.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    floods: Mutex<Floods>,
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
            let line = self.style.line(record, suppressed, SystemTime::now());
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
    /// Whether this line may be written; if so, how many like it were left out before.
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
        self.floods
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn send(&self, line: String, room: usize) {
        let is_full = self.waiting.fetch_add(1, Ordering::Relaxed) >= room;
        if is_full || self.sender.send(Message::Line(line)).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The log thread: the only one that a blocked stderr can block.
    fn write_lines(&self, receiver: &Receiver<Message>) {
        let mut told = Instant::now();
        loop {
            match receiver.recv_timeout(WINDOW) {
                Ok(message) => self.receive(message, &mut told),
                Err(RecvTimeoutError::Timeout) => {
                    told = Instant::now();
                    self.write_left_out(false);
                    if self.floods().nothing_is_left_out() {
                        // Sleeps for good until there is a line, so that an idle proxy never wakes.
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
                let text = "lines were dropped because nobody read stderr";
                stderr::write_all(&self.style.own_line(text, "", dropped));
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

    /// Tells how many lines were left out by windows that have ended since, or by all.
    fn write_left_out(&self, all: bool) {
        let left_out = self.floods().left_out(Instant::now(), all);
        for flood::LeftOut {
            what,
            object,
            count,
        } in left_out
        {
            let text = format!("more lines were left out like: {what}");
            stderr::write_all(&self.style.own_line(&text, &object, count));
        }
    }
}

/// The libraries' own debugging talk, at every event of the loop, which would drown ours.
fn is_foreign_noise(record: &Record<'_>) -> bool {
    let target = record.target();
    let is_ours = target.starts_with("coracle") || matches!(target, "access" | "setup");
    !is_ours && record.level() > Level::Warn
}
