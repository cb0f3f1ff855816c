//! `coracle server`: gives a running coracle an order for one server.

use std::path::Path;
use std::process::ExitCode;

use coracle::client::{Ordered, ServerOrder};
use coracle::config::defaults;

use super::{fail, say, told};
use crate::cli;

pub(crate) fn server(arguments: cli::Server) -> Result<ExitCode, String> {
    let order = ServerOrder {
        service: arguments.service,
        server: arguments.server,
        state: arguments.state,
    };
    let default = Path::new(defaults::CONTROL_SOCKET);
    let socket = arguments.socket.as_deref().unwrap_or(default);
    match order.give(socket).map_err(told)? {
        Ordered::Done(text) => Ok(say(&text, true)),
        Ordered::Refused(why) => Ok(fail(&why)),
    }
}
