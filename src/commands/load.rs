//! Finds the configuration file and reads it. Each failure is one line that says what to do.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use coracle::config::{Config, Overrides, ReadFile, count, printable};
use coracle::proxy::{ConfigSource as _, Seen};

/// Far larger than any real configuration.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Enough for more than 500,000 networks.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;

/// Where `run` looks for a configuration.
const PLACES: [&str; 2] = ["./coracle.toml", "/etc/coracle.toml"];

/// Reads and checks the configuration in `file`, where `-` is standard input, together with what the
/// command line adds to it.
///
/// # Errors
/// Returns the text to print: why a file cannot be read, or every error in it.
pub(super) fn file_or_stdin(file: &Path, overrides: &Overrides) -> Result<Config, String> {
    config(text(file)?, overrides, &list)
}

fn config(
    (name, text): (String, String),
    overrides: &Overrides,
    read: ReadFile<'_>,
) -> Result<Config, String> {
    let config = Config::with_files(Some((&name, &text)), overrides, read);
    config.map_err(|errors| errors.to_string())
}

/// Reads a file that a configuration names.
fn list(path: &Path) -> Result<String, String> {
    let unreadable = |Unreadable { at, why }| format!("{}{at}: {why}", name(path));
    read(path, MAX_LIST_BYTES).map_err(unreadable)
}

/// Returns the file's name as diagnostics print it, where `-` is standard input.
pub(super) fn name(file: &Path) -> String {
    match file.to_str() {
        Some("-") => "<stdin>".to_owned(),
        _ => printable(&file.to_string_lossy()),
    }
}

/// Returns the configuration for `run`, and the file that it comes from: the named file, or else
/// the forwards alone, or else the file that is found.
///
/// # Errors
/// Returns the text to print.
pub(super) fn for_run(
    named: Option<PathBuf>,
    overrides: Overrides,
) -> Result<(Config, RunConfig), String> {
    let file = match named {
        None if !overrides.forwards.is_empty() => None,
        named => Some(named.or_else(find_config).ok_or_else(|| {
            format!(
                "coracle: nothing to do: neither {} nor {} exists; name a file with -c FILE, or forward a port with -L 8080:192.168.1.10:80",
                PLACES[0], PLACES[1]
            )
        })?),
    };
    let source = RunConfig {
        file,
        overrides,
        seen: RefCell::default(),
    };
    Ok((source.load()?, source))
}

/// Returns the first of these places that exists.
pub(super) fn find_config() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Formats the size of a configuration: `2 entrypoints, 1 service`.
pub(super) fn summary(config: &Config) -> String {
    format!(
        "{}, {}",
        count(config.entrypoints.len(), "entrypoint"),
        count(config.services.len(), "service")
    )
}

/// What a running proxy rereads: the file that it started with, together with what its command line
/// adds.
pub(super) struct RunConfig {
    pub(super) file: Option<PathBuf>,
    overrides: Overrides,
    seen: RefCell<Vec<Seen>>,
}

impl coracle::proxy::ConfigSource for RunConfig {
    fn load(&self) -> Result<Config, String> {
        match &self.file {
            Some(path) => {
                // Before it is read: a change meanwhile is one that was not seen.
                self.seen.replace(vec![Seen::now(path)]);
                let name = printable(&path.to_string_lossy());
                let text = named(name, read(path, MAX_FILE_BYTES))?;
                config(text, &self.overrides, &|path| {
                    let mut seen = self.seen.borrow_mut();
                    if !seen.iter().any(|it| it.file == path) {
                        seen.push(Seen::now(path));
                    }
                    drop(seen);
                    list(path)
                })
            }
            None => Config::with_overrides(None, &self.overrides).map_err(|it| it.to_string()),
        }
    }

    fn parse(&self, name: &str, text: &str) -> Result<Config, String> {
        config((name.to_owned(), text.to_owned()), &self.overrides, &list)
    }

    fn file(&self) -> Option<PathBuf> {
        self.file.clone()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }
}

/// Returns the name and the text of `file`, where `-` is standard input.
///
/// # Errors
/// Returns why it cannot be read.
pub(super) fn text(file: &Path) -> Result<(String, String), String> {
    let text = match file == Path::new("-") {
        true => whole(io::stdin().lock(), MAX_FILE_BYTES),
        false => read(file, MAX_FILE_BYTES),
    };
    named(name(file), text)
}

fn named(name: String, text: Result<String, Unreadable>) -> Result<(String, String), String> {
    match text {
        Ok(text) => Ok((name, text)),
        Err(_) if name.is_empty() => {
            Err("coracle: the configuration's file name is empty".to_owned())
        }
        Err(Unreadable { at, why }) => Err(format!("{name}{at}: {why}")),
    }
}

/// Why a text cannot be read.
struct Unreadable {
    /// The place in the text, such as `:2:3`, if the error has one.
    at: String,
    why: String,
}

impl Unreadable {
    fn whole(why: impl Into<String>) -> Self {
        Self {
            at: String::new(),
            why: why.into(),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::whole("no such file"),
            ErrorKind::IsADirectory => Self::whole("this is a directory; name a file in it"),
            ErrorKind::PermissionDenied => Self::whole("permission denied"),
            _ => Self::whole(format!("cannot be read: {error}")),
        }
    }
}

fn read(path: &Path, most: u64) -> Result<String, Unreadable> {
    whole(File::open(path)?, most)
}

fn whole(source: impl Read, most: u64) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    // Reads one byte past the limit to detect a file that is too large, whatever its metadata says.
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let why = match most {
            MAX_FILE_BYTES => "larger than 1 MiB, so it is probably not a configuration",
            _ => "larger than 16 MiB, so it is probably not a list of networks",
        };
        return Err(Unreadable::whole(why));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let before = String::from_utf8_lossy(valid);
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
        Unreadable {
            at: format!(":{line}:{column}"),
            why: "this is not UTF-8 text; save the file as UTF-8".to_owned(),
        }
    })
}
