//! The running program: a supervisor owns the listeners and all tasks, applies configurations, and
//! drains when asked to stop.
//!
//! [`Proxy::bind`] opens the listeners and [`Proxy::run`] drives the supervisor. Meanwhile a
//! [`Commander`] sends it commands from any thread, and a [`ConfigSource`] provides the
//! configuration to reload.

mod accept;
mod account_file;
mod accounting;
mod admin;
mod bind;
mod by_hand;
mod capacity;
mod ceiling;
mod checks;
mod commands;
mod drain;
mod endpoint;
mod fingerprint;
mod ground;
mod hand_over;
mod history;
mod ipv6;
mod kernel_limits;
mod kill;
mod listeners;
mod log_level;
mod notify;
mod now_listening;
mod outgoing;
mod pacing;
mod refuse;
mod resolving;
mod running;
mod services;
mod supervisor;
mod sweep;
mod tcp_options;
mod watch;

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use smol::LocalExecutor;
use smol::future::{FutureExt, block_on, yield_now};
use smol::stream::Stream;

pub use bind::BindError;
pub use commands::{Commander, ConfigSource, Reloaded};
pub use drain::Drained;
pub use fingerprint::{Fingerprint, Seen};
pub use supervisor::log_warnings;

use accounting::Accounting;
use admin::Admin;
use capacity::Capacity;
use ground::Ground;
use hand_over::HandOver;
use notify::Manager;
use pacing::Pacing;
use running::Running;
use supervisor::{Supervisor, Tasks};

use crate::config::Config;
use crate::net::{Inherited, Names, Reactor};
use crate::state::{Hook, Shared};

/// A proxy whose entrypoints listen. It accepts connections once [`Proxy::run`] drives it.
pub struct Proxy {
    supervisor: Supervisor,
    commander: Commander,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut proxy = f.debug_struct("Proxy");
        proxy.field("running", &self.supervisor.running);
        proxy.finish_non_exhaustive()
    }
}

impl Proxy {
    /// Opens every listener of the configuration.
    ///
    /// # Errors
    /// Returns the error of the first listener that cannot be opened, with a remedy.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        Self::bind_with(config, Inherited::default())
    }

    /// Opens every listener of the configuration, reusing sockets handed to this process at
    /// startup.
    ///
    /// A listener whose address matches an inherited socket adopts that socket, with the clients
    /// waiting in its backlog.
    ///
    /// # Errors
    /// Returns the error of the first listener that cannot be opened, with a remedy.
    pub fn bind_with(config: &Config, inherited: Inherited) -> Result<Self, BindError> {
        let reactor = Reactor::new().map_err(BindError::reactor)?;
        let shared = Rc::new(Shared::of_loop(
            reactor.held().clone(),
            reactor.times().clone(),
        ));
        supervisor::adopt(&shared, config);
        let ground = Ground {
            reactor,
            executor: Rc::new(LocalExecutor::new()),
            shared,
            names: Rc::new(Names::default()),
            topology: Rc::default(),
            manager: Manager::from_env(),
            capacity: Rc::new(Cell::new(Capacity::default())),
        };
        let handed = HandOver::new(config, inherited, &ground.manager);
        let mut running = Running::nothing(config);
        // Nothing runs yet, so this waits for nothing.
        block_on(running.apply(&ground, config.clone(), handed))?;
        let (commander, commands) = Commander::new();
        let admin = Admin::bind(config, commander.clone())?;
        // Everything could be opened, so this configuration is in force.
        let loads = &ground.shared.config_loads;
        loads.succeeded(SystemTime::now(), "");
        let supervisor = Supervisor {
            ground,
            running,
            admin,
            source: None,
            commander: commander.clone(),
            commands,
            tasks: Tasks::default(),
            accounting: Accounting::default(),
            pacing: Pacing::default(),
        };
        Ok(Self {
            supervisor,
            commander,
        })
    }

    /// Sets the source from which the proxy reloads its configuration.
    #[must_use]
    pub fn reading_from(mut self, source: Box<dyn ConfigSource>) -> Self {
        self.supervisor.source = Some(source);
        self
    }

    /// Sets a test's hook that runs in each connection's task before it dials.
    #[must_use]
    pub fn hooked(self, hook: Hook) -> Self {
        self.supervisor.ground.shared.conns.hook(hook);
        self
    }

    /// Returns a handle that sends commands to the running proxy.
    #[must_use]
    pub fn commander(&self) -> Commander {
        self.commander.clone()
    }

    /// Returns the addresses that an entrypoint listens on, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self, entrypoint: &str) -> Vec<SocketAddr> {
        self.supervisor.running.listeners.addresses(entrypoint)
    }

    /// Returns the shared state: the set of connections and the counters.
    #[must_use]
    pub fn shared(&self) -> &Rc<Shared> {
        &self.supervisor.ground.shared
    }

    /// Returns the address of the admin endpoint.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.supervisor.admin.local_addr()
    }

    /// Forwards until `stops` yields or ends, or an order over the control socket says so, then
    /// drains.
    ///
    /// A drain stops accepting immediately, lets open connections end, and cuts the rest after
    /// `drain_timeout` or when `stops` yields again. If `stops` ends after the first request, that
    /// is not a second request.
    ///
    /// # Errors
    /// Returns an error if open files or memory leave no room for a single connection.
    pub fn run(
        self,
        stops: impl Stream<Item = &'static str> + Unpin + 'static,
    ) -> Result<Drained, BindError> {
        let ground = self.supervisor.ground.clone();
        let (reactor, executor) = (&ground.reactor, &ground.executor);
        // In tasks, because the loop polls its own future in each iteration, and checking for
        // signals is a system call.
        let _following = ground.spawn(self.commander.follow(stops));
        let supervise = executor.spawn(async move {
            let (supervisor, end) = self.supervisor.run().await?;
            Ok(supervisor.drain(end).await)
        });
        reactor.block_on(supervise.or(run_tasks(executor)))
    }
}

/// Runs tasks, and yields regularly so that the loop checks for new events.
///
/// The executor's own `run` keeps a second queue for work stealing between threads, which costs a
/// fifth more instructions per event. Trying without waiting first saves some more.
async fn run_tasks<T>(executor: &LocalExecutor<'_>) -> T {
    /// More tasks than one iteration of the loop wakes, so that an iteration is not cut short.
    const AT_ONCE: usize = 512;
    loop {
        for _ in 0..AT_ONCE {
            if !executor.try_tick() {
                executor.tick().await;
            }
        }
        yield_now().await;
    }
}
