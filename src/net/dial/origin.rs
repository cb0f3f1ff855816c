//! Finds the local address that the kernel would use to reach another address.
//!
//! Asks through a datagram socket, which sends nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// Returns the local address from which the kernel would reach `to`.
///
/// # Errors
/// The kernel's: `AddrNotAvailable` if this machine has no suitable address, `NetworkUnreachable`
/// if there is no route.
pub(super) fn towards(to: SocketAddr) -> io::Result<IpAddr> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::DGRAM, flags, None)?;
    net::connect(&socket, &to)?;
    let own = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok(own.ip())
}

/// Returns true if a connection to `to` stays on this machine.
///
/// The kernel reaches each of its own addresses from that address itself.
#[must_use]
pub fn is_here(to: SocketAddr) -> bool {
    let ip = to.ip().to_canonical();
    let is_own = || towards(to).is_ok_and(|own| own.to_canonical() == ip);
    ip.is_loopback() || ip.is_unspecified() || is_own()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local_and_remote_addresses_are_not() {
        let here = [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "0.0.0.0:1",
            "[::]:1",
            "[::ffff:127.0.0.1]:1",
        ];
        for to in here {
            assert!(is_here(to.parse().expect("an address")), "{to}");
        }
        // Documentation addresses (RFC 5737, RFC 3849) belong to no machine.
        for to in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            assert!(!is_here(to.parse().expect("an address")), "{to}");
        }
    }

    #[test]
    fn interface_address_is_local() {
        // The source address for outside destinations, if there is one, is this machine's own.
        let world = "192.0.2.1:9".parse().expect("an address");
        if let Ok(own) = towards(world) {
            assert!(is_here(SocketAddr::new(own, 9)), "{own}");
        }
    }
}
