//! The addresses in a configuration, and how they are parsed and printed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::diagnostic::{Mistake, is_unprintable, shown, wrong};
use super::host::{
    Host, HostText, host_and_port, is_srv, listen_host, port, ports, srv_name, target_host,
};

/// What an entrypoint listens on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP address, or the addresses of a range of ports. Port 0 lets the kernel choose.
    Tcp {
        /// The address, with the first port.
        address: SocketAddr,
        /// The last port: that of `address`, unless this is a range.
        last: u16,
        /// For `[::]`: whether IPv4 clients are left to another listener on the same port.
        v6only: bool,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host and a port.
    Tcp {
        /// The host.
        host: Host,
        /// The port, never 0, or the first port of a range.
        port: u16,
        /// The last port: `port`, unless this is a range, whose ports belong to those of the
        /// entrypoint in order.
        last: u16,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A name such as `_mqtt._tcp.example.org`, whose SRV records are resolved at run time.
    Srv(String),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, last, .. } => {
                write!(f, "{address}{}", Until(address.port(), *last))
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                host: Host::Ip(IpAddr::V6(ip)),
                port,
                last,
            } => write!(f, "[{ip}]:{port}{}", Until(*port, *last)),
            Self::Tcp { host, port, last } => write!(f, "{host}:{port}{}", Until(*port, *last)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Srv(name) => f.write_str(name),
        }
    }
}

/// Prints the end of a range of ports, such as `-5010`, or nothing if it is one port.
struct Until(u16, u16);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 == self.1 {
            true => Ok(()),
            false => write!(f, "-{}", self.1),
        }
    }
}

impl FromStr for Listen {
    type Err = Mistake;

    /// Parses `IP:port`, `IP:first-last`, `[IPv6]:port`, `unix:/path`, or `*:port` or `:port` for all interfaces.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Self::Unix);
        }
        let (host, port_text) = host_and_port(text, "127.0.0.1")?;
        let ip = listen_host(host, port_text)?;
        Ok(match ports(port_text)? {
            Some((first, last)) => Self::Tcp {
                address: SocketAddr::new(ip, first),
                last,
                v6only: false,
            },
            None => Self::tcp(ip, port(port_text)?),
        })
    }
}

impl Listen {
    pub(super) fn tcp(ip: IpAddr, port: u16) -> Self {
        Self::Tcp {
            address: SocketAddr::new(ip, port),
            last: port,
            v6only: false,
        }
    }

    /// Returns the ports, of which a Unix socket has none.
    #[must_use]
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        match self {
            Self::Tcp { address, last, .. } => Some(address.port()..=*last),
            Self::Unix(_) => None,
        }
    }

    /// Returns whether this is a range of ports.
    #[must_use]
    pub fn is_range(&self) -> bool {
        self.ports()
            .is_some_and(|ports| ports.start() != ports.end())
    }

    /// Returns the sockets that this takes: one for each port.
    #[must_use]
    pub fn each(&self) -> Vec<Self> {
        let Self::Tcp {
            address, v6only, ..
        } = self
        else {
            return vec![self.clone()];
        };
        let at = |port| Self::Tcp {
            address: SocketAddr::new(address.ip(), port),
            last: port,
            v6only: *v6only,
        };
        self.ports().into_iter().flatten().map(at).collect()
    }
}

impl FromStr for Address {
    type Err = Mistake;

    /// Parses `host:port`, `[IPv6]:port`, `unix:/path` or `_service._tcp.domain`.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Self::Unix);
        }
        if is_srv(text) && !text.contains(':') {
            return srv_name(text).map(Self::Srv);
        }
        let (host, port_text) = host_and_port(text, "192.168.1.10")?;
        match ports(port_text)? {
            Some((port, last)) => {
                let host = target_host(host, port_text)?;
                Ok(Self::Tcp { host, port, last })
            }
            None => Self::tcp(host, port_text),
        }
    }
}

impl Address {
    /// Returns the port, or the first of a range, if one is configured.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } => Some(*port),
            Self::Unix(_) | Self::Srv(_) => None,
        }
    }

    pub(super) fn tcp(host: HostText<'_>, port_text: &str) -> Result<Self, Mistake> {
        let host = target_host(host, port_text)?;
        match port(port_text)? {
            0 => wrong("cannot connect to port 0; a port is a number from 1 to 65535"),
            port => Ok(Self::Tcp {
                host,
                port,
                last: port,
            }),
        }
    }

    /// Returns the ports, if they are configured.
    #[must_use]
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        match self {
            Self::Tcp { port, last, .. } => Some(*port..=*last),
            Self::Unix(_) | Self::Srv(_) => None,
        }
    }

    /// Returns whether this is a range of ports.
    #[must_use]
    pub fn is_range(&self) -> bool {
        self.ports()
            .is_some_and(|ports| ports.start() != ports.end())
    }
}

/// Checks the path that follows `unix:`.
pub(super) fn unix_path(path: &str) -> Result<PathBuf, Mistake> {
    socket_path(&format!("unix:{path}"), path, "unix:/run/app.sock")
}

/// Checks the path of a Unix socket. Error messages quote `text`, the setting as written, and
/// suggest `example`.
pub(super) fn socket_path(text: &str, path: &str, example: &str) -> Result<PathBuf, Mistake> {
    /// `sun_path` has 108 bytes, including the terminating zero: unix(7).
    const MAX_BYTES: usize = 107;
    if !path.starts_with('/') {
        return wrong(format!(
            "`{}` is not an absolute path; write one such as `{example}`",
            shown(text)
        ));
    }
    if path.ends_with('/') {
        return wrong(format!(
            "`{}` is a directory; write the path of a socket, such as `{example}`",
            shown(text)
        ));
    }
    if path.contains(is_unprintable) {
        return wrong(format!("`{}` contains a control character", shown(text)));
    }
    if path.len() > MAX_BYTES {
        return wrong(format!(
            "the socket path has {} bytes; the limit is {MAX_BYTES}",
            path.len()
        ));
    }
    Ok(PathBuf::from(path))
}
