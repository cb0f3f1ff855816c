//! The address at which a client reaches a running coracle's admin endpoint.

use std::fmt;
use std::str::FromStr;

use super::address::{Address, unix_path};
use super::diagnostic::{Mistake, wrong};
use super::host::{Host, HostText, host_and_port};
use super::model::defaults;

/// The address of a running coracle's admin endpoint, as a client writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminEndpoint(pub Address);

impl Default for AdminEndpoint {
    fn default() -> Self {
        Self(Address::Tcp {
            host: Host::Ip(defaults::ADMIN.ip()),
            port: defaults::ADMIN.port(),
            last: defaults::ADMIN.port(),
        })
    }
}

impl fmt::Display for AdminEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AdminEndpoint {
    type Err = Mistake;

    /// Parses `host:port`, `[IPv6]:port` or `unix:/path`.
    ///
    /// Also accepts the forms in which `admin.listen` names all interfaces; they mean loopback.
    fn from_str(text: &str) -> Result<Self, Mistake> {
        if text == "off" {
            return wrong(
                "`off` is not an address: coracle cannot be queried while its admin endpoint is off; write one such as `127.0.0.1:2672`",
            );
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(|path| Self(Address::Unix(path)));
        }
        let (host, port) = host_and_port(text, "127.0.0.1")?;
        let host = match host {
            HostText::Plain("" | "*" | "0.0.0.0") => HostText::Plain("127.0.0.1"),
            HostText::Bracketed("::") => HostText::Bracketed("::1"),
            host => host,
        };
        Address::tcp(host, port).map(Self)
    }
}
