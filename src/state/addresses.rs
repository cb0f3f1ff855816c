//! Maps a socket's local address to the entrypoint that accepted it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use super::entrypoint::{Entrypoint, Local};
use super::identity::EntrypointId;
use super::sorted::Sorted;

/// The addresses of all live entrypoints, current and former.
#[derive(Debug, Default)]
pub struct Addresses {
    owners: HashMap<Local, EntrypointId>,
    groups: Sorted<EntrypointId, EntrypointId>,
}

impl Addresses {
    pub(super) fn of(entrypoints: &[Rc<Entrypoint>]) -> Self {
        let mut owners = HashMap::new();
        for it in entrypoints {
            owners.extend(it.listening().iter().map(|local| (plain(local), it.id())));
        }
        for it in entrypoints {
            for local in it.former() {
                owners.entry(plain(&local)).or_insert(it.id());
            }
        }
        let mut addresses = Self {
            owners,
            groups: entrypoints.iter().map(|it| (it.id(), it.id())).collect(),
        };
        for it in entrypoints {
            for former in it.former() {
                for other in entrypoints {
                    let (now, before) = (other.listening(), other.former());
                    let mut all = now.iter().chain(&before);
                    if all.any(|local| overlap(&former, local)) {
                        addresses.join(it.id(), other.id());
                    }
                }
            }
        }
        addresses
    }

    fn join(&mut self, a: EntrypointId, b: EntrypointId) {
        let (a, b) = (self.group_of(a), self.group_of(b));
        for group in self.groups.values_mut() {
            if *group == a.max(b) {
                *group = a.min(b);
            }
        }
    }

    /// Returns all addresses, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = &Local> {
        self.owners.keys()
    }

    /// Returns the group of entrypoints that `entrypoint` shares addresses with, identified by its
    /// oldest member.
    ///
    /// Entrypoints share an address when one took it over from another. The kernel cannot tell
    /// which of them a socket on that address belongs to.
    #[must_use]
    pub fn group_of(&self, entrypoint: EntrypointId) -> EntrypointId {
        self.groups.get(&entrypoint).copied().unwrap_or(entrypoint)
    }

    /// Returns the entrypoint that accepted the connection whose local address is `local`.
    ///
    /// That is the entrypoint listening on exactly this address or, failing that, on the wildcard
    /// address of the same family. (An accepted socket has its listener's family: an IPv4 client of
    /// a dual-stack listener has a mapped address, and an IPv4 client of an IPv4 listener does
    /// not.)
    #[must_use]
    pub fn entrypoint_of(&self, local: &Local) -> Option<EntrypointId> {
        let any = |address: &SocketAddr| -> IpAddr {
            match address {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            }
        };
        let exact = self.owners.get(&plain(local));
        let found = exact.or_else(|| match local {
            Local::Tcp(address) => {
                let any = SocketAddr::new(any(address), address.port());
                self.owners.get(&Local::Tcp(any))
            }
            Local::Unix(_) => None,
        });
        found.copied()
    }
}

/// Strips the flow label and the scope ID from an IPv6 address.
fn plain(local: &Local) -> Local {
    match local {
        Local::Tcp(address) => Local::Tcp(SocketAddr::new(address.ip(), address.port())),
        Local::Unix(path) => Local::Unix(path.clone()),
    }
}

/// Returns whether a socket could belong to either address.
fn overlap(a: &Local, b: &Local) -> bool {
    match (a, b) {
        (Local::Tcp(a), Local::Tcp(b)) => {
            let is_any = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (is_any || a.ip() == b.ip())
        }
        (Local::Unix(a), Local::Unix(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::state::{Branch, Guard, Peer, Protocol, Shared};

    fn local(text: &str) -> Local {
        Local::Tcp(text.parse().expect("an address"))
    }

    #[test]
    fn socket_belongs_to_the_most_specific_listener_of_its_family() {
        let shared = Shared::default();
        let registry = &shared.registry;
        let on = ["0.0.0.0:80", "[::]:80", "10.0.0.9:80", "0.0.0.0:81"];
        let entrypoints = on.map(|on| {
            let entrypoint = registry.entrypoint(on, Protocol::Tcp, Instant::now());
            registry.listens_on(&entrypoint, vec![local(on)]);
            entrypoint
        });
        let addresses = registry.addresses();
        for (socket, index) in [
            ("10.0.0.1:80", Some(0)),
            ("[fd00::1]:80", Some(1)),
            ("[::ffff:10.0.0.1]:80", Some(1)),
            ("10.0.0.9:80", Some(2)),
            ("10.0.0.9:81", Some(3)),
            ("[::ffff:10.0.0.9]:81", None),
            ("10.0.0.1:82", None),
        ] {
            let expected = index.map(|index: usize| entrypoints[index].id());
            let found = addresses.entrypoint_of(&local(socket));
            assert_eq!(found, expected, "{socket}");
        }
    }

    #[test]
    fn entrypoints_that_shared_an_address_form_a_group_while_connections_remain() {
        let shared = Shared::default();
        let registry = &shared.registry;
        let [old, new, other] = ["old", "new", "other"]
            .map(|name| registry.entrypoint(name, Protocol::Tcp, Instant::now()));
        registry.listens_on(&old, vec![local("0.0.0.0:80")]);
        registry.listens_on(&other, vec![local("0.0.0.0:81")]);
        let service = Branch::only(&registry.service("s"));
        let open = Guard::insert(
            &shared.conns,
            &old,
            Some(&service),
            Peer::Unix,
            Instant::now(),
        );
        registry.listens_on(&old, vec![local("0.0.0.0:82")]);
        registry.listens_on(&new, vec![local("10.0.0.1:80")]);
        let addresses = registry.addresses();
        let group = |it: &Entrypoint| addresses.group_of(it.id());
        assert_eq!(group(&old), group(&new));
        assert_ne!(group(&old), group(&other));
        let of = |text| addresses.entrypoint_of(&local(text));
        assert_eq!(of("10.0.0.1:80"), Some(new.id()));
        assert_eq!(of("10.0.0.2:80"), Some(old.id()), "accepted before");
        drop(open);
        registry.listens_on(&old, vec![local("0.0.0.0:82")]);
        let addresses = registry.addresses();
        assert_ne!(addresses.group_of(old.id()), addresses.group_of(new.id()));
        assert_eq!(addresses.entrypoint_of(&local("10.0.0.2:80")), None);
    }
}
