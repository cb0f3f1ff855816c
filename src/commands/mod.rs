//! The commands, one file each, and what they share: starting up, running a proxy, and printing
//! results.

mod audit;
mod check;
mod clients;
mod demo;
mod kill;
mod list;
mod load;
mod log_level;
mod logs;
mod reload;
mod run;
mod server;
mod status;
mod stops;
mod top;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use coracle::client::Contact;
use coracle::config::{Address, AdminEndpoint, defaults};
use coracle::proxy::Proxy;
use coracle::{logging, sys};
use log::LevelFilter;

pub(crate) use audit::audit;
pub(crate) use check::check;
pub(crate) use clients::clients;
pub(crate) use demo::demo;
pub(crate) use kill::kill;
pub(crate) use list::list;
pub(crate) use log_level::log_level;
pub(crate) use logs::logs;
pub(crate) use reload::reload;
pub(crate) use run::run;
pub(crate) use server::server;
pub(crate) use status::status;
use stops::{Hangup, Stops, no_thread, stops};
pub(crate) use top::top;

/// Prepares a proxy's process, in this order: raises the descriptor limit, starts the log, and
/// catches signals.
fn start(level: LevelFilter, access: bool, hangup: Hangup) -> Result<impl Stops, String> {
    let _ = sys::descriptors::raise_limit();
    logging::install(level, access).map_err(|error| format!("coracle: {}", no_thread(&error)))?;
    let stops = stops(hangup)?;
    sys::signals::settle();
    Ok(stops)
}

/// Runs the proxy until a signal ends it.
fn drive(proxy: Proxy, stops: impl Stops) -> Result<ExitCode, String> {
    proxy.run(stops).map_err(told)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to stdout. The exit code says whether all is `well`. It is no error if the reader is
/// gone, as with `head`.
pub(crate) fn say(text: &str, well: bool) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format!("coracle: stdout: {error}"))
        }
        _ if well => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Returns whom a command that only reads asks.
fn reading(admin: &AdminEndpoint, token_file: Option<&Path>) -> Result<Contact, String> {
    Contact::new(admin.clone(), token_file).map_err(told)
}

/// Returns whom a command that acts asks: the control socket, unless it is to go over TCP.
fn acting(
    socket: Option<&Path>,
    admin: Option<&AdminEndpoint>,
    token_file: Option<&Path>,
) -> Result<Contact, String> {
    let default = Path::new(defaults::CONTROL_SOCKET);
    let admin = match (socket, admin) {
        (Some(_), Some(_)) => {
            return Err(
                "coracle: --socket and --admin both say where coracle is; leave out one".to_owned(),
            );
        }
        (None, Some(admin)) => admin.clone(),
        (socket, None) => AdminEndpoint(Address::Unix(socket.unwrap_or(default).to_owned())),
    };
    Contact::new(admin, token_file).map_err(told)
}

/// Formats a library error as the commands print it.
fn told(why: impl Display) -> String {
    format!("coracle: {why}")
}

/// Prints to stderr.
pub(crate) fn fail(why: &str) -> ExitCode {
    logging::say(why);
    ExitCode::FAILURE
}
