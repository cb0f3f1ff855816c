//! `coracle audit`: asks a running coracle whether its set and the kernel agree, once or
//! repeatedly.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use async_io::Timer;
use coracle::client::{Audit, Contact};
use coracle::logging;
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::stops::{Hangup, stops};
use super::{reading, say, told};
use crate::cli;

pub(crate) fn audit(arguments: &cli::Audit) -> Result<ExitCode, String> {
    let contact = reading(&arguments.admin, arguments.token_file.as_deref())?;
    if arguments.watch {
        return watch(arguments, &contact);
    }
    let audit = Audit::ask(&contact).map_err(told)?;
    let text = if arguments.json {
        audit.json()
    } else {
        format!("{}\n{}", audit.table(), audit.sentence())
    };
    Ok(say(&text, audit.agrees()))
}

/// Audits until a signal arrives, then prints the largest difference.
fn watch(arguments: &cli::Audit, contact: &Contact) -> Result<ExitCode, String> {
    const PAUSE: Duration = Duration::from_secs(2);
    let mut stops = stops(Hangup::Stops)?;
    let (mut audits, mut largest) = (0_u64, 0);
    loop {
        let audit =
            Audit::ask(contact).map_err(|why| format!("coracle: after {audits} audits: {why}"))?;
        audits += 1;
        largest = largest.max(audit.difference());
        let line = if arguments.json {
            audit.json()
        } else {
            audit.sentence()
        };
        // The reader may be gone.
        if writeln!(io::stdout(), "{line}").is_err() {
            break;
        }
        let stop = async { stops.next().await.is_some() };
        let pause = async {
            Timer::after(PAUSE).await;
            false
        };
        if smol::block_on(stop.or(pause)) {
            break;
        }
    }
    let verdict =
        format!("{audits} audits; the largest difference that persisted: {largest} connections");
    // With --json, stdout contains only JSON.
    if arguments.json {
        logging::say(&verdict);
        return Ok(if largest == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    Ok(say(&verdict, largest == 0))
}
