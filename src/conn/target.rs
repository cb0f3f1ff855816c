//! One server of a service.
//!
//! Detects whether it is one of this proxy's own listeners, which could lead a connection back to
//! where it came from.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{Address, Host};
use crate::net::{self, FileId, Line, Name, Names};
use crate::state::{EntrypointId, Server, ServerId, Sorted};

/// Where a server is, and which connections wait for it.
#[derive(Debug)]
pub struct Target {
    /// The server's state and counters.
    pub server: Rc<Server>,
    /// The server's address.
    pub address: Address,
    /// The address by name, if this is one of the addresses of a name that stands for several
    /// servers.
    pub of: Option<Address>,
    /// The server's host name, if it has one. It is resolved for as long as this target lives.
    pub name: Option<Rc<Name>>,
    /// The connections that wait for the server to have room.
    pub line: Line,
}

impl Target {
    /// Returns the address, by name if it has one.
    #[must_use]
    pub fn by_name(&self) -> &Address {
        self.of.as_ref().unwrap_or(&self.address)
    }
}

/// The servers of a service.
///
/// A reload changes them, and so does a name that stands for several servers.
#[derive(Debug, Default)]
pub struct Pool(RefCell<Rc<[Rc<Target>]>>);

impl Pool {
    /// Returns the servers, in configuration order.
    #[must_use]
    pub fn get(&self) -> Rc<[Rc<Target>]> {
        self.0.borrow().clone()
    }

    /// Replaces the servers for connections that have not chosen one yet.
    pub fn replace(&self, targets: Rc<[Rc<Target>]>) {
        // Drop the old list outside the borrow, because it may be the last owner of a server.
        let old = self.0.replace(targets);
        drop(old);
    }
}

pub(super) fn server(target: &Rc<Target>) -> &Server {
    &target.server
}

/// Which servers are listeners of this proxy, and where these lead.
///
/// Changes with the configuration.
#[derive(Debug, Default)]
pub struct Topology {
    /// For each server, the listeners of our own that it could be. Almost always empty.
    own: Sorted<ServerId, Vec<OwnListener>>,
    /// The servers of each entrypoint.
    onward: Sorted<EntrypointId, Rc<[Rc<Target>]>>,
}

impl Topology {
    /// Creates a topology of these entrypoints with their servers, and these listeners.
    #[must_use]
    pub fn new(onward: Sorted<EntrypointId, Rc<[Rc<Target>]>>, listeners: &[OwnListener]) -> Self {
        let mut own = Sorted::new();
        for target in onward.values().flat_map(|targets| targets.iter()) {
            let could_be = listeners.iter().filter(|own| own.may_be(&target.address));
            let could_be: Vec<_> = could_be.cloned().collect();
            if !could_be.is_empty() {
                own.insert(target.server.id(), could_be);
            }
        }
        Self { own, onward }
    }

    /// Returns the listeners of our own that this server could be.
    pub(super) fn own(&self, server: &Server) -> &[OwnListener] {
        self.own.get(&server.id()).map_or(&[], Vec::as_slice)
    }

    /// Returns true if a connection to entrypoint `to` can lead to entrypoint `from`.
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

/// The topology of the active configuration.
#[derive(Debug, Default)]
pub struct CurrentTopology(RefCell<Rc<Topology>>);

impl CurrentTopology {
    /// Returns the active topology.
    #[must_use]
    pub fn get(&self) -> Rc<Topology> {
        self.0.borrow().clone()
    }

    /// Activates another topology.
    pub fn replace(&self, topology: Topology) {
        let old = self.0.replace(Rc::new(topology));
        drop(old);
    }
}

/// One of this proxy's own listeners, as a possible destination of connections.
#[derive(Clone, Debug)]
pub struct OwnListener {
    /// The entrypoint that it belongs to.
    pub entrypoint: EntrypointId,
    /// The entrypoint's name.
    pub name: String,
    /// The address or path that it listens on.
    pub at: At,
}

/// The address or path of a listener.
#[derive(Clone, Debug)]
pub enum At {
    /// A TCP address, possibly the wildcard address, with the port that the kernel chose.
    Tcp {
        /// The address.
        address: SocketAddr,
        /// For `[::]`: true if it does not accept IPv4.
        v6only: bool,
    },
    /// A Unix socket.
    Unix {
        /// The socket's path.
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
    /// Returns true if a connection to `server` could end here: it has the same port or possibly
    /// the same file.
    ///
    /// This is decided once per configuration, so that dialling any other server costs nothing
    /// extra.
    #[must_use]
    pub fn may_be(&self, server: &Address) -> bool {
        match (&self.at, server) {
            (At::Tcp { address, .. }, Address::Tcp { port, last, .. }) => {
                (*port..=*last).contains(&address.port())
            }
            // Its ports are not known yet.
            (At::Tcp { .. }, Address::Srv(_)) => true,
            (At::Unix { path, .. }, Address::Unix(server)) => {
                let real = |path: &Path| std::fs::canonicalize(path).ok();
                path.file_name() == server.file_name()
                    || real(server).is_some_and(|server| real(path) == Some(server))
            }
            _ => false,
        }
    }

    /// Returns true if a connection to `to` currently ends here.
    pub(super) fn is_at(&self, to: SocketAddr) -> bool {
        match &self.at {
            At::Tcp { address, v6only } => takes(*address, *v6only, to, || net::is_here(to)),
            At::Unix { .. } => false,
        }
    }

    /// Returns true if a connection to the socket at `server` currently ends here.
    pub(super) fn is_path(&self, server: &Path) -> bool {
        match &self.at {
            At::Unix { file, .. } => FileId::of_socket(server).is_ok_and(|found| found == *file),
            At::Tcp { .. } => false,
        }
    }
}

/// Returns true if a connection to this server currently ends at this listener, as far as is known.
fn is_now(server: &Target, own: &OwnListener, names: &Names) -> bool {
    match &server.address {
        Address::Unix(path) => own.is_path(path),
        Address::Srv(_) => {
            let known = server.name.as_ref().and_then(|it| names.known_offers(it));
            known.is_some_and(|all| all.iter().any(|it| own.is_at(it.address)))
        }
        Address::Tcp { host, port, last } => {
            let At::Tcp { address, .. } = &own.at else {
                return false;
            };
            let port = address.port().clamp(*port, *last);
            let is_at = |ip| own.is_at(SocketAddr::new(ip, port));
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

/// Returns true if a listener at `own` accepts connections to `to`.
///
/// Calls `is_here`, which costs system calls, only if the answer depends on it.
fn takes(own: SocketAddr, v6only: bool, to: SocketAddr, is_here: impl FnOnce() -> bool) -> bool {
    let (ip, to_ip) = (own.ip().to_canonical(), to.ip().to_canonical());
    let is_same_family = ip.is_ipv4() == to_ip.is_ipv4();
    // Connecting to the unspecified address connects to loopback.
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
    fn exact_address_matches_only_itself() {
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
    fn wildcard_matches_local_addresses_of_its_families() {
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
    fn other_port_needs_no_address_check() {
        let own = "0.0.0.0:80".parse().expect("an address");
        let to = "192.168.1.5:81".parse().expect("an address");
        assert!(!takes(own, false, to, || unreachable!("no call needed")));
    }
}
