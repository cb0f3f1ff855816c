//! The servers that a configuration and the answers for its names stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::bind::BindError;
use super::ground::Ground;
use super::services::{Found, Targets};
use crate::config::{self, Address, Config, Host, Resolve};
use crate::conn::Target;
use crate::net::{Line, Name};
use crate::state::ServerId;

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
    before: &BTreeMap<ServerId, Rc<Target>>,
) -> Result<Targets, BindError> {
    let registry = &ground.shared.registry;
    let mut all = Targets::new();
    for configured in &config.services {
        let service = registry.service(&configured.name);
        let mut found: Vec<Found> = Vec::new();
        for (position, server) in configured.servers.iter().enumerate() {
            let name = look_up(ground, &server.address)?;
            let known = name
                .as_deref()
                .filter(|_| configured.resolve == Resolve::All);
            let known = known.and_then(|name| ground.names.known(name));
            for (label, address, of) in stands_for(server, known.as_deref()) {
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
                found.push(Found { position, target });
            }
        }
        all.insert(configured.name.clone(), found);
    }
    Ok(all)
}

/// Returns the label and the address of each server that a configured server stands for, and the
/// configured address if these are the `known` addresses of its name.
fn stands_for(
    server: &config::Server,
    known: Option<&[IpAddr]>,
) -> Vec<(String, Address, Option<Address>)> {
    let label = server.label();
    match (&server.address, known) {
        (Address::Tcp { port, .. }, Some(ips)) => {
            // Sorted, because resolvers shuffle.
            let ips: BTreeSet<_> = ips.iter().collect();
            let at = ips.into_iter().take(MAX_ADDRESSES).map(|ip| {
                let (host, port) = (Host::Ip(*ip), *port);
                let address = Address::Tcp { host, port };
                let of = Some(server.address.clone());
                (format!("{address} ({label})"), address, of)
            });
            at.collect()
        }
        _ => vec![(label, server.address.clone(), None)],
    }
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

/// Has each name looked up as often as the service with the shortest `resolve_interval` wants.
pub(super) fn set_intervals(ground: &Ground, config: &Config, targets: &Targets) {
    let mut intervals: BTreeMap<_, (&Rc<Name>, Duration)> = BTreeMap::new();
    for configured in &config.services {
        let found = targets.get(&configured.name).into_iter().flatten();
        for name in found.filter_map(|it| it.target.name.as_ref()) {
            let interval = configured.resolve_interval;
            let entry = intervals.entry(Rc::as_ptr(name));
            let (_, shortest) = entry.or_insert((name, interval));
            *shortest = interval.min(*shortest);
        }
    }
    for (name, interval) in intervals.into_values() {
        ground.names.set_interval(name, interval, &ground.reactor);
    }
}

/// Logs each address that is no longer among the servers, and each that now is.
pub(super) fn log_changes(before: &BTreeMap<ServerId, Rc<Target>>, now: &Targets) {
    let now: BTreeMap<_, _> = now
        .values()
        .flatten()
        .map(|it| (it.target.server.id(), &it.target))
        .collect();
    let gone = before.iter().filter(|(id, _)| !now.contains_key(id));
    for (_, target) in gone.filter(|(_, it)| it.of.is_some()) {
        let (service, server) = (&*target.server.service.name, target.server.name());
        log::info!(service, server; "the name no longer has this address");
    }
    for (_, target) in now.iter().filter(|(id, _)| !before.contains_key(id)) {
        let (service, server) = (&*target.server.service.name, target.server.name());
        log::info!(service, server; "the name has this address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_a_server_whatever_the_order() {
        let server = |text: &str| config::Server::at(text.parse().expect("an address"));
        let ips = |texts: &[&str]| -> Vec<IpAddr> {
            let ips = texts.iter().map(|it| it.parse().expect("an address"));
            ips.collect()
        };
        let labels = |server: &config::Server, ips: Option<&[IpAddr]>| -> Vec<_> {
            let all = stands_for(server, ips).into_iter();
            all.map(|(label, address, of)| (label, address.to_string(), of.is_some()))
                .collect()
        };
        let text = str::to_owned;
        let mut nas = server("nas.lan:80");
        let own = (text("nas.lan:80"), text("nas.lan:80"), false);
        assert_eq!(labels(&nas, None), [own]);
        let answer = ips(&["fd00::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        let expected = ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"];
        let named = expected.map(|it| (format!("{it} (nas.lan:80)"), text(it), true));
        assert_eq!(labels(&nas, Some(&answer)), named);
        nas.name = Some("nas".to_owned());
        let named = expected.map(|it| (format!("{it} (nas)"), text(it), true));
        assert_eq!(labels(&nas, Some(&answer)), named);
        let many: Vec<_> = (0..1000).map(|n: u32| IpAddr::V4(n.into())).collect();
        assert_eq!(labels(&nas, Some(&many)).len(), MAX_ADDRESSES);
    }
}
