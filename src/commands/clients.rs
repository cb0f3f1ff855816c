//! `coracle clients`: prints what the clients of a running coracle have used.

use std::process::ExitCode;

use coracle::client::Clients;

use super::{reading, say, told};
use crate::cli;

pub(crate) fn clients(arguments: &cli::Clients) -> Result<ExitCode, String> {
    let contact = reading(&arguments.admin, arguments.token_file.as_deref())?;
    let clients = Clients::ask(&contact).map_err(told)?;
    let text = match arguments.json {
        true => clients.json(),
        false => clients.table(),
    };
    Ok(say(&text, true))
}
