//! Finds the configuration's file and reads it; each failure is one line that says what to do.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use coracle::config::{Config, Overrides, count, printable};

/// Far beyond any configuration that is meant.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where a configuration is looked for.
const PLACES: [&str; 2] = ["./coracle.toml", "/etc/coracle.toml"];

/// Reads and checks the configuration in `file`, with what the command line adds to it.
///
/// # Errors
/// The text to print: why the file cannot be read, or every mistake in it.
pub(super) fn file(file: &Path, overrides: &Overrides) -> Result<Config, String> {
    let (name, text) = named(file, read(file))?;
    Config::with_overrides(Some((&name, &text)), overrides).map_err(|mistakes| mistakes.to_string())
}

/// The file's name as it can be printed.
pub(super) fn name(file: &Path) -> String {
    printable(&file.to_string_lossy())
}

/// The configuration for `run`, with the file that it comes from: the one that was named, else the forwards alone, else the
/// one that is found.
///
/// # Errors
/// The text to print.
pub(super) fn for_run(
    named: Option<PathBuf>,
    overrides: &Overrides,
) -> Result<(Config, Option<PathBuf>), String> {
    if named.is_none() && !overrides.forwards.is_empty() {
        let config = Config::with_overrides(None, overrides);
        return config
            .map(|config| (config, None))
            .map_err(|mistakes| mistakes.to_string());
    }
    let Some(found) = named.or_else(find_config) else {
        return Err(format!(
            "coracle: nothing to do: there is no {} and no {}; name a file with -c FILE, or forward a port with -L 8080:192.168.1.10:80",
            PLACES[0], PLACES[1]
        ));
    };
    let config = file(&found, overrides)?;
    Ok((config, Some(found)))
}

/// The first of the places where a configuration is, if there is one.
pub(super) fn find_config() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// `2 entrypoints, 1 service`.
pub(super) fn summary(config: &Config) -> String {
    format!(
        "{}, {}",
        count(config.entrypoints.len(), "entrypoint"),
        count(config.services.len(), "service")
    )
}

/// Where a running proxy reads its configuration anew: the file that it began with, with what its command line adds.
pub(super) struct Source {
    pub(super) file: Option<PathBuf>,
    pub(super) overrides: Overrides,
}

impl coracle::proxy::Source for Source {
    fn load(&self) -> Result<Config, String> {
        match &self.file {
            Some(path) => file(path, &self.overrides),
            None => Config::with_overrides(None, &self.overrides).map_err(|it| it.to_string()),
        }
    }

    fn parse(&self, name: &str, text: &str) -> Result<Config, String> {
        let config = Config::with_overrides(Some((name, text)), &self.overrides);
        config.map_err(|mistakes| mistakes.to_string())
    }

    fn file(&self) -> Option<PathBuf> {
        self.file.clone()
    }
}

/// The name and text of `file`, in which `-` is standard input.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn text(file: &Path) -> Result<(String, String), String> {
    let text = match file == Path::new("-") {
        true => whole(io::stdin().lock()),
        false => read(file),
    };
    named(file, text)
}

fn named(file: &Path, text: Result<String, String>) -> Result<(String, String), String> {
    let name = name(file);
    match text {
        Ok(text) => Ok((name, text)),
        Err(why) => Err(format!("{name}: {why}")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    File::open(path)
        .map_err(|error| why(&error))
        .and_then(whole)
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::IsADirectory => "this is a directory; name the file in it".to_owned(),
        ErrorKind::PermissionDenied => "reading it is not permitted".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

fn whole(source: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that fits, whatever its metadata says.
    let mut source = source.take(MAX_FILE_BYTES + 1);
    source
        .read_to_end(&mut bytes)
        .map_err(|error| why(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("the file is larger than 1 MiB, so it is hardly a configuration".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("line {line} is not UTF-8 text")
    })
}
