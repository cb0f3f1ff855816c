//! How connections to the servers of a service leave this machine.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

/// How connections to the servers of a service leave this machine, if the configuration says that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// From where.
    pub bind: Option<Bind>,
    /// Whether they come from the client's own address. Never set beside an address to bind.
    pub transparent: bool,
    /// The mark of their packets, for the firewall and for routing.
    pub mark: Option<NonZeroU32>,
    /// The class of their packets (RFC 2474), at most 63.
    pub dscp: Option<u8>,
}

/// From where connections leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// By this network interface.
    Interface(String),
    /// From this address, and from one of these ports, if there are any.
    Address(IpAddr, Option<RangeInclusive<u16>>),
}

impl Outgoing {
    /// Returns true if the configuration says nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the same for a connection that is not made for a client, such as a health check.
    #[must_use]
    pub fn without_client(&self) -> Self {
        Self {
            transparent: false,
            ..self.clone()
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => f.write_str(name),
            Self::Address(ip, None) => ip.fmt(f),
            Self::Address(IpAddr::V6(ip), Some(ports)) => {
                write!(f, "[{ip}]:{}-{}", ports.start(), ports.end())
            }
            Self::Address(ip, Some(ports)) => write!(f, "{ip}:{}-{}", ports.start(), ports.end()),
        }
    }
}

impl fmt::Display for Outgoing {
    /// Writes the settings in words, such as `from 10.0.0.2, mark 1, dscp 46`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bind,
            transparent,
            mark,
            dscp,
        } = self;
        let parts = [
            bind.as_ref().map(|bind| format!("from {bind}")),
            transparent.then(|| "transparent".to_owned()),
            mark.map(|mark| format!("mark {mark}")),
            dscp.map(|dscp| format!("dscp {dscp}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}
