//! `coracle run`: forwards connections until it is told to stop.

use std::process::ExitCode;

use coracle::config::Overrides;
use coracle::net::Inherited;
use coracle::proxy::Proxy;

use super::stops::Hangup;
use super::{drive, load, start, told};
use crate::cli::Run;

pub(crate) fn run(arguments: Run) -> Result<ExitCode, String> {
    // Before anything is opened.
    let inherited = Inherited::take();
    let overrides = Overrides {
        forwards: arguments.forward,
        admin: arguments.admin,
        access_log: arguments.access_log,
    };
    let (config, file) = load::for_run(arguments.config, &overrides)?;
    let stops = start(config.log.level, config.log.access, Hangup::Ignored)?;
    if let Some(file) = file {
        log::info!(target: "setup", file:% = file.display(); "configuration read");
    }
    load::log_warnings(&config);
    let proxy = Proxy::bind_with(&config, inherited).map_err(told)?;
    drive(proxy, stops)
}
