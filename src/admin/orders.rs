//! What clients of the control socket want changed. The endpoint only passes it on.

use std::fmt;
use std::sync::Arc;

use smol::channel::Sender;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read the configuration anew and bring it into force.
    Reload,
    /// Say what bringing a configuration into force would change: that of the file as it is now, or this name and text.
    DryRun(Option<(String, String)>),
}

/// What is wanted, and where the answer goes: the changes, one on each line, or why there are none.
#[derive(Debug)]
pub struct Order {
    /// What is wanted.
    pub ask: Ask,
    /// Takes one answer. Dropping it says that nobody will answer.
    pub answer: Sender<Result<String, String>>,
}

/// Whoever takes orders. Called on the endpoint's thread, so it must not block.
#[derive(Clone)]
pub(super) struct Orders(pub Arc<dyn Fn(Order) + Send + Sync>);

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}
