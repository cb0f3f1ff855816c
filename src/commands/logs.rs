//! `coracle logs`: prints the last log lines of a running coracle, and follows them.

use std::process::ExitCode;
use std::time::Duration;

use async_io::Timer;
use coracle::client::LogLines;
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::stops::{Hangup, stops};
use super::{reading, say, told};
use crate::cli;

/// The time from one look at new lines to the next.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn logs(arguments: &cli::Logs) -> Result<ExitCode, String> {
    let contact = reading(&arguments.admin, arguments.token_file.as_deref())?;
    let ask = |after| LogLines::ask(&contact, arguments.level, after).map_err(told);
    // Prints them. Returns whether anyone reads.
    let show = |lines: &LogLines| {
        let text = match arguments.json {
            true => lines.json(),
            false => lines.text(),
        };
        text.is_empty() || say(&text, true) == ExitCode::SUCCESS
    };
    if !arguments.follow {
        show(&ask(None)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut stops = stops(Hangup::Stops)?;
    let mut lines = ask(None)?;
    loop {
        if !show(&lines) {
            return Ok(ExitCode::FAILURE);
        }
        let stop = async { stops.next().await.is_some() };
        let pause = async {
            Timer::after(PAUSE).await;
            false
        };
        if smol::block_on(stop.or(pause)) {
            return Ok(ExitCode::SUCCESS);
        }
        let after = lines.next();
        lines = ask(Some(after))?;
        if lines.next() < after {
            // Coracle has been restarted, and its numbers begin again.
            lines = ask(None)?;
        }
    }
}
