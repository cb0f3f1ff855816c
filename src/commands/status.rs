//! `coracle status`: prints the entrypoints, services and servers of a running coracle.

use std::process::ExitCode;

use coracle::client::Status;

use super::{reading, say, told};
use crate::cli;

pub(crate) fn status(arguments: &cli::Status) -> Result<ExitCode, String> {
    let contact = reading(&arguments.admin, arguments.token_file.as_deref())?;
    let status = Status::ask(&contact).map_err(told)?;
    let text = match arguments.json {
        true => status.json(),
        false => status.tables(),
    };
    Ok(say(&text, true))
}
