//! The file that keeps what clients have used over a restart. A thread of its own reads and writes
//! it, so that a slow disk delays nothing.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use smol::channel::{Receiver, Sender, bounded, unbounded};

use crate::state::{AccountNumbers, Damage, Saved};
use crate::sys;

/// The thread's stack size.
const STACK_BYTES: usize = 256 * 1024;
/// More than the largest table takes.
const MOST_BYTES: u64 = 16 << 20;

/// What the file had when it was opened; nothing if there was none.
#[derive(Debug)]
pub(super) struct Loaded(pub(super) Option<Saved>);

#[derive(Debug)]
enum Work {
    Save(Box<AccountNumbers>, u64),
    Tell(Sender<()>),
}

/// The file, and the thread that has it. The thread ends with this, after what it has to write.
#[derive(Debug)]
pub(super) struct AccountFile {
    path: PathBuf,
    work: Sender<Work>,
    loaded: Receiver<Loaded>,
    /// Whether what the file had is in the table, so that writing loses nothing.
    may_be_written: Cell<bool>,
}

impl AccountFile {
    /// Starts the thread, which reads the file first.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let (work, todo) = unbounded();
        let (tell, loaded) = bounded(1);
        let own = path.clone();
        sys::thread::spawn("accounts", STACK_BYTES, move || {
            let Some(saved) = load(&own) else {
                return;
            };
            // The receiver may be gone.
            let _ = tell.try_send(Loaded(saved));
            write_each(&own, &todo);
        })?;
        Ok(Self {
            path,
            work,
            loaded,
            may_be_written: Cell::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for what the file had. Returns `None` if it cannot be read, or was taken already.
    pub(super) async fn loaded(&self) -> Option<Loaded> {
        match self.may_be_written.get() {
            true => None,
            false => self.loaded.recv().await.ok(),
        }
    }

    pub(super) fn may_be_written(&self) {
        self.may_be_written.set(true);
    }

    /// Has this written, if what the file had is in it.
    pub(super) fn save(&self, numbers: AccountNumbers, wall: u64) {
        if self.may_be_written.get() {
            // The thread is gone if the file cannot be read.
            let _ = self.work.try_send(Work::Save(Box::new(numbers), wall));
        }
    }

    /// Waits until everything is written.
    pub(super) async fn written(&self) {
        let (tell, told) = bounded(1);
        if self.work.try_send(Work::Tell(tell)).is_ok() {
            let _ = told.recv().await;
        }
    }
}

/// Reads the file. Returns `None` if that fails, so that nothing may be written.
fn load(path: &Path) -> Option<Option<Saved>> {
    let name = path.display();
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Some(None),
        Err(error) => {
            log::warn!(target: "setup", "accounting: cannot read {name}: {error}; what clients use is not saved");
            return None;
        }
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| Damage {
        line: 1,
        why: "it is not text",
    });
    match text.and_then(Saved::parse) {
        Ok(saved) => Some(Some(saved)),
        Err(Damage { line, why }) => {
            let aside = beside(path, ".damaged");
            match fs::rename(path, &aside) {
                Ok(()) => {
                    let aside = aside.display();
                    log::warn!(target: "setup", "accounting: {name}:{line}: {why}; the file is damaged and now called {aside}; counting begins anew");
                    Some(None)
                }
                Err(error) => {
                    log::warn!(target: "setup", "accounting: {name}:{line}: {why}; the file is damaged and cannot be renamed: {error}; what clients use is not saved");
                    None
                }
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One that is larger is damaged: its end is missing.
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_each(path: &Path, todo: &Receiver<Work>) {
    let mut has_failed = false;
    while let Ok(work) = todo.recv_blocking() {
        let (numbers, wall) = match work {
            Work::Save(numbers, wall) => (numbers, wall),
            Work::Tell(tell) => {
                let _ = tell.try_send(());
                continue;
            }
        };
        let failed = write(path, &numbers.text(wall)).err();
        match &failed {
            Some(error) if !has_failed => {
                log::warn!(
                    "accounting: cannot write {}: {error}; the file keeps what it had, and coracle tries again",
                    path.display()
                );
            }
            None if has_failed => log::info!("accounting: {} is written again", path.display()),
            _ => {}
        }
        has_failed = failed.is_some();
    }
}

/// Replaces the file, so that it is whole at every moment, whatever ends the program or the machine.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, ".new");
    let written = write_to(&new, text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // It would keep a full disk full.
        let _ = fs::remove_file(&new);
    }
    written?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)?.sync_all()
}

fn write_to(new: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Who uses how much is nobody else's business.
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}
