//! `coracle demo`: shows the proxy at work in a terminal.

use std::io::{self, Write};
use std::process::ExitCode;

use coracle::demo::Demo;
use log::LevelFilter;
use smol::stream::StreamExt;

use super::stops::Hangup;
use super::{drive, start, told};
use crate::cli;

pub(crate) fn demo(cli::Demo { listen, admin }: cli::Demo) -> Result<ExitCode, String> {
    let stops = start(LevelFilter::Warn, false, Hangup::Stops)?;
    let stops = stops.inspect(|signal| {
        // A line of its own, below the ^C of the terminal.
        let _ = writeln!(io::stdout(), "\n{signal}: the demo ends");
    });
    let demo = Demo::start(listen, admin).map_err(told)?;
    // Whoever reads may have gone; the demo goes on.
    let _ = write!(io::stdout(), "{}", demo.guide());
    demo.start_client().map_err(told)?;
    drive(demo.proxy, stops)
}
