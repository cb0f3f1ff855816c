//! The context that everything running in the proxy shares.

use std::cell::Cell;
use std::rc::Rc;

use smol::future::FutureExt;
use smol::{LocalExecutor, Task};

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

impl Ground {
    /// Spawns one of the proxy's own tasks.
    ///
    /// It is boxed: each type of future that is spawned as it is costs 8 kB of the program.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> Task<()> {
        self.executor.spawn(task.boxed_local())
    }
}
