//! Builds a configuration from a file's text and the command line, or reports every error in them.

use toml::de::DeTable;

use super::access::ReadFile;
use super::diagnostic::{Collector, Diagnostics, shown};
use super::draft::Draft;
use super::forward::Forward;
use super::model::Config;
use super::origin::Origin;
use super::value::AdminListen;
use super::{decode, resolve, toml_errors};

/// Settings from the command line that extend or replace those of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Additional entrypoints.
    pub forwards: Vec<Forward>,
    /// The admin endpoint's address, which replaces the file's.
    pub admin: Option<AdminListen>,
    /// Whether to turn the access log on; `false` leaves the decision to the file.
    pub access_log: bool,
}

impl Config {
    /// Parses `text`, the contents of the file named `file`, and adds an entrypoint for each
    /// forward.
    ///
    /// # Errors
    /// Returns every error in the text.
    pub fn parse(file: &str, text: &str, forwards: &[Forward]) -> Result<Self, Diagnostics> {
        let overrides = Overrides {
            forwards: forwards.to_vec(),
            ..Overrides::default()
        };
        Self::with_overrides(Some((file, text)), &overrides)
    }

    /// Parses `source`, the name and text of a file, and applies the command line's settings. A
    /// text that names further files is an error.
    ///
    /// # Errors
    /// Returns every error in the text, and every conflict between settings.
    pub fn with_overrides(
        source: Option<(&str, &str)>,
        overrides: &Overrides,
    ) -> Result<Self, Diagnostics> {
        Self::with_files(source, overrides, &|path| {
            let path = shown(&path.to_string_lossy());
            Err(format!("{path}: no files can be read here"))
        })
    }

    /// Does the same as [`Config::with_overrides`], and has `files` read the files that the text
    /// names.
    ///
    /// # Errors
    /// The same, those of `files`, and every error in these files.
    pub fn with_files(
        source: Option<(&str, &str)>,
        overrides: &Overrides,
        files: ReadFile<'_>,
    ) -> Result<Self, Diagnostics> {
        let (file, text) = source.unwrap_or(("command line", ""));
        // A byte order mark is not part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut out = Collector::new(text);
        let damage = toml_errors::Damage::report(&errors, text, &mut out);
        let mut read = Collector::new(text);
        let mut draft = decode::decode(root.get_ref(), damage.is_none(), &mut read);
        out.append(read, |line| damage.spares(line));
        if !damage.is_none() {
            return Err(out.finish(file));
        }
        overrides.add_to(&mut draft);
        let mut config = resolve::resolve(draft, files, &mut out);
        if !out.is_empty() {
            return Err(out.finish(file));
        }
        config.warnings = out.into_warnings(file);
        Ok(config)
    }
}

impl Overrides {
    fn add_to(&self, draft: &mut Draft) {
        if let Some(AdminListen(listen)) = self.admin {
            draft.admin.listen = listen;
            draft.admin_at = Origin::Flag("--admin".to_owned());
        }
        draft.log.access |= self.access_log;
        resolve::add_forwards(draft, &self.forwards);
    }
}
