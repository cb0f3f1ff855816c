//! Changes that clients of the control socket ask for. The endpoint only passes them on.

use std::fmt;
use std::sync::Arc;

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
    /// Stop accepting, let open connections end, and end the program.
    Drain,
    /// Reset the open connections and end the program.
    Stop,
}

/// A requested change, and where to send the answer: what has changed or
/// would change, one change on each line, or the reason why nothing has.
#[derive(Debug)]
pub struct Order {
    /// The requested change.
    pub ask: Ask,
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
