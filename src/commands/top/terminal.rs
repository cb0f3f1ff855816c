//! The terminal: its modes and its size, and how it is put back as it was, whatever happens.

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle::client::Line;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Of a serial line, which does not know its size.
const SIZE: (usize, usize) = (80, 24);

/// The exit code after a panic, as that of every Rust program.
const PANICKED: i32 = 101;

/// Whether it is in our modes, for the panic hook.
static IS_ENTERED: AtomicBool = AtomicBool::new(false);

/// The terminal of this process. Dropping it puts it back as it was.
pub(super) struct Terminal {
    original: Termios,
    /// Whether it understands codes at all.
    is_dumb: bool,
    has_colors: bool,
    /// What it shows, as far as that is known.
    shown: Vec<String>,
}

impl Terminal {
    /// Finds the terminal.
    ///
    /// # Errors
    /// Returns one line if input or output is something else.
    pub(super) fn find() -> Result<Self, String> {
        if !isatty(stdin()) || !isatty(stdout()) {
            return Err("coracle: top needs a terminal; `coracle list` and `coracle status` print what it shows".to_owned());
        }
        let original = tcgetattr(stdin()).map_err(|error| format!("coracle: top: {error}"))?;
        let kind = std::env::var("TERM").unwrap_or_default();
        let is_dumb = kind.is_empty() || kind == "dumb";
        // A panic must not print its message onto our screen. That of a thread ends the program
        // too, which would otherwise go on without its modes, and wait for the thread's answer.
        let (modes, hook) = (original.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            put_back(&modes, is_dumb);
            hook(panic);
            std::process::exit(PANICKED);
        }));
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        Ok(Self {
            original,
            is_dumb,
            has_colors: !is_dumb && !is_plain && !kind.starts_with("vt"),
            shown: Vec::new(),
        })
    }

    /// Returns its columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => SIZE,
        }
    }

    /// Has it pass on each key at once, and saves what it shows.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        IS_ENTERED.store(true, Ordering::Relaxed);
        let mut raw = self.original.clone();
        raw.make_raw();
        // The other screen, without a cursor, and empty.
        self.write(match self.is_dumb {
            true => "",
            false => "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J",
        })?;
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        self.forget();
        Ok(())
    }

    /// Puts it back as it was.
    pub(super) fn leave(&mut self) {
        put_back(&self.original, self.is_dumb);
    }

    /// Draws all of it next time.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
    }

    /// Shows these lines. Sends only those that differ from what it shows: the line may be slow.
    ///
    /// # Errors
    /// Those of the terminal, such as EIO after it has hung up.
    pub(super) fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        let lines: Vec<_> = match self.is_dumb {
            true => lines.iter().map(Line::text).collect(),
            false => lines.iter().map(|it| it.ansi(self.has_colors)).collect(),
        };
        if lines == self.shown {
            return Ok(());
        }
        let mut text = String::new();
        if self.is_dumb {
            // It can only go on below. Empty lines would push the rest off the screen.
            for line in lines.iter().filter(|line| !line.is_empty()) {
                text += line.trim_end();
                text += "\r\n";
            }
        } else {
            if self.shown.is_empty() {
                text += "\x1b[2J";
            }
            for (n, line) in lines.iter().enumerate() {
                if self.shown.get(n) != Some(line) {
                    text += &format!("\x1b[{};1H{line}\x1b[K", n + 1);
                }
            }
        }
        self.write(&text)?;
        self.shown = lines;
        Ok(())
    }

    /// Returns what it has sent.
    ///
    /// # Errors
    /// Those of the terminal. `UnexpectedEof` after it has hung up.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 256];
        let n = rustix::io::read(stdin(), &mut bytes)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(n);
        Ok(bytes)
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Puts the terminal back into its modes, if it is in ours.
fn put_back(original: &Termios, is_dumb: bool) {
    if !IS_ENTERED.swap(false, Ordering::Relaxed) {
        return;
    }
    // Nothing can be done about a terminal that is gone.
    if !is_dumb {
        // On terminals without a second screen, what follows goes below the last line.
        // Not through the standard library, which may be in the middle of a write that has panicked.
        let _ = rustix::io::write(stdout(), b"\x1b[0m\x1b[999;1H\r\n\x1b[?25h\x1b[?1049l");
    }
    let _ = tcsetattr(stdin(), OptionalActions::Now, original);
}
