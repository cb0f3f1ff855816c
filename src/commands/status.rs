//! `coracle status`: prints the entrypoints, services and servers of a running coracle.

use std::process::ExitCode;

use coracle::client::Status;

use super::{say, told};
use crate::cli;

pub(crate) fn status(arguments: &cli::Status) -> Result<ExitCode, String> {
    let status = Status::ask(&arguments.admin).map_err(told)?;
    let text = match arguments.json {
        true => status.json(),
        false => status.tables(),
    };
    Ok(say(&text, true))
}
