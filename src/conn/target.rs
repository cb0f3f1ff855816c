//! One server of a service, and whether it is one of this proxy's own listeners, which may lead back to where the connection came from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{Address, Host};
use crate::net::{self, FileId, Line, Name, Names};
use crate::state::{EntrypointId, Server, ServerId};

/// Where a server is, and who waits for it.
#[derive(Debug)]
pub struct Target {
    /// What is known of it.
    pub server: Rc<Server>,
    /// Its address.
    pub address: Address,
    /// Its host's name, if it has one, which is looked up for as long as this lives.
    pub name: Option<Rc<Name>>,
    /// The connections for which it has no room at the moment.
    pub line: Line,
}

/// Which servers are listeners of this proxy, and where these lead. It changes with the configuration.
#[derive(Debug, Default)]
pub struct Topology {
    /// Of each server those of our own listeners that it could be. Nearly always none are.
    own: BTreeMap<ServerId, Vec<OwnListener>>,
    /// The servers of each entrypoint.
    onward: BTreeMap<EntrypointId, Rc<[Rc<Target>]>>,
}

impl Topology {
    /// Of these entrypoints with their servers, and these listeners.
    #[must_use]
    pub fn new(
        onward: BTreeMap<EntrypointId, Rc<[Rc<Target>]>>,
        listeners: &[OwnListener],
    ) -> Self {
        let mut own = BTreeMap::new();
        for target in onward.values().flat_map(|targets| targets.iter()) {
            let could_be = listeners.iter().filter(|own| own.may_be(&target.address));
            let could_be: Vec<_> = could_be.cloned().collect();
            if !could_be.is_empty() {
                own.insert(target.server.id(), could_be);
            }
        }
        Self { own, onward }
    }

    /// Those of our own listeners that this server could be.
    pub(super) fn own(&self, server: &Server) -> &[OwnListener] {
        self.own.get(&server.id()).map_or(&[], Vec::as_slice)
    }

    /// Whether entrypoint `from` is among those that a connection to entrypoint `to` can lead to.
    pub(super) fn leads_back(&self, names: &Names, from: EntrypointId, to: EntrypointId) -> bool {
        let mut seen = Vec::new();
        let mut ends = vec![to];
        while let Some(at) = ends.pop() {
            if at == from {
                return true;
            }
            if seen.contains(&at) {
                continue;
            }
            seen.push(at);
            let targets = self.onward.get(&at).into_iter().flat_map(|it| it.iter());
            let own = targets.flat_map(|it| self.own(&it.server).iter().map(move |own| (it, own)));
            let own = own.filter(|(target, own)| is_now(target, own, names));
            ends.extend(own.map(|(_, own)| own.entrypoint));
        }
        false
    }
}

/// The topology of the configuration in force.
#[derive(Debug, Default)]
pub struct CurrentTopology(RefCell<Rc<Topology>>);

impl CurrentTopology {
    /// The one in force.
    #[must_use]
    pub fn get(&self) -> Rc<Topology> {
        self.0.borrow().clone()
    }

    /// Another one comes into force.
    pub fn replace(&self, topology: Topology) {
        let old = self.0.replace(Rc::new(topology));
        drop(old);
    }
}

/// One of this proxy's own listeners, seen as a place where a connection may lead.
#[derive(Clone, Debug)]
pub struct OwnListener {
    /// The entrypoint that it belongs to.
    pub entrypoint: EntrypointId,
    /// The name of that entrypoint.
    pub name: String,
    /// Where it listens.
    pub at: At,
}

/// Where a listener listens.
#[derive(Clone, Debug)]
pub enum At {
    /// At an address, perhaps that of all interfaces, with the port that the kernel chose.
    Tcp {
        /// The address.
        address: SocketAddr,
        /// For `[::]`: whether IPv4 is left to others.
        v6only: bool,
    },
    /// At a path.
    Unix {
        /// The path.
        path: PathBuf,
        /// The socket's file.
        file: FileId,
    },
}

impl fmt::Display for OwnListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Tcp { address, .. } => address.fmt(f)?,
            At::Unix { path, .. } => write!(f, "unix:{}", path.display())?,
        }
        write!(f, " of entrypoint `{}`", self.name)
    }
}

impl OwnListener {
    /// Whether a connection to `server` could end here: it has the same port, or perhaps the same file. Decided once, so that all other
    /// servers cost nothing when they are dialled.
    #[must_use]
    pub fn may_be(&self, server: &Address) -> bool {
        match (&self.at, server) {
            (At::Tcp { address, .. }, Address::Tcp { port, .. }) => address.port() == *port,
            (At::Unix { path, .. }, Address::Unix(server)) => {
                let real = |path: &Path| std::fs::canonicalize(path).ok();
                path.file_name() == server.file_name()
                    || real(server).is_some_and(|server| real(path) == Some(server))
            }
            _ => false,
        }
    }

    /// Whether a connection to `to` ends here now.
    pub(super) fn is_at(&self, to: SocketAddr) -> bool {
        match &self.at {
            At::Tcp { address, v6only } => takes(*address, *v6only, to, || net::is_here(to)),
            At::Unix { .. } => false,
        }
    }

    /// Whether a connection to the socket at `server` ends here now.
    pub(super) fn is_path(&self, server: &Path) -> bool {
        match &self.at {
            At::Unix { file, .. } => FileId::of_socket(server).is_ok_and(|found| found == *file),
            At::Tcp { .. } => false,
        }
    }
}

/// Whether a connection to this server ends at this listener, as far as is known.
fn is_now(server: &Target, own: &OwnListener, names: &Names) -> bool {
    match &server.address {
        Address::Unix(path) => own.is_path(path),
        Address::Tcp { host, port } => {
            let is_at = |ip| own.is_at(SocketAddr::new(ip, *port));
            match (host, &server.name) {
                (Host::Ip(ip), _) => is_at(*ip),
                (Host::Name(_), Some(name)) => {
                    let known = names.known(name);
                    known.is_some_and(|ips| ips.iter().copied().any(is_at))
                }
                (Host::Name(_), None) => false,
            }
        }
    }
}

/// Whether a listener at `own` takes what is sent to `to`. Whether that is an address of this machine is asked only if all depends on it.
fn takes(own: SocketAddr, v6only: bool, to: SocketAddr, is_here: impl FnOnce() -> bool) -> bool {
    let (ip, to_ip) = (own.ip().to_canonical(), to.ip().to_canonical());
    let is_same_family = ip.is_ipv4() == to_ip.is_ipv4();
    // Connecting to the unspecified address leads to loopback.
    let is_of_all = ip.is_unspecified() && (is_same_family || (ip.is_ipv6() && !v6only));
    own.port() == to.port() && (ip == to_ip || (is_of_all && is_here()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes_from(own: &str, v6only: bool, to: &str, is_here: bool) -> bool {
        let address = |text: &str| text.parse().expect("an address");
        takes(address(own), v6only, address(to), || is_here)
    }

    #[test]
    fn an_exact_address_is_ours_and_its_neighbours_are_not() {
        assert!(takes_from("127.0.0.1:80", false, "127.0.0.1:80", true));
        assert!(takes_from(
            "127.0.0.1:80",
            false,
            "[::ffff:127.0.0.1]:80",
            true
        ));
        assert!(!takes_from("127.0.0.1:80", false, "127.0.0.1:81", true));
        assert!(!takes_from("127.0.0.1:80", false, "127.0.0.2:80", true));
        assert!(!takes_from("127.0.0.1:80", false, "[::1]:80", true));
    }

    #[test]
    fn a_wildcard_takes_what_is_here_in_the_families_it_serves() {
        for (own, v6only, to, expected) in [
            ("0.0.0.0:80", false, "192.168.1.5:80", true),
            ("0.0.0.0:80", false, "[::1]:80", false),
            ("[::]:80", false, "192.168.1.5:80", true),
            ("[::]:80", false, "[::1]:80", true),
            ("[::]:80", true, "192.168.1.5:80", false),
            ("[::]:80", true, "[::1]:80", true),
        ] {
            assert_eq!(takes_from(own, v6only, to, true), expected, "{own} {to}");
            assert!(!takes_from(own, v6only, to, false), "{own} {to}, elsewhere");
        }
    }

    #[test]
    fn nobody_is_asked_about_another_port() {
        let own = "0.0.0.0:80".parse().expect("an address");
        let to = "192.168.1.5:81".parse().expect("an address");
        assert!(!takes(own, false, to, || unreachable!("it costs calls")));
    }
}
