//! `coracle kill`: ends connections of a running coracle.

use std::process::ExitCode;

use coracle::client::{KillOrder, Ordered};
use coracle::state::{Filter, Which};

use super::{acting, fail, say, told};
use crate::cli;

pub(crate) fn kill(arguments: cli::Kill) -> Result<ExitCode, String> {
    let contact = acting(
        arguments.socket.as_deref(),
        arguments.admin.as_ref(),
        arguments.token_file.as_deref(),
    )?;
    let filter = Filter {
        peer: arguments.peer,
        entrypoint: arguments.entrypoint,
        service: arguments.service,
        server: arguments.server,
    };
    let which = match (arguments.id, filter.is_empty()) {
        (Some(id), true) => Which::Id(id),
        (None, false) => Which::Fitting(filter),
        (Some(_), false) => {
            return Err(
                "coracle: an ID is one connection already; leave out the ID, or the other options"
                    .to_owned(),
            );
        }
        (None, true) => {
            return Err("coracle: which connections? Give an ID, as `coracle list` shows it, or one or more of --peer, --entrypoint, --service and --server".to_owned());
        }
    };
    let order = KillOrder {
        which,
        is_dry_run: arguments.dry_run,
    };
    match order.give(&contact).map_err(told)? {
        Ordered::Done(text) => Ok(say(&text, true)),
        Ordered::Refused(why) => Ok(fail(&why)),
    }
}
