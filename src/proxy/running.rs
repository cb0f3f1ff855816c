//! What runs for the configuration in force: its entrypoints, listeners and routes.
//!
//! A new configuration comes into force completely or not at all: everything that can fail comes
//! first, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::bind::{self, BindError};
use super::ground::Ground;
use super::hand_over::HandOver;
use super::listeners::{Listeners, Wanted};
use super::services::{self, Targets};
use crate::config::{self, Address, AtLimit, Config, Host};
use crate::conn::{Route, Target, Topology};
use crate::net::{Keepalive, Line, Name};
use crate::state::{ConnectionLimit, Entrypoint, Protocol, ServerId, Timeouts};

/// The running configuration and its objects.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) listeners: Listeners,
    /// The entrypoints by name.
    entrypoints: BTreeMap<String, Rc<Entrypoint>>,
    targets: BTreeMap<ServerId, Rc<Target>>,
}

/// An entrypoint that the configuration no longer has, with its former configuration.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) entrypoint: Rc<Entrypoint>,
    pub(super) configured: config::Entrypoint,
}

impl Running {
    /// Creates an empty state for a `config` that is about to come into force.
    pub(super) fn nothing(config: &Config) -> Self {
        Self {
            config: Config {
                entrypoints: Vec::new(),
                services: Vec::new(),
                ..config.clone()
            },
            listeners: Listeners::default(),
            entrypoints: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// Brings `config` into force. Returns the entrypoints that it no longer has.
    ///
    /// # Errors
    /// Returns the error of the first listener or look-up that cannot be set up. Nothing has
    /// changed then.
    pub(super) async fn apply(
        &mut self,
        ground: &Ground,
        config: Config,
        handed: HandOver,
    ) -> Result<Vec<Removed>, BindError> {
        let targets = self.find_targets(ground, &config)?;
        let found = self.listeners.find(&config);
        let adapted = self.listeners.adapt(&config, &found)?;
        let slots = self.listeners.open(ground, &config, &found, handed).await;
        let slots = slots.inspect_err(|_| self.listeners.adapt_back(&adapted))?;

        // From here on nothing fails.
        services::adopt(&ground.shared.registry, &config, &targets);
        let routes = routes(ground, &config, &targets);
        let mut stays = BTreeSet::new();
        let mut own = Vec::new();
        let mut locals: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (wanted, slot) in Wanted::of(&config).zip(slots) {
            let name = wanted.entrypoint.name.as_str();
            let (Some(route), listen) = (routes.get(name), wanted.listen) else {
                continue;
            };
            if let Some((number, listening)) = self.listeners.put(ground, wanted, slot, route) {
                stays.insert(number);
                let listener = listening.listener();
                locals
                    .entry(name)
                    .or_default()
                    .push(bind::local(listen, listener));
                own.extend(bind::own(&route.entrypoint, listen, listener));
            }
        }
        self.listeners.retain(&stays).await;
        let registry = &ground.shared.registry;
        for (name, locals) in locals {
            if let Some(route) = routes.get(name) {
                registry.listens_on(&route.entrypoint, locals);
            }
        }
        let onward = routes.values();
        let onward = onward.map(|it| (it.entrypoint.id(), it.targets.clone()));
        ground
            .topology
            .replace(Topology::new(onward.collect(), &own));
        let all = targets.values().flat_map(|it| it.iter().cloned());
        self.targets = all.map(|it| (it.server.id(), it)).collect();
        let entrypoints = routes.into_iter();
        let entrypoints = entrypoints.map(|(name, route)| (name, route.entrypoint.clone()));
        let before = std::mem::replace(&mut self.entrypoints, entrypoints.collect());
        // A listener may have changed its entrypoint while it waited at the former one's limit.
        before.values().for_each(|it| it.open.offer_all());
        let old = std::mem::replace(&mut self.config, config);
        Ok(self.removed(ground, before, old))
    }

    /// Returns the servers of the configuration in force.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Rc<Target>> {
        self.targets.values()
    }

    /// Returns the entrypoints that the configuration no longer has. They listen nowhere.
    fn removed(
        &self,
        ground: &Ground,
        before: BTreeMap<String, Rc<Entrypoint>>,
        old: Config,
    ) -> Vec<Removed> {
        let mut removed = Vec::new();
        for configured in old.entrypoints {
            let is_there = self.entrypoints.contains_key(&configured.name);
            if let Some(entrypoint) = before.get(&configured.name).filter(|_| !is_there) {
                let entrypoint = entrypoint.clone();
                ground.shared.registry.listens_on(&entrypoint, Vec::new());
                removed.push(Removed {
                    entrypoint,
                    configured,
                });
            }
        }
        removed
    }

    /// Returns the servers of each service. A server that already exists keeps its waiting line,
    /// unless its name now stands for another address.
    fn find_targets(&self, ground: &Ground, config: &Config) -> Result<Targets, BindError> {
        let registry = &ground.shared.registry;
        let mut all = Targets::new();
        for configured in &config.services {
            let service = registry.service(&configured.name);
            let mut targets: Vec<Rc<Target>> = Vec::new();
            for server in &configured.servers {
                let address = &server.address;
                let server = registry.server(&service, &server.label());
                let twice = targets.iter().find(|it| it.server.id() == server.id());
                let known = twice.or_else(|| self.targets.get(&server.id()));
                let known = known.filter(|it| it.address == *address).cloned();
                targets.push(match known {
                    Some(target) => target,
                    None => Rc::new(Target {
                        name: look_up(ground, address)?,
                        server,
                        address: address.clone(),
                        line: Line::default(),
                    }),
                });
            }
            all.insert(configured.name.clone(), targets.into());
        }
        Ok(all)
    }
}

/// Returns the route of each entrypoint, by its name.
fn routes(ground: &Ground, config: &Config, targets: &Targets) -> BTreeMap<String, Rc<Route>> {
    let registry = &ground.shared.registry;
    let now = ground.reactor.now();
    let route = |configured: &config::Entrypoint| {
        let service = &config.services[configured.service];
        let entrypoint = registry.entrypoint(&configured.name, Protocol::Tcp, now);
        entrypoint.timeouts.set(Timeouts {
            idle: configured.idle_timeout,
            half_close: configured.half_close_timeout,
        });
        entrypoint.set_limit(ConnectionLimit {
            most: configured.max_connections.map(|most| most.get() as usize),
            refuses: configured.at_limit == AtLimit::Refuse,
        });
        let of_route = registry.service(&service.name);
        entrypoint.set_service(&of_route.name);
        Rc::new(Route {
            reactor: ground.reactor.clone(),
            conns: ground.shared.conns.clone(),
            names: ground.names.clone(),
            entrypoint,
            service: of_route,
            targets: targets.get(&service.name).cloned().unwrap_or_default(),
            topology: ground.topology.clone(),
            connect_timeout: service.connect_timeout,
            dial_timeout: service.dial_timeout.max(service.connect_timeout),
            keepalive: configured.keepalive.map(Keepalive::after),
        })
    };
    let entrypoints = config.entrypoints.iter();
    entrypoints
        .map(|configured| (configured.name.clone(), route(configured)))
        .collect()
}

/// Starts look-ups of a server's name, if it has one.
fn look_up(ground: &Ground, server: &Address) -> Result<Option<Rc<Name>>, BindError> {
    match server {
        Address::Tcp {
            host: Host::Name(name),
            ..
        } => {
            let held = ground.names.hold(name);
            held.map(Some).map_err(BindError::names)
        }
        _ => Ok(None),
    }
}
