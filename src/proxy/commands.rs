//! What a running proxy can be told, and where a new configuration comes from.

use std::fmt;
use std::path::PathBuf;

use smol::channel::{Receiver, Sender, unbounded};

use crate::admin::{Ask, Order};
use crate::config::{Config, printable};

/// Where the configuration comes from.
pub trait Source {
    /// Reads it anew, and checks it.
    ///
    /// # Errors
    /// The text that `coracle check` prints: why it cannot be read, or every mistake in it.
    fn load(&self) -> Result<Config, String>;

    /// Checks a text that stands for the file called `name`, with what the command line adds.
    ///
    /// # Errors
    /// Every mistake in it.
    fn parse(&self, name: &str, text: &str) -> Result<Config, String>;

    /// The file, if there is one.
    fn file(&self) -> Option<PathBuf>;
}

/// The changes that a reload has made or would make, one on each line; or why the configuration in force stays.
pub type Reloaded = Result<String, String>;

/// Something to be done by the supervisor.
pub(super) enum Command {
    /// Read the configuration anew and bring it into force.
    Reload {
        /// Who wants it, for the log.
        by: &'static str,
        answer: Option<Sender<Reloaded>>,
    },
    /// Say what bringing a configuration into force would change: the file as it is now, or this name and text.
    DryRun {
        text: Option<(String, String)>,
        answer: Sender<Reloaded>,
    },
}

/// Tells a running proxy what to do, from whatever thread.
#[derive(Clone)]
pub struct Commander(Sender<Command>);

impl fmt::Debug for Commander {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Commander")
    }
}

impl Commander {
    pub(super) fn new() -> (Self, Receiver<Command>) {
        let (sender, receiver) = unbounded();
        (Self(sender), receiver)
    }

    /// Has the configuration read anew and brought into force. `by` says in the log who wants it.
    pub fn reload(&self, by: &'static str) {
        // Where nobody takes it, the proxy has ended.
        let _ = self.0.try_send(Command::Reload { by, answer: None });
    }

    /// Takes an order of the control socket. If the proxy has ended, its answer is dropped.
    pub(super) fn take(&self, Order { ask, answer }: Order) {
        let command = match ask {
            Ask::Reload => Command::Reload {
                by: "control socket",
                answer: Some(answer),
            },
            Ask::DryRun(text) => Command::DryRun {
                // The name is shown in the mistakes.
                text: text.map(|(name, text)| (printable(&name), text)),
                answer,
            },
        };
        let _ = self.0.try_send(command);
    }
}
