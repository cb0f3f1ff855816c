//! One server of a service, and whether it is one of this proxy's own listeners, which may lead back to where the connection came from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{Address, Host};
use crate::net::{self, FileId, Line, Names};

/// Where a server is, and who waits for it.
#[derive(Debug)]
pub struct Target {
    /// Its address.
    pub address: Address,
    /// The connections for which it has no room at the moment.
    pub line: Line,
    /// Those of this proxy's own listeners that it could be; nearly always none.
    pub own: Vec<OwnListener>,
}

impl Target {
    /// The server at `address`, with those of `listeners` that it could be.
    #[must_use]
    pub fn new(address: &Address, listeners: &[OwnListener]) -> Self {
        let own = listeners.iter().filter(|own| own.may_be(address));
        Self {
            address: address.clone(),
            line: Line::default(),
            own: own.cloned().collect(),
        }
    }
}

/// One of this proxy's own listeners, seen as a place where a connection may lead.
#[derive(Clone, Debug)]
pub struct OwnListener {
    /// The position of the entrypoint that it belongs to.
    pub entrypoint: usize,
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

/// Whether entrypoint `from` is among those that a connection to entrypoint `to` can lead to. `onward` has the servers of each entrypoint.
pub(super) fn leads_back(onward: &[Rc<[Target]>], names: &Names, from: usize, to: usize) -> bool {
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
        let targets = onward[at].iter();
        let own = targets.flat_map(|target| target.own.iter().map(move |own| (target, own)));
        let own = own.filter(|(target, own)| is_now(&target.address, own, names));
        ends.extend(own.map(|(_, own)| own.entrypoint));
    }
    false
}

/// Whether a connection to this server ends at this listener, as far as is known.
fn is_now(server: &Address, own: &OwnListener, names: &Names) -> bool {
    match server {
        Address::Unix(path) => own.is_path(path),
        Address::Tcp { host, port } => {
            let is_at = |ip| own.is_at(SocketAddr::new(ip, *port));
            match host {
                Host::Ip(ip) => is_at(*ip),
                Host::Name(name) => {
                    let known = names.known(name);
                    known.is_some_and(|ips| ips.iter().copied().any(is_at))
                }
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
