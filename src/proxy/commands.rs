//! The commands that a running proxy takes, and the source of new configurations.

use std::fmt;
use std::path::PathBuf;

use log::LevelFilter;
use smol::channel::{Receiver, Sender, unbounded};
use smol::stream::{Stream, StreamExt};

use super::fingerprint::Seen;
use crate::admin::{Ask, Order};
use crate::config::{Config, printable};
use crate::state::{AdminState, Which};

/// Where the configuration comes from.
pub trait ConfigSource {
    /// Reads and checks the configuration again.
    ///
    /// # Errors
    /// Returns the text that `coracle check` prints: why the configuration cannot be read, or every
    /// error in it.
    fn load(&self) -> Result<Config, String>;

    /// Checks `text` as if it were the content of the file `name`, combined with the command line.
    ///
    /// # Errors
    /// Returns every error in it.
    fn parse(&self, name: &str, text: &str) -> Result<Config, String>;

    /// Returns the file, if there is one.
    fn file(&self) -> Option<PathBuf>;

    /// Returns the files that the last attempt to load has read, or tried to, with the state of
    /// each just before that: the configuration's own, and those that it names.
    fn seen(&self) -> Vec<Seen>;
}

/// The changes that a reload has made or would make, one per line, or why the configuration in
/// force stays.
pub type Reloaded = Result<String, String>;

/// Takes what a command has changed, or why it has changed nothing.
pub(super) type Answer = Sender<Result<String, String>>;

/// A command for the supervisor.
pub(super) enum Command {
    /// Read the configuration again and bring it into force.
    Reload {
        /// Who asked for it, for the log.
        by: &'static str,
        answer: Option<Answer>,
    },
    /// Report what bringing a configuration into force would change: the current file, or this name
    /// and text.
    DryRun {
        text: Option<(String, String)>,
        answer: Answer,
    },
    /// Put a server into another state.
    Server {
        service: String,
        server: String,
        state: AdminState,
        /// Who asked for it, for the log.
        by: &'static str,
        answer: Answer,
    },
    /// End connections, or list those that would end.
    Kill {
        which: Which,
        is_dry_run: bool,
        /// Who asked for it, for the log.
        by: &'static str,
        answer: Answer,
    },
    /// Log from this level on.
    LogLevel {
        level: LevelFilter,
        /// Who asked for it, for the log.
        by: &'static str,
        answer: Answer,
    },
    /// Stop accepting, let open connections end, and end the program.
    Drain {
        /// Who asked for it, for the log.
        by: &'static str,
        answer: Option<Answer>,
    },
    /// Reset the open connections and end the program.
    Stop {
        /// Who asked for it, for the log.
        by: &'static str,
        answer: Option<Answer>,
    },
}

/// How the program is to end: by a command to drain or to stop.
pub(super) struct End {
    /// Who asked for it, for the log.
    pub(super) by: &'static str,
    /// Whether open connections are reset at once.
    pub(super) is_now: bool,
    pub(super) answer: Option<Answer>,
}

/// Sends commands to a running proxy from any thread.
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

    /// Reads the configuration again and brings it into force. The log names `by` as the source of
    /// the request.
    pub fn reload(&self, by: &'static str) {
        // If sending fails, the proxy has ended.
        let _ = self.0.try_send(Command::Reload { by, answer: None });
    }

    /// Turns signals into commands: the first one drains, and a second one stops. If `stops` ends
    /// before the first, that drains too.
    pub(super) async fn follow(self, mut stops: impl Stream<Item = &'static str> + Unpin) {
        let by = stops.next().await.unwrap_or("end of signals");
        let _ = self.0.try_send(Command::Drain { by, answer: None });
        if let Some(by) = stops.next().await {
            let _ = self.0.try_send(Command::Stop { by, answer: None });
        }
    }

    /// Takes an order from the admin endpoint. If the proxy has ended, this drops the order's
    /// answer channel.
    pub(super) fn take(&self, Order { ask, by, answer }: Order) {
        let command = match ask {
            Ask::Reload => Command::Reload {
                by,
                answer: Some(answer),
            },
            Ask::Kill { which, is_dry_run } => Command::Kill {
                which,
                is_dry_run,
                by,
                answer,
            },
            Ask::LogLevel(level) => Command::LogLevel { level, by, answer },
            Ask::Drain => Command::Drain {
                by,
                answer: Some(answer),
            },
            Ask::Stop => Command::Stop {
                by,
                answer: Some(answer),
            },
            Ask::DryRun(text) => Command::DryRun {
                // Error messages show the name.
                text: text.map(|(name, text)| (printable(&name), text)),
                answer,
            },
            Ask::Server {
                service,
                server,
                state,
            } => Command::Server {
                service,
                server,
                state,
                by,
                answer,
            },
        };
        let _ = self.0.try_send(command);
    }
}
