//! `coracle log-level`: shows the level that a running coracle logs, or changes it.

use std::process::ExitCode;

use coracle::client::{LogLines, Ordered, set_log_level};
use log::Level;

use super::{acting, fail, say, told};
use crate::cli;

pub(crate) fn log_level(arguments: &cli::LogLevel) -> Result<ExitCode, String> {
    let contact = acting(
        arguments.socket.as_deref(),
        arguments.admin.as_ref(),
        arguments.token_file.as_deref(),
    )?;
    let Some(level) = arguments.level else {
        let lines = LogLines::ask(&contact, Level::Error, Some(u64::MAX)).map_err(told)?;
        return Ok(say(&lines.level(), true));
    };
    match set_log_level(&contact, level).map_err(told)? {
        Ordered::Done(text) if text.is_empty() => Ok(say("nothing has changed", true)),
        Ordered::Done(text) => Ok(say(&text, true)),
        Ordered::Refused(why) => Ok(fail(&why)),
    }
}
