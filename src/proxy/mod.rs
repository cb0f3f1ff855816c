//! The running program: binds the entrypoints, owns their tasks, and drains when it is told to stop.

mod accept;
mod bind;
mod capacity;
mod hand_over;
mod ipv6;
mod notify;
mod sweep;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use smol::future::{FutureExt, yield_now};
use smol::stream::{Stream, StreamExt};
use smol::{LocalExecutor, Task};

pub use bind::BindError;

use accept::Bound;
use capacity::Capacity;
use hand_over::HandOver;
use notify::Manager;

use crate::admin;
use crate::config::{Address, Config, Host};
use crate::conn::{self, Hook, OwnListener, Route, Target};
use crate::net::{Inherited, Keepalive, Names, Reactor};
use crate::state::{CloseReason, Entrypoint, Protocol, Service, Shared};

/// A proxy whose entrypoints listen. It accepts once [`Proxy::run`] drives it.
#[derive(Debug)]
pub struct Proxy {
    reactor: Rc<Reactor>,
    shared: Rc<Shared>,
    names: Rc<Names>,
    listeners: Vec<Bound>,
    admin: Option<admin::Endpoint>,
    limits: Vec<sweep::Limits>,
    drain_timeout: Duration,
    manager: Rc<Manager>,
    /// Sockets that the manager is to keep for the next process.
    kept: Vec<OwnedFd>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended by themselves after the request to stop.
    pub ended: usize,
    /// Connections that were cut.
    pub cut: usize,
}

impl Proxy {
    /// Opens every listener of the configuration. `hook` is for tests.
    ///
    /// # Errors
    /// The first listener that cannot be had, with what to do.
    pub fn bind(config: &Config, hook: Option<Hook>) -> Result<Self, BindError> {
        Self::bind_with(config, hook, Inherited::default())
    }

    /// The same with sockets that this process was handed at its start: a listener whose address one of them has goes on with
    /// it and with the clients that wait there.
    ///
    /// # Errors
    /// The first listener that cannot be had, with what to do.
    pub fn bind_with(
        config: &Config,
        hook: Option<Hook>,
        inherited: Inherited,
    ) -> Result<Self, BindError> {
        let reactor = Reactor::new().map_err(BindError::reactor)?;
        let entrypoints = config.entrypoints.iter().enumerate();
        let entrypoints = entrypoints
            .map(|(index, entrypoint)| {
                Rc::new(Entrypoint::new(index, &entrypoint.name, Protocol::Tcp))
            })
            .collect();
        let services = config.services.iter().enumerate();
        let services = services
            .map(|(index, service)| {
                let servers = service.servers.iter().map(Address::to_string);
                Rc::new(Service::new(index, &service.name, servers))
            })
            .collect();
        let shared = Shared::new(entrypoints, services);
        let shared = shared.with_traefik_names(config.metrics.traefik);
        let shared = Rc::new(shared.with_held(reactor.held().clone()));
        if config.log.access {
            shared.conns.tell_leaving(conn::log_access);
        }
        let names = Names::new(host_names(config)).map_err(BindError::names)?;
        let names = Rc::new(names);
        let mut open = Vec::new();
        let mut own = Vec::new();
        let manager = Manager::from_env();
        let mut hand_over = HandOver::new(config, inherited, &manager);
        for (entrypoint, configured) in shared.entrypoints.iter().zip(&config.entrypoints) {
            let service = &config.services[configured.service];
            let mut locals = Vec::new();
            for listen in &configured.listen {
                let listener =
                    bind::entrypoint(&reactor, configured, service, listen, &mut hand_over)?;
                locals.push(bind::local(listen, &listener));
                own.extend(bind::own(entrypoint, listen, &listener));
                open.push((listener, entrypoint.index));
            }
            entrypoint.listens_on(locals);
        }
        // Only now it is known which servers are listeners of ours.
        let targets = targets(config, &own);
        let onward = config.entrypoints.iter();
        let onward: Rc<[_]> = onward.map(|it| targets[it.service].clone()).collect();
        let routes: Vec<_> = config
            .entrypoints
            .iter()
            .map(|entrypoint| {
                let service = &config.services[entrypoint.service];
                Rc::new(Route {
                    reactor: reactor.clone(),
                    conns: shared.conns.clone(),
                    names: names.clone(),
                    service: shared.services[entrypoint.service].clone(),
                    targets: targets[entrypoint.service].clone(),
                    onward: onward.clone(),
                    connect_timeout: service.connect_timeout,
                    dial_timeout: service.dial_timeout.max(service.connect_timeout),
                    keepalive: entrypoint.keepalive.map(Keepalive::after),
                    hook: hook.clone(),
                })
            })
            .collect();
        let listeners = open.into_iter().map(|(listener, index)| Bound {
            listener,
            entrypoint: shared.entrypoints[index].clone(),
            route: routes[index].clone(),
        });
        let listeners = listeners.collect();
        let limits = config.entrypoints.iter().map(sweep::Limits::of);
        let admin = config.admin.listen;
        let admin = admin.map(|address| bind::admin(address, &config.admin_hosts));
        let admin = admin.transpose()?;
        // All that was asked for could be had, so this configuration is the one in force.
        shared.config_loads.succeeded(SystemTime::now());
        Ok(Self {
            reactor,
            shared,
            names,
            listeners,
            admin,
            limits: limits.collect(),
            drain_timeout: config.drain_timeout,
            manager,
            kept: hand_over.kept(),
        })
    }

    /// The addresses that an entrypoint listens on, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self, entrypoint: &str) -> Vec<SocketAddr> {
        let of_it = |bound: &&Bound| bound.entrypoint.name == entrypoint;
        let bound = self.listeners.iter().filter(of_it);
        bound
            .filter_map(|bound| bound.listener.local_addr())
            .collect()
    }

    /// What it knows: the set, the counters.
    #[must_use]
    pub fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    /// The address of the admin endpoint.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Forwards until `stops` yields or ends, then drains: it stops accepting at once, lets open connections end, and cuts what
    /// is left after `drain_timeout`, or when `stops` yields again. An end after the first request is not another one.
    ///
    /// # Errors
    /// When open files or memory leave no room for a single connection.
    pub fn run(
        self,
        stops: impl Stream<Item = &'static str> + Unpin + 'static,
    ) -> Result<Drained, BindError> {
        let reactor = self.reactor.clone();
        let executor = Rc::new(LocalExecutor::new());
        // A task of its own: what the loop drives is polled in each turn, and looking for signals is a system call.
        let supervise = executor.spawn(self.supervise(executor.clone(), stops));
        reactor.block_on(supervise.or(run_tasks(&executor)))
    }

    async fn supervise(
        self,
        executor: Rc<LocalExecutor<'static>>,
        mut stops: impl Stream<Item = &'static str> + Unpin,
    ) -> Result<Drained, BindError> {
        let shared = self.shared;
        let reactor = self.reactor;
        let capacity = Capacity::of_this_process()?;
        reactor.limit_pipes(capacity.pipes);
        reactor.limit_memory(capacity.limits);
        // Only now, so that it asks for no descriptor before it is known whether there are enough.
        let admin = self.admin.map(admin::Endpoint::start).transpose();
        let admin = admin.map_err(|error| BindError::thread("admin", &error))?;
        let admin = admin.map(|(handle, answers)| {
            executor.spawn(answers.answer(shared.clone())).detach();
            handle
        });
        if !self.names.is_empty() {
            let looking_up = self.names.keep_fresh(reactor.clone());
            executor.spawn(looking_up).detach();
        }
        if let Some(sweeping) = sweep::sweep(reactor.clone(), shared.clone(), self.limits) {
            executor.spawn(sweeping).detach();
        }
        let accepting: Vec<Task<()>> = self
            .listeners
            .into_iter()
            .map(|bound| {
                bound.listener.limit_unsent(capacity.connections);
                executor.spawn(accept::accept(
                    executor.clone(),
                    shared.clone(),
                    bound,
                    capacity,
                ))
            })
            .collect();
        log::info!(
            connections_at_most = capacity.connections, by = capacity.by.name(),
            memory_limit = capacity.memory_text().as_str(), open_files = capacity.open_files; "ready");
        let manager = self.manager;
        let telling = manager.ready(&reactor, self.kept);
        let telling = telling.map(|rest| executor.spawn(rest));
        if let Some(living) = manager.signs_of_life(&reactor) {
            executor.spawn(living).detach();
        }

        let signal = stops.next().await.unwrap_or("the end of the signals");
        shared.start_draining();
        // What has not been told by now is no longer so.
        drop(telling);
        if let Some(rest) = manager.stopping(&reactor, self.drain_timeout) {
            executor.spawn(rest).detach();
        }
        for task in accepting {
            // Cancelled, not only told to stop: with its future the listener is closed.
            task.cancel().await;
        }
        let open = shared.conns.len();
        let limit = humantime::format_duration(self.drain_timeout);
        log::info!(signal, open, drain_timeout:% = limit; "draining; a second signal ends at once");
        let all_ended = shared.conns.below(1);
        let timed_out = reactor.sleep(self.drain_timeout);
        let told_again = async {
            if stops.next().await.is_none() {
                // Nobody can say it again; that is no second request.
                std::future::pending().await
            }
        };
        all_ended.or(timed_out).or(told_again).await;
        let cut = shared.conns.kill_all(CloseReason::Drain, reactor.now());
        shared.conns.below(1).await;
        drop(admin);
        let ended = open - cut;
        log::info!(ended, cut; "drained");
        Ok(Drained { ended, cut })
    }
}

/// Runs tasks, and pauses now and then for the loop to look at new events. (The executor's own `run` keeps a second queue, for threads
/// that take work from each other: a fifth more instructions for each event. Asking without waiting first saves some more.)
async fn run_tasks<T>(executor: &LocalExecutor<'_>) -> T {
    /// More than one turn of the loop wakes, so that it is not cut short.
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

/// The servers of each service.
fn targets(config: &Config, own: &[OwnListener]) -> Vec<Rc<[Target]>> {
    let target = |address| Target::new(address, own);
    let services = config.services.iter();
    services
        .map(|service| service.servers.iter().map(target).collect())
        .collect()
}

fn host_names(config: &Config) -> BTreeSet<&str> {
    let servers = config.services.iter().flat_map(|service| &service.servers);
    let names = servers.filter_map(|server| match server {
        Address::Tcp {
            host: Host::Name(name),
            ..
        } => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}
