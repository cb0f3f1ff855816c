//! `coracle run`: forwards connections until it is stopped.

use std::cell::OnceCell;
use std::process::ExitCode;
use std::rc::Rc;

use coracle::config::Overrides;
use coracle::net::Inherited;
use coracle::proxy::{Proxy, log_warnings};

use super::stops::Hangup;
use super::{drive, load, start, told};
use crate::cli::Run;

pub(crate) fn run(arguments: Run) -> Result<ExitCode, String> {
    // Before any other descriptor is opened.
    let inherited = Inherited::take();
    let overrides = Overrides {
        forwards: arguments.forward,
        admin: arguments.admin,
        access_log: arguments.access_log,
    };
    let (config, source) = load::for_run(arguments.config, overrides)?;
    let commander = Rc::<OnceCell<_>>::default();
    let hangup = Hangup::Reloads(commander.clone());
    let stops = start(config.log.level, config.log.access, hangup)?;
    if let Some(file) = &source.file {
        log::info!(target: "setup", file:% = file.display(); "configuration read");
    }
    log_warnings(&config);
    let proxy = Proxy::bind_with(&config, inherited).map_err(told)?;
    let _ = commander.set(proxy.commander());
    drive(proxy.reading_from(Box::new(source)), stops)
}
