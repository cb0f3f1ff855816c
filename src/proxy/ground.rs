//! The context that everything running in the proxy shares.

use std::cell::Cell;
use std::rc::Rc;

use smol::LocalExecutor;

use super::capacity::Capacity;
use super::notify::Manager;
use crate::conn::CurrentTopology;
use crate::net::{Names, Reactor};
use crate::state::Shared;

/// The event loop, the shared state, and what reloads change for all tasks.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) reactor: Rc<Reactor>,
    pub(super) executor: Rc<LocalExecutor<'static>>,
    pub(super) shared: Rc<Shared>,
    pub(super) names: Rc<Names>,
    pub(super) topology: Rc<CurrentTopology>,
    /// The service manager.
    pub(super) manager: Rc<Manager>,
    /// How many connections there may be.
    pub(super) capacity: Rc<Cell<Capacity>>,
}
