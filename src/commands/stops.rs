//! The signals that stop the program, and why it cannot receive them if that fails.

use std::cell::OnceCell;
use std::rc::Rc;
use std::{io, panic};

use async_signal::{Signal, Signals};
use coracle::proxy::Commander;
use coracle::sys;
use smol::stream::{Stream, StreamExt};

/// A stream of requests to stop. Each item is the name of its signal.
pub(super) trait Stops: Stream<Item = &'static str> + Unpin + 'static {}
impl<S: Stream<Item = &'static str> + Unpin + 'static> Stops for S {}

/// What SIGHUP does. A closing terminal sends it.
#[derive(Clone)]
pub(super) enum Hangup {
    /// Rereads the configuration, once there is a proxy.
    Reloads(Rc<OnceCell<Commander>>),
    /// Stops a command that runs in a terminal.
    Stops,
}

/// Receives the signals that the program handles. This starts async-io's thread and epoll, so a
/// lack of threads or descriptors shows at startup.
pub(super) fn stops(hangup: Hangup) -> Result<impl Stops, String> {
    // Each takes a descriptor.
    const SIGNALS: [Signal; 4] = [Signal::Term, Signal::Int, Signal::Quit, Signal::Hup];
    // async-io panics if it cannot get a thread or a descriptor. This is not a bug, and is reported
    // in one line.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let signals = panic::catch_unwind(|| Signals::new(SIGNALS));
    // After a failure, async-io's thread panics the same way a moment later, while the program
    // exits.
    if signals.is_ok() {
        panic::set_hook(hook);
    }
    let signals = match signals {
        Ok(Ok(signals)) => Ok(signals),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("cannot set up asynchronous I/O".to_owned()),
    };
    let signals = signals.map_err(|why| format!("coracle: {}", lack().unwrap_or(why)))?;
    Ok(signals.filter_map(move |signal| match signal.ok()? {
        Signal::Term => Some("SIGTERM"),
        Signal::Int => Some("SIGINT"),
        Signal::Quit => Some("SIGQUIT"),
        _ => match &hangup {
            Hangup::Stops => Some("SIGHUP"),
            Hangup::Reloads(commander) => {
                // If there is no proxy yet, the configuration has just been read.
                if let Some(commander) = commander.get() {
                    commander.reload("SIGHUP");
                }
                None
            }
        },
    }))
}

/// Says what the process has run out of, and what to do.
fn lack() -> Option<String> {
    /// As many as signals and asynchronous I/O need.
    const PIPES: usize = 5;
    let pipes: io::Result<Vec<_>> = (0..PIPES).map(|_| io::pipe()).collect();
    if let Err(error) = pipes {
        return Some(format!(
            "out of file descriptors: {error}; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
        ));
    }
    sys::thread::try_one().err().map(|error| no_thread(&error))
}

pub(super) fn no_thread(error: &io::Error) -> String {
    format!(
        "no thread can be started: {error}; raise the limit of processes (ulimit -u, or TasksMax= in the unit), or free memory"
    )
}
