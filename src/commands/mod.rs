//! The commands, one file each, and what they share: how they start, run a proxy, and say what has come of it.

mod audit;
mod check;
mod demo;
mod load;
mod reload;
mod run;
mod stops;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use coracle::proxy::Proxy;
use coracle::{logging, sys};
use log::LevelFilter;

pub(crate) use audit::audit;
pub(crate) use check::check;
pub(crate) use demo::demo;
pub(crate) use reload::reload;
pub(crate) use run::run;
use stops::{Hangup, Stops, no_thread, stops};

/// What both begin with, in this order: room for descriptors, a log, and signals that no longer kill.
fn start(level: LevelFilter, access: bool, hangup: Hangup) -> Result<impl Stops, String> {
    let _ = sys::descriptors::raise_limit();
    logging::install(level, access).map_err(|error| format!("coracle: {}", no_thread(&error)))?;
    let stops = stops(hangup)?;
    sys::signals::settle();
    Ok(stops)
}

/// Runs the proxy until a signal has ended it.
fn drive(proxy: Proxy, stops: impl Stops) -> Result<ExitCode, String> {
    proxy.run(stops).map_err(told)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints to stdout; the exit code says whether all is well. That the reader has gone away, such as `head`, is no failure.
pub(crate) fn say(text: &str, well: bool) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format!("coracle: stdout: {error}"))
        }
        _ if well => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn told(why: impl Display) -> String {
    format!("coracle: {why}")
}

pub(crate) fn fail(why: &str) -> ExitCode {
    logging::say(why);
    ExitCode::FAILURE
}
