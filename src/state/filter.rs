//! Which connections an operator means.

use std::fmt;

use super::conns::Conn;
use super::identity::ConnId;
use super::network::Network;
use super::peer::Peer;

/// Which connections to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one with this identity.
    Id(ConnId),
    /// All that fit.
    Fitting(Filter),
}

/// What connections have in common. What is `None` says nothing; a connection fits if the rest
/// holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The client's address is in this network. A client over a Unix socket has none.
    pub peer: Option<Network>,
    /// The name of the entrypoint that accepted it.
    pub entrypoint: Option<String>,
    /// The name of the service it is for.
    pub service: Option<String>,
    /// The name of the server that it is connected to, or its address if it has no name.
    pub server: Option<String>,
}

impl Filter {
    /// Returns `true` if every connection fits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether a connection fits.
    #[must_use]
    pub fn fits(&self, conn: &Conn) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| match wanted {
            None => true,
            Some(wanted) => name == Some(wanted),
        };
        let peer_fits = self.peer.is_none_or(|network| match conn.peer() {
            Peer::Tcp(address) => network.contains(address.ip()),
            Peer::Unix => false,
        });
        peer_fits
            && is(&self.entrypoint, Some(conn.entrypoint.name()))
            && is(&self.service, conn.service().map(|it| &*it.name))
            && is(&self.server, conn.server().map(|it| it.name()))
    }
}

impl fmt::Display for Which {
    /// For the log, as on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = match self {
            Self::Id(id) => return id.fmt(f),
            Self::Fitting(filter) => filter,
        };
        let mut space = "";
        if let Some(network) = &filter.peer {
            write!(f, "--peer {network}")?;
            space = " ";
        }
        for (option, name) in [
            ("entrypoint", &filter.entrypoint),
            ("service", &filter.service),
            ("server", &filter.server),
        ] {
            if let Some(name) = name {
                write!(f, "{space}--{option} {name}")?;
                space = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::state::{Branch, Guard, Protocol, Shared};

    #[test]
    fn filters_combine() {
        let shared = Shared::default();
        let now = Instant::now();
        let service = Branch::only(&shared.registry.service("s"));
        let entrypoint = |name| shared.registry.entrypoint(name, Protocol::Tcp, now);
        let insert =
            |entrypoint, peer| Guard::insert(&shared.conns, &entrypoint, Some(&service), peer, now);
        let tcp =
            |text: &str| Peer::from(text.parse::<std::net::SocketAddr>().expect("an address"));
        let a = insert(entrypoint("a"), tcp("10.0.0.1:5"));
        let b = insert(entrypoint("b"), tcp("[::ffff:10.0.0.1]:5"));
        let unix = insert(entrypoint("b"), Peer::Unix);
        let fitting = |filter: &Filter| [&a, &b, &unix].map(|guard| filter.fits(guard.conn()));
        let peer = Some("10.0.0.0/8".parse().expect("a network"));
        let all = Filter::default();
        assert!(all.is_empty());
        assert_eq!(fitting(&all), [true; 3]);
        let mut filter = Filter { peer, ..all };
        assert_eq!(
            fitting(&filter),
            [true, true, false],
            "a Unix peer is in no network"
        );
        filter.entrypoint = Some("b".to_owned());
        assert_eq!(fitting(&filter), [false, true, false]);
        filter.service = Some("s".to_owned());
        assert_eq!(fitting(&filter), [false, true, false]);
        filter.server = Some("10.0.0.9:80".to_owned());
        assert_eq!(fitting(&filter), [false; 3], "none is connected");
        let shown = Which::Fitting(filter).to_string();
        assert_eq!(
            shown,
            "--peer 10.0.0.0/8 --entrypoint b --service s --server 10.0.0.9:80"
        );
    }
}
