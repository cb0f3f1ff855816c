//! `coracle check`: reads a configuration and tells every mistake in it.

use std::process::ExitCode;

use coracle::config::Overrides;

use super::{load, say};
use crate::cli::Check;

pub(crate) fn check(Check { file }: Check) -> Result<ExitCode, String> {
    let config = load::file(&file, &Overrides::default())?;
    let (file, summary) = (load::name(&file), load::summary(&config));
    let good = format!("{file}: good: {summary}");
    Ok(match config.warnings {
        Some(warnings) => say(&format!("{warnings}\n\n{good}"), true),
        None => say(&good, true),
    })
}
