//! Which of this machine's addresses the kernel would talk from to another one. It is asked by a datagram socket, which sends nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// The address from which the kernel would reach `to`.
///
/// # Errors
/// The kernel's: `AddrNotAvailable` where this machine has no address that fits, `NetworkUnreachable` where there is no way.
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

/// Whether a connection to `to` stays on this machine: an address is reached from itself where it is one of our own.
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
    fn loopback_and_unspecified_are_here_and_the_world_is_not() {
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
        // Documentation's addresses (RFC 5737, RFC 3849) are nobody's.
        for to in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            assert!(!is_here(to.parse().expect("an address")), "{to}");
        }
    }

    #[test]
    fn an_address_of_an_interface_is_here() {
        // The address that this machine would talk to the world from, if it has one, is its own.
        let world = "192.0.2.1:9".parse().expect("an address");
        if let Ok(own) = towards(world) {
            assert!(is_here(SocketAddr::new(own, 9)), "{own}");
        }
    }
}
