//! What runs for the configuration in force: its entrypoints, listeners and routes.
//!
//! A new configuration comes into force completely or not at all: everything that can fail comes
//! first, and changes nothing.

use std::ops::RangeInclusive;
use std::rc::Rc;

use super::bind::{self, BindError};
use super::ground::Ground;
use super::hand_over::HandOver;
use super::kernel_limits;
use super::listeners::{Listeners, Wanted};
use super::now_listening::NowListening;
use super::outgoing;
use super::resolving;
use super::services::{self, Targets};
use crate::config::{self, AtLimit, Config};
use crate::conn::{self, Destination, OwnListener, Pool, Route, Target, Topology};
use crate::net::Keepalive;
use crate::state::{
    BandwidthRules, Branch, ConnectionLimit, DEFAULT_ROUTE, Entrypoint, GateRules, Outgoing,
    Protocol, ServerId, Sorted, Timeouts,
};

/// The running configuration and its objects.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) listeners: Listeners,
    /// The entrypoints by name.
    entrypoints: Sorted<String, Rc<Entrypoint>>,
    /// The servers of each service, by its name.
    pools: Sorted<String, Rc<Pool>>,
    targets: Sorted<ServerId, Rc<Target>>,
    /// The listeners, as possible servers.
    own: Vec<OwnListener>,
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
            entrypoints: Sorted::new(),
            pools: Sorted::new(),
            targets: Sorted::new(),
            own: Vec::new(),
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
        outgoing::check(&config, &self.config)?;
        let targets = resolving::targets(ground, &config, &self.targets)?;
        let found = self.listeners.find(&config);
        let adapted = self.listeners.adapt(&config, &found)?;
        let slots = self.listeners.open(ground, &config, &found, handed).await;
        let slots = slots.inspect_err(|_| self.listeners.adapt_back(&adapted))?;

        // From here on nothing fails.
        services::adopt(&ground.shared.registry, &config, &targets);
        resolving::set_intervals(ground, &config, &targets);
        let pools = std::mem::take(&mut self.pools);
        let pools = config.services.iter().map(|it| {
            let pool = pools.get(&it.name).cloned().unwrap_or_default();
            (it.name.clone(), pool)
        });
        self.pools = pools.collect();
        // Before anything listens, because a connection may come at once.
        fill(&self.pools, &targets);
        let routes = routes(ground, &config, &self.pools);
        let mut stays = Vec::new();
        let mut own = Vec::new();
        let mut log = NowListening::default();
        let mut locals: Sorted<&str, Vec<_>> = Sorted::new();
        for (wanted, slot) in Wanted::of(&config).zip(slots) {
            let name = wanted.entrypoint.name.as_str();
            let (Some(route), listen) = (routes.get(name), wanted.listen.clone()) else {
                continue;
            };
            if let Some((number, listening)) =
                self.listeners.put(ground, wanted, slot, route, &mut log)
            {
                stays.push(number);
                let listener = listening.listener();
                locals.or_default(name).push(bind::local(&listen, listener));
                own.extend(bind::own(&route.entrypoint, &listen, listener));
            }
        }
        drop(log);
        stays.sort_unstable();
        self.listeners.retain(&stays).await;
        let registry = &ground.shared.registry;
        for (name, locals) in locals {
            if let Some(route) = routes.get(name) {
                registry.listens_on(&route.entrypoint, locals);
            }
        }
        self.own = own;
        let entrypoints = routes.into_iter();
        let entrypoints = entrypoints.map(|(name, route)| (name, route.entrypoint.clone()));
        let before = std::mem::replace(&mut self.entrypoints, entrypoints.collect());
        // A listener may have changed its entrypoint while it waited at the former one's limit.
        before.values().for_each(|it| it.open.offer_all());
        let old = std::mem::replace(&mut self.config, config);
        for it in &self.config.entrypoints {
            let before = old.entrypoints.iter().find(|old| old.name == it.name);
            let before = before.map(|old| old.listening.clone()).unwrap_or_default();
            kernel_limits::warn(it, &before);
        }
        self.put_servers(ground, targets);
        Ok(self.removed(ground, before, old))
    }

    /// Returns the servers of the configuration in force.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Rc<Target>> {
        self.targets.values()
    }

    /// Adapts the servers to names that now have other addresses. Returns whether any changed.
    pub(super) fn resolve(&mut self, ground: &Ground) -> bool {
        // The names are held already, so this starts no thread, which could fail.
        let Ok(targets) = resolving::targets(ground, &self.config, &self.targets) else {
            return false;
        };
        // Only the weights and priorities of SRV records may be others.
        services::adopt(&ground.shared.registry, &self.config, &targets);
        if resolving::is_same(&self.targets, &targets) {
            return false;
        }
        resolving::log_changes(&self.targets, &targets);
        self.put_servers(ground, targets);
        true
    }

    /// Makes these the servers in force, for connections, checks and the topology.
    fn put_servers(&mut self, ground: &Ground, targets: Targets) {
        fill(&self.pools, &targets);
        let all = targets.into_values().flatten().map(|it| it.target);
        self.targets = all.map(|it| (it.server.id(), it)).collect();
        let onward = self.config.entrypoints.iter().filter_map(|it| {
            let entrypoint = self.entrypoints.get(&it.name)?;
            let pool = |service: usize| self.pools.get(&self.config.services[service].name);
            let targets = match it.service {
                Some(service) if it.routes.is_empty() => pool(service)?.get(),
                // Which of them a connection gets is known when it comes.
                _ => {
                    let pools = it.services().filter_map(pool);
                    pools.flat_map(|pool| pool.get().to_vec()).collect()
                }
            };
            Some((entrypoint.id(), targets))
        });
        let topology = Topology::new(onward.collect(), &self.own);
        ground.topology.replace(topology);
        // A new server has room for those in the queues.
        for it in &self.config.services {
            ground.shared.registry.service(&it.name).offer();
        }
    }

    /// Returns the entrypoints that the configuration no longer has. They listen nowhere.
    fn removed(
        &self,
        ground: &Ground,
        before: Sorted<String, Rc<Entrypoint>>,
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
}

/// Gives connections that choose from now on these servers.
fn fill(pools: &Sorted<String, Rc<Pool>>, targets: &Targets) {
    for (service, found) in targets.iter() {
        if let Some(pool) = pools.get(service) {
            pool.replace(found.iter().map(|it| it.target.clone()).collect());
        }
    }
}

/// Returns whom an entrypoint admits.
fn gate(configured: &config::Entrypoint) -> GateRules {
    let config::ClientLimits {
        max_connections,
        rate,
        ipv6_prefix,
        ..
    } = configured.per_client;
    GateRules {
        access: configured.access.as_ref().map(|it| it.list.clone()),
        client_connections: max_connections.map(|most| most.get() as usize),
        client_rate: rate,
        ipv6_prefix,
        rate: configured.rate,
    }
}

/// Returns how fast an entrypoint's connections may be.
pub(super) fn bandwidth(configured: &config::Entrypoint) -> BandwidthRules {
    BandwidthRules {
        per_connection: configured.bandwidth_per_connection,
        per_client: configured.per_client.bandwidth,
        ipv6_prefix: configured.per_client.ipv6_prefix,
    }
}

/// Returns how connections to the servers of a service leave, if that is not left to the kernel.
fn outgoing(service: &config::Service) -> Option<Box<Outgoing>> {
    let outgoing = &service.outgoing;
    (!outgoing.is_default()).then(|| Box::new(outgoing.clone()))
}

/// Returns the ranges of ports that an entrypoint listens on, if its servers have ranges too.
fn ranges(
    configured: &config::Entrypoint,
    service: &config::Service,
) -> Option<Rc<[RangeInclusive<u16>]>> {
    let mut servers = service.servers.iter();
    let ranges = configured.listen.iter().filter_map(config::Listen::ports);
    servers
        .any(|it| it.address.is_range())
        .then(|| ranges.collect())
}

/// Returns the route of each entrypoint, by its name.
fn routes(
    ground: &Ground,
    config: &Config,
    pools: &Sorted<String, Rc<Pool>>,
) -> Sorted<String, Rc<Route>> {
    let registry = &ground.shared.registry;
    let now = ground.reactor.now();
    let route = |configured: &config::Entrypoint| {
        let entrypoint = registry.entrypoint(&configured.name, Protocol::Tcp, now);
        entrypoint.timeouts.set(Timeouts {
            idle: configured.idle_timeout,
            half_close: configured.half_close_timeout,
        });
        entrypoint.set_limit(ConnectionLimit {
            most: configured.max_connections.map(|most| most.get() as usize),
            refuses: configured.at_limit == AtLimit::Refuse,
        });
        let rules = gate(configured);
        let mut open = Vec::new();
        if rules.knows_clients() {
            ground.shared.conns.for_each(|conn| {
                if conn.entrypoint.id() == entrypoint.id() {
                    open.push((conn.id, conn.peer()));
                }
            });
        }
        entrypoint.set_gate(rules, &open);
        entrypoint.set_bandwidth(bandwidth(configured));
        entrypoint.at_refuse.set(configured.at_refuse);
        let service = |index: usize| registry.service(&config.services[index].name);
        entrypoint.set_service(
            configured
                .service
                .map(|it| service(it).name.clone())
                .as_ref(),
        );
        let labels = configured.routes.iter().enumerate();
        let labels = labels.map(|(index, it)| (it.label(index).into(), service(it.service)));
        let default = configured
            .service
            .map(|it| (DEFAULT_ROUTE.into(), service(it)));
        let has_rules = !configured.routes.is_empty();
        let labels: Vec<_> = labels.chain(default.filter(|_| has_rules)).collect();
        let branches = entrypoint.set_routes(&labels);
        let to = |branch: Rc<Branch>, index: usize| {
            let service = &config.services[index];
            Destination {
                branch,
                pool: pools.get(&service.name).cloned().unwrap_or_default(),
                connect_timeout: service.connect_timeout,
                dial_timeout: service.dial_timeout.max(service.connect_timeout),
                send_proxy: service.send_proxy.map(services::version),
                ranges: ranges(configured, service),
                outgoing: outgoing(service),
            }
        };
        let rules = has_rules.then(|| {
            let rules = configured.routes.iter();
            let leads = rules.clone().zip(&branches);
            Box::new(conn::Rules {
                rules: rules.map(|it| it.rule.clone()).collect(),
                to: leads
                    .map(|(it, branch)| to(branch.clone(), it.service))
                    .collect(),
                default_after: configured.default_after,
            })
        });
        let default = configured.service.map(|index| match has_rules {
            true => to(branches[configured.routes.len()].clone(), index),
            false => to(Branch::only(&service(index)), index),
        });
        Rc::new(Route {
            reactor: ground.reactor.clone(),
            conns: ground.shared.conns.clone(),
            names: ground.names.clone(),
            entrypoint,
            to: default,
            rules,
            topology: ground.topology.clone(),
            accept_proxy: (configured.accept_proxy).then(|| configured.trusted.as_slice().into()),
            prologue_timeout: configured.prologue_timeout,
            keepalive: configured.keepalive.map(Keepalive::after),
        })
    };
    let entrypoints = config.entrypoints.iter();
    entrypoints
        .map(|configured| (configured.name.clone(), route(configured)))
        .collect()
}
