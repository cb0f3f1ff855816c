//! `coracle list`: prints who is connected to a running coracle.

use std::process::ExitCode;

use coracle::client::{Connections, Listing};

use super::{reading, say, told};
use crate::cli;

pub(crate) fn list(arguments: cli::List) -> Result<ExitCode, String> {
    let contact = reading(&arguments.admin, arguments.token_file.as_deref())?;
    let listing = Listing {
        peer: arguments.peer,
        entrypoint: arguments.entrypoint,
        service: arguments.service,
        server: arguments.server,
        state: arguments.state,
        min_age: arguments.min_age,
        sort: arguments.sort,
        limit: arguments.limit,
    };
    let connections = Connections::ask(&contact, &listing).map_err(told)?;
    let text = match arguments.json {
        true => connections.json(),
        false => connections.table(),
    };
    Ok(say(&text, true))
}
