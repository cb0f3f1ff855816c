//! Changes that clients ask for. The endpoint only passes them on.

use std::fmt;
use std::sync::Arc;

use log::LevelFilter;
use smol::channel::Sender;

use crate::state::{AdminState, Which};

/// The requested change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Reread the configuration and apply it.
    Reload,
    /// Report what applying a configuration would change. The configuration is the file in its
    /// present state, or this name and text.
    DryRun(Option<(String, String)>),
    /// Put a server into another state.
    Server {
        /// The name of its service.
        service: String,
        /// Its name, or its address as written in the configuration.
        server: String,
        /// The state.
        state: AdminState,
    },
    /// End connections.
    Kill {
        /// Which ones.
        which: Which,
        /// Whether only to list them.
        is_dry_run: bool,
    },
    /// Log from this level on.
    LogLevel(LevelFilter),
    /// Stop accepting, let open connections end, and end the program.
    Drain,
    /// Reset the open connections and end the program.
    Stop,
}

/// The paths that orders are posted to.
pub(super) mod paths {
    /// The path that a reload is ordered at.
    pub(in crate::admin) const RELOAD: &str = "/api/v1/reload";
    /// The path that a server's state is ordered at.
    pub(in crate::admin) const SERVER: &str = "/api/v1/server";
    /// The path that the end of connections is ordered at.
    pub(in crate::admin) const KILL: &str = "/api/v1/kill";
    /// The path that the log level is ordered at.
    pub(in crate::admin) const LOG_LEVEL: &str = "/api/v1/log-level";
    /// The path that a drain of the whole program is ordered at.
    pub(in crate::admin) const DRAIN: &str = "/api/v1/drain";
    /// The path that the program's end is ordered at.
    pub(in crate::admin) const STOP: &str = "/api/v1/stop";
    /// All of them, in alphabetical order.
    pub(in crate::admin) const ALL: [&str; 6] = [DRAIN, KILL, LOG_LEVEL, RELOAD, SERVER, STOP];
}

/// Returns whether orders are posted to `path`.
pub(super) fn takes_orders(path: &str) -> bool {
    paths::ALL.contains(&path)
}

/// A requested change, and where to send the answer: what has changed or
/// would change, one change on each line, or the reason why nothing has.
#[derive(Debug)]
pub struct Order {
    /// The requested change.
    pub ask: Ask,
    /// Who asked for it, for the log.
    pub by: &'static str,
    /// Takes one answer. Dropping it means that there will be none.
    pub answer: Sender<Result<String, String>>,
}

/// The function that takes orders. It is called on the endpoint's thread, so it must not block.
#[derive(Clone)]
pub(super) struct Orders(pub Arc<dyn Fn(Order) + Send + Sync>);

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}
