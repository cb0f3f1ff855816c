//! `coracle server`: gives a running coracle an order for one server.

use std::process::ExitCode;

use coracle::client::{Ordered, ServerOrder};

use super::{acting, fail, say, told};
use crate::cli;

pub(crate) fn server(arguments: cli::Server) -> Result<ExitCode, String> {
    let contact = acting(
        arguments.socket.as_deref(),
        arguments.admin.as_ref(),
        arguments.token_file.as_deref(),
    )?;
    let order = ServerOrder {
        service: arguments.service,
        server: arguments.server,
        state: arguments.state,
    };
    match order.give(&contact).map_err(told)? {
        Ordered::Done(text) => Ok(say(&text, true)),
        Ordered::Refused(why) => Ok(fail(&why)),
    }
}
