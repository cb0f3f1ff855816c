//! `coracle check`: reads a configuration and reports every error in it.

use std::process::ExitCode;

use coracle::config::Overrides;

use super::{load, say};
use crate::cli::Check;

pub(crate) fn check(Check { file }: Check) -> Result<ExitCode, String> {
    let config = load::file_or_stdin(&file, &Overrides::default())?;
    let (file, summary) = (load::name(&file), load::summary(&config));
    let ok = format!("{file}: OK: {summary}");
    Ok(match config.warnings {
        Some(warnings) => say(&format!("{warnings}\n\n{ok}"), true),
        None => say(&ok, true),
    })
}
