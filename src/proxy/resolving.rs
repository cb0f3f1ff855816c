//! The servers that a configuration and the answers for its names stand for.

use std::collections::HashSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::bind::BindError;
use super::ground::Ground;
use super::services::{Found, Rank, Targets};
use crate::config::{self, Address, Config, Host, Resolve};
use crate::conn::Target;
use crate::net::{Line, Name, Offer};
use crate::state::{ServerId, Sorted};

/// The most addresses of one name that are servers, which bounds what a resolver that lies can do.
const MAX_ADDRESSES: usize = 256;

/// Returns the servers of each service, and holds their names. A server that already exists in
/// `before` keeps its waiting line, unless it now stands for another address.
///
/// # Errors
/// If a name is new and no thread can be started for it.
pub(super) fn targets(
    ground: &Ground,
    config: &Config,
    before: &Sorted<ServerId, Rc<Target>>,
) -> Result<Targets, BindError> {
    let registry = &ground.shared.registry;
    let mut all = Targets::new();
    for configured in &config.services {
        let service = registry.service(&configured.name);
        let mut found: Vec<Found> = Vec::new();
        for (position, server) in configured.servers.iter().enumerate() {
            let name = look_up(ground, &server.address)?;
            let all = stand_ins(ground, configured, server, name.as_deref());
            for it in all {
                let StandIn {
                    label,
                    address,
                    of,
                    rank,
                } = it;
                let server = registry.server(&service, &label);
                let twice = found.iter().map(|it| &it.target);
                let twice = twice.into_iter().find(|it| it.server.id() == server.id());
                let old = twice.or_else(|| before.get(&server.id()));
                let old = old
                    .filter(|it| it.address == address && it.of == of)
                    .cloned();
                let target = old.unwrap_or_else(|| {
                    Rc::new(Target {
                        server,
                        address,
                        of,
                        name: name.clone(),
                        line: Line::default(),
                    })
                });
                found.push(Found {
                    position,
                    target,
                    rank,
                });
            }
        }
        all.insert(configured.name.clone(), found);
    }
    Ok(all)
}

/// A server that a configured server stands for.
struct StandIn {
    label: String,
    address: Address,
    /// The address by name, if it has one.
    of: Option<Address>,
    rank: Option<Rank>,
}

/// Returns the servers that a configured server stands for, as far as its name's answer is known.
fn stand_ins(
    ground: &Ground,
    configured: &config::Service,
    server: &config::Server,
    name: Option<&Name>,
) -> Vec<StandIn> {
    let names = &ground.names;
    let found = match (&server.address, name) {
        (Address::Srv(_), Some(name)) => names.known_offers(name).map(|it| of_offers(server, &it)),
        (Address::Tcp { port, last, .. }, Some(name)) if configured.resolve == Resolve::All => {
            let known = names.known(name);
            known.map(|it| of_addresses(server, (*port, *last), &it))
        }
        _ => None,
    };
    match found {
        Some(found) if !found.is_empty() => found,
        // Dialling it waits for the answer, or fails with the reason.
        _ => vec![StandIn {
            label: server.label(),
            address: server.address.clone(),
            of: None,
            rank: None,
        }],
    }
}

fn of_addresses(server: &config::Server, (port, last): (u16, u16), ips: &[IpAddr]) -> Vec<StandIn> {
    // Sorted, because resolvers shuffle.
    let mut ips = ips.to_vec();
    ips.sort_unstable();
    ips.dedup();
    let all = ips.into_iter().take(MAX_ADDRESSES).map(|ip| {
        let address = Address::Tcp {
            host: Host::Ip(ip),
            port,
            last,
        };
        StandIn {
            label: format!("{address} ({})", server.label()),
            address,
            of: Some(server.address.clone()),
            rank: None,
        }
    });
    all.collect()
}

fn of_offers(server: &config::Server, offers: &[Offer]) -> Vec<StandIn> {
    let mut seen = HashSet::new();
    let all = offers.iter().filter(|it| seen.insert(it.address));
    let all: Vec<_> = all.take(MAX_ADDRESSES).collect();
    let best = all.first().map(|it| it.priority);
    let heaviest = all.iter().map(|it| it.weight).max().unwrap_or_default();
    let all = all.into_iter().map(|offer| {
        let (ip, port) = (offer.address.ip(), offer.address.port());
        let at = |host| Address::Tcp {
            host,
            port,
            last: port,
        };
        let address = at(Host::Ip(ip));
        StandIn {
            label: format!("{address} ({})", server.label()),
            address,
            of: Some(at(Host::Name(offer.host.clone()))),
            rank: Some(Rank {
                weight: weight(offer.weight, heaviest),
                is_backup: Some(offer.priority) != best,
            }),
        }
    });
    all.collect()
}

/// Returns the weight for a record's weight, reduced if the heaviest record has too much. At least
/// 1, because a record's 0 means a small share (RFC 2782), and ours means none.
fn weight(own: u16, heaviest: u16) -> u16 {
    let most = u32::from(config::Server::MAX_WEIGHT);
    let weight = match u32::from(heaviest) {
        heaviest if heaviest > most => u32::from(own) * most / heaviest,
        _ => own.into(),
    };
    u16::try_from(weight).unwrap_or_default().max(1)
}

/// Returns true if these are the same servers, with the same names.
pub(super) fn is_same(before: &Sorted<ServerId, Rc<Target>>, now: &Targets) -> bool {
    let ids = now.values().flatten().map(|it| it.target.server.id());
    let is_kept = |it: &Found| {
        let before = before.get(&it.target.server.id());
        before.is_some_and(|before| Rc::ptr_eq(before, &it.target))
    };
    ids.collect::<HashSet<_>>().len() == before.len() && now.values().flatten().all(is_kept)
}

/// Starts look-ups of a server's name, if it has one.
fn look_up(ground: &Ground, server: &Address) -> Result<Option<Rc<Name>>, BindError> {
    let held = match server {
        Address::Tcp {
            host: Host::Name(name),
            ..
        } => ground.names.hold(name),
        Address::Srv(name) => ground.names.hold_srv(name),
        _ => return Ok(None),
    };
    held.map(Some).map_err(BindError::names)
}

/// Has each name looked up as often as the service with the shortest `resolve_interval` wants.
pub(super) fn set_intervals(ground: &Ground, config: &Config, targets: &Targets) {
    let mut intervals: Sorted<_, (&Rc<Name>, Duration)> = Sorted::new();
    for configured in &config.services {
        let found = targets.get(&configured.name).into_iter().flatten();
        for name in found.filter_map(|it| it.target.name.as_ref()) {
            let interval = configured.resolve_interval;
            let (_, shortest) = intervals.or_insert(Rc::as_ptr(name), (name, interval));
            *shortest = interval.min(*shortest);
        }
    }
    for (name, interval) in intervals.into_values() {
        ground.names.set_interval(name, interval, &ground.reactor);
    }
}

/// Logs each address that is no longer among the servers, and each that now is.
pub(super) fn log_changes(before: &Sorted<ServerId, Rc<Target>>, now: &Targets) {
    let now: Sorted<_, _> = now
        .values()
        .flatten()
        .map(|it| (it.target.server.id(), &it.target))
        .collect();
    let gone = before.iter().filter(|(id, _)| !now.contains_key(id));
    for (_, target) in gone.filter(|(_, it)| it.of.is_some()) {
        let (service, server) = (&*target.server.service.name, target.server.name());
        log::info!(service, server; "the name no longer has this address");
    }
    let new = now.iter().filter(|(id, _)| !before.contains_key(id));
    for (_, target) in new.filter(|(_, it)| it.of.is_some()) {
        let (service, server) = (&*target.server.service.name, target.server.name());
        log::info!(service, server; "the name has this address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> config::Server {
        config::Server::at(text.parse().expect("an address"))
    }

    fn labels(all: Vec<StandIn>) -> Vec<String> {
        all.into_iter().map(|it| it.label).collect()
    }

    #[test]
    fn each_address_is_a_server_whatever_the_order() {
        let ips = ["fd00::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"];
        let ips = ips.map(|it| it.parse().expect("an address"));
        let mut nas = server("nas.lan:80");
        for name in ["nas.lan:80", "nas"] {
            let all = of_addresses(&nas, (80, 80), &ips);
            let expected = ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"];
            let is_of = |it: &StandIn| it.of.as_ref() == Some(&nas.address);
            assert!(all.iter().all(is_of));
            assert_eq!(labels(all), expected.map(|it| format!("{it} ({name})")));
            nas.name = Some("nas".to_owned());
        }
        let many: Vec<_> = (0..1000).map(|n: u32| IpAddr::V4(n.into())).collect();
        assert_eq!(of_addresses(&nas, (80, 80), &many).len(), MAX_ADDRESSES);
    }

    fn offer(priority: u16, weight: u16, address: &str) -> Offer {
        Offer {
            priority,
            weight,
            address: address.parse().expect("an address"),
            host: "nas.lan".to_owned(),
        }
    }

    #[test]
    fn best_priority_is_used_first_and_no_weight_is_none() {
        let all = [
            offer(5, 0, "10.0.0.1:80"),
            offer(5, 3, "[fd00::1]:81"),
            offer(9, 7, "10.0.0.1:80"),
            offer(9, 7, "10.0.0.1:82"),
        ];
        let all = of_offers(&server("_http._tcp.lan"), &all);
        let named = all.iter().map(|it| it.of.as_ref().map(ToString::to_string));
        let named: Vec<_> = named.flatten().collect();
        assert_eq!(named, ["nas.lan:80", "nas.lan:81", "nas.lan:82"]);
        let ranks = all.iter().filter_map(|it| it.rank);
        let ranks: Vec<_> = ranks.map(|it| (it.weight, it.is_backup)).collect();
        assert_eq!(ranks, [(1, false), (3, false), (7, true)]);
        let expected = ["10.0.0.1:80", "[fd00::1]:81", "10.0.0.1:82"];
        let expected = expected.map(|it| format!("{it} (_http._tcp.lan)"));
        assert_eq!(labels(all), expected);
    }

    #[test]
    fn weights_keep_their_proportion() {
        let weights = [0, 1, 256, 32_768, 65_535].map(|it| weight(it, 65_535));
        assert_eq!(weights, [1, 1, 1, 128, 256]);
        assert_eq!([0, 1, 256].map(|it| weight(it, 256)), [1, 1, 256]);
    }
}
