//! `coracle reload`: makes a running coracle reread its configuration, or asks it what that would
//! change.

use std::process::ExitCode;

use coracle::client::{Reload, Reloaded};

use super::{acting, fail, load, say, told};
use crate::cli;

pub(crate) fn reload(arguments: &cli::Reload) -> Result<ExitCode, String> {
    let reload = match (arguments.dry_run, &arguments.file) {
        (false, None) => Reload::Now,
        (true, None) => Reload::DryRun,
        (true, Some(file)) => {
            let (name, text) = load::text(file)?;
            Reload::DryRunOf { name, text }
        }
        (false, Some(file)) => {
            let file = load::name(file);
            return Err(format!(
                "coracle: {file}: a reload reads the file that coracle was started with; to compare another file, add --dry-run"
            ));
        }
    };
    let contact = acting(
        arguments.socket.as_deref(),
        arguments.admin.as_ref(),
        arguments.token_file.as_deref(),
    )?;
    match reload.ask(&contact).map_err(told)? {
        Reloaded::Mistakes(errors) => Ok(fail(&errors)),
        Reloaded::Changes(changes) if !changes.is_empty() => Ok(say(&changes, true)),
        Reloaded::Changes(_) if arguments.dry_run => Ok(say("nothing would change", true)),
        Reloaded::Changes(_) => Ok(say("nothing has changed", true)),
    }
}
