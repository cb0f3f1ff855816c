//! The signals that ask the program to stop, and what it lacks if it cannot receive them.

use std::cell::OnceCell;
use std::rc::Rc;
use std::{io, panic};

use async_signal::{Signal, Signals};
use coracle::proxy::Commander;
use coracle::sys;
use smol::stream::{Stream, StreamExt};

/// The requests to stop, by the signal that made them.
pub(super) trait Stops: Stream<Item = &'static str> + Unpin + 'static {}
impl<S: Stream<Item = &'static str> + Unpin + 'static> Stops for S {}

/// What SIGHUP does, which a closing terminal sends.
#[derive(Clone)]
pub(super) enum Hangup {
    /// It has the configuration read anew, once there is a proxy to be told.
    Reloads(Rc<OnceCell<Commander>>),
    /// It ends what is shown in a terminal.
    Stops,
}

/// Receives the signals that mean something. It starts async-io's thread and epoll, so that what they lack shows at the start.
pub(super) fn stops(hangup: Hangup) -> Result<impl Stops, String> {
    // Each takes a descriptor.
    const SIGNALS: [Signal; 4] = [Signal::Term, Signal::Int, Signal::Quit, Signal::Hup];
    // async-io panics where it can have no thread or no descriptor. That is no bug, and is told in one line.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let signals = panic::catch_unwind(|| Signals::new(SIGNALS));
    // Where it has failed, async-io's thread panics in the same way a moment later, beside the end of the program.
    if signals.is_ok() {
        panic::set_hook(hook);
    }
    let signals = match signals {
        Ok(Ok(signals)) => Ok(signals),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("asynchronous I/O cannot be set up".to_owned()),
    };
    let signals = signals.map_err(|why| format!("coracle: {}", lack().unwrap_or(why)))?;
    Ok(signals.filter_map(move |signal| match signal.ok()? {
        Signal::Term => Some("SIGTERM"),
        Signal::Int => Some("SIGINT"),
        Signal::Quit => Some("SIGQUIT"),
        _ => match &hangup {
            Hangup::Stops => Some("SIGHUP"),
            Hangup::Reloads(commander) => {
                // Before there is one, the configuration has just been read.
                if let Some(commander) = commander.get() {
                    commander.reload("SIGHUP");
                }
                None
            }
        },
    }))
}

/// What the process can have no more of, with what to do.
fn lack() -> Option<String> {
    /// As many as signals and asynchronous I/O take.
    const PIPES: usize = 5;
    let pipes: io::Result<Vec<_>> = (0..PIPES).map(|_| io::pipe()).collect();
    if let Err(error) = pipes {
        return Some(format!(
            "no descriptor left: {error}; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
        ));
    }
    sys::thread::try_one().err().map(|error| no_thread(&error))
}

pub(super) fn no_thread(error: &io::Error) -> String {
    format!(
        "no thread can be started: {error}; raise the limit of processes (ulimit -u, or TasksMax= in the unit), or free memory"
    )
}
