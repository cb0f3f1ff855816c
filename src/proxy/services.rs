//! Gives the services and servers of a configuration their rules and shares.

use std::rc::Rc;

use crate::config::{self, Config, OnDown, SendProxy, WhenDown};
use crate::conn::Target;
use crate::state::{Balance, HealthRules, Registry, ServiceRules, Share, Sorted};
use crate::wire::proxy_header::Version;

/// The servers of each service, by its name, in configuration order.
pub(super) type Targets = Sorted<String, Vec<Found>>;

/// A server, and which one of the configuration it is, or is an address of.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) position: usize,
    pub(super) target: Rc<Target>,
    /// What the SRV record says about it, if it is from one.
    pub(super) rank: Option<Rank>,
}

/// The rank of a server among those of its SRV name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rank {
    /// From 1 to [`config::Server::MAX_WEIGHT`].
    pub(super) weight: u16,
    /// Whether others have a better priority.
    pub(super) is_backup: bool,
}

/// Brings the rules of `config` into force.
pub(super) fn adopt(registry: &Registry, config: &Config, targets: &Targets) {
    for configured in &config.services {
        let service = registry.service(&configured.name);
        service.set_rules(rules(configured));
        service.set_outgoing(&configured.outgoing);
        let found = targets.get(&configured.name).into_iter().flatten();
        for it in found {
            let share = share(&configured.servers[it.position], it.rank);
            it.target.server.set_share(share);
        }
    }
}

/// Returns the version of the header that servers get.
pub(super) fn version(configured: SendProxy) -> Version {
    match configured {
        SendProxy::V1 => Version::V1,
        SendProxy::V2 => Version::V2,
    }
}

fn rules(configured: &config::Service) -> ServiceRules {
    let health = configured.health.as_ref();
    ServiceRules {
        balance: match configured.balance {
            config::Balance::RoundRobin => Balance::RoundRobin,
            config::Balance::LeastConnections => Balance::LeastConnections,
            config::Balance::Random => Balance::Random,
            config::Balance::Source => Balance::Source,
        },
        health: HealthRules {
            max_fails: configured.max_fails,
            fail_window: configured.fail_window,
            rise: health.map_or(1, |health| health.rise.get()),
            fall: health.map_or(1, |health| health.fall.get()),
        },
        retries: configured.retries,
        refuses_when_down: configured.when_down == WhenDown::Refuse,
        closes_on_down: configured.on_down == OnDown::Close,
        queue: configured.queue as usize,
        queue_timeout: configured.queue_timeout,
        slow_start: configured.slow_start,
        bandwidth: configured.bandwidth,
    }
}

fn share(configured: &config::Server, rank: Option<Rank>) -> Share {
    Share {
        weight: match (rank, configured.weight) {
            (Some(rank), 1..) => rank.weight,
            (_, weight) => weight,
        },
        is_backup: configured.backup || rank.is_some_and(|it| it.is_backup),
        max_connections: configured.max_connections.map(|most| most.get() as usize),
    }
}
