//! Connections that leave from a chosen address, by a chosen interface, or with marked packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net;
use socket2::SockRef;

use super::connect::new_tcp;
use super::keepalive::Keepalive;
use super::stream::Stream;
use crate::net::reactor::Reactor;
use crate::state::{Bind, Outgoing};
use crate::sys::socket_option::set_bind_address_no_port;

/// How many ports of a range are tried for one connection.
const TRIES: u16 = 256;

/// A setting that the kernel refuses, and its error.
#[derive(Debug)]
pub struct Refused {
    /// The key in the configuration.
    pub key: &'static str,
    /// The kernel's error.
    pub error: Errno,
}

impl From<Refused> for io::Error {
    /// Keeps the kernel's number only of errors that say that something is lacking for now.
    fn from(Refused { key, error }: Refused) -> Self {
        match error {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => error.into(),
            // Without IP_BIND_ADDRESS_NO_PORT: no port is left.
            Errno::ADDRINUSE => Errno::ADDRNOTAVAIL.into(),
            _ => {
                let error = io::Error::from(error);
                Self::new(error.kind(), format!("{key}: {error}"))
            }
        }
    }
}

impl Stream {
    /// Starts to connect to `address` as `outgoing` says; see [`Stream::start_tcp`]. `client` is
    /// whose address the server sees if that is transparent.
    ///
    /// # Errors
    /// The kernel's, with the key of the setting that it refuses. `AddrNotAvailable` if all ports
    /// that may be used are taken.
    pub(in crate::net) fn start_outgoing(
        reactor: &Rc<Reactor>,
        address: SocketAddr,
        keepalive: Option<Keepalive>,
        outgoing: &Outgoing,
        client: Option<IpAddr>,
    ) -> io::Result<Self> {
        let (ip, ports) = match &outgoing.bind {
            Some(Bind::Address(ip, ports)) => (Some(*ip), ports.as_ref()),
            _ => (client.filter(|_| outgoing.transparent), None),
        };
        if let Some(ip) = ip
            && ip.is_ipv4() != address.is_ipv4()
        {
            let text = match outgoing.transparent {
                true => format!("transparent: the client's address {ip} is of another family"),
                false => format!("bind: {ip} is of another family"),
            };
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
        }
        let start = |port: u16| {
            let fd = new_tcp(reactor, address)?;
            prepare(&fd, address.is_ipv4(), outgoing)?;
            if let Some(ip) = ip {
                bind(&fd, SocketAddr::new(ip, port))?;
            }
            Self::connect_tcp(reactor, fd, address, keepalive)
        };
        let Some(ports) = ports else {
            return start(0);
        };
        let n = ports.end() - ports.start();
        let first = fastrand::u16(..=n);
        for i in 0..=n.min(TRIES - 1) {
            let offset = (u32::from(first) + u32::from(i)) % (u32::from(n) + 1);
            let port = ports.start() + u16::try_from(offset).unwrap_or(0);
            match start(port) {
                // A connection of this port to this server is open, or was a moment ago.
                Err(error) if is_taken(&error) => {}
                started => return started,
            }
        }
        Err(Errno::ADDRNOTAVAIL.into())
    }
}

fn is_taken(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL)
}

/// Tries on a new socket what `Stream::start_outgoing` does before it connects.
///
/// # Errors
/// The first setting that the kernel refuses.
pub fn try_outgoing(outgoing: &Outgoing) -> Result<(), Refused> {
    let any = match &outgoing.bind {
        Some(Bind::Address(IpAddr::V6(_), _)) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        _ => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
    };
    let family = match any.is_ipv4() {
        true => net::AddressFamily::INET,
        false => net::AddressFamily::INET6,
    };
    let flags = net::SocketFlags::CLOEXEC;
    let fd = net::socket_with(family, net::SocketType::STREAM, flags, None);
    let fd = fd.map_err(|error| Refused { key: "bind", error })?;
    prepare(&fd, any.is_ipv4(), outgoing)?;
    let Some(Bind::Address(ip, ports)) = &outgoing.bind else {
        return Ok(());
    };
    let port = ports.as_ref().map_or(0, |ports| *ports.start());
    match bind(&fd, SocketAddr::new(*ip, port)) {
        // Another connection may have the port.
        Err(Refused {
            error: Errno::ADDRINUSE,
            ..
        }) => Ok(()),
        bound => bound,
    }
}

fn prepare(fd: impl AsFd, is_ipv4: bool, outgoing: &Outgoing) -> Result<(), Refused> {
    let Outgoing {
        bind,
        transparent,
        mark,
        dscp,
    } = outgoing;
    let socket = SockRef::from(&fd);
    if let Some(Bind::Interface(name)) = bind {
        refused("bind", socket.bind_device(Some(name.as_bytes())))?;
    }
    if let Some(mark) = mark {
        refused("mark", socket.set_mark(mark.get()))?;
    }
    if let Some(dscp) = dscp {
        // The two lowest bits are those of ECN.
        let class = u32::from(*dscp) << 2;
        let set = match is_ipv4 {
            true => socket.set_tos_v4(class),
            false => socket.set_tclass_v6(class),
        };
        refused("dscp", set)?;
    }
    if *transparent {
        let set = match is_ipv4 {
            true => socket.set_ip_transparent_v4(true),
            false => socket.set_ip_transparent_v6(true),
        };
        refused("transparent", set)?;
    }
    Ok(())
}

fn bind(fd: impl AsFd, address: SocketAddr) -> Result<(), Refused> {
    let socket = SockRef::from(&fd);
    match address.port() {
        // Without it the kernel chooses a port at once, one that no other connection has.
        0 => drop(set_bind_address_no_port(fd.as_fd())),
        // For a port that has connections to other servers, or had one to this.
        _ => refused("bind", socket.set_reuse_address(true))?,
    }
    refused("bind", socket.bind(&address.into()))
}

fn refused(key: &'static str, outcome: io::Result<()>) -> Result<(), Refused> {
    outcome.map_err(|error| Refused {
        key,
        error: Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
    })
}
