//! Fallback for machines without IPv6: all their addresses are IPv4, so `0.0.0.0` is equivalent to
//! `[::]`.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use rustix::io::Errno;

/// Binds `address`, or `0.0.0.0` instead of `[::]` on a machine without IPv6.
pub(super) fn with_or_without_ipv6<T>(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match bind(address) {
        Err(error) if is_any(address) && is_no_ipv6(&error) => bind(any_ipv4(address)),
        bound => bound,
    }
}

/// Returns the address that [`with_or_without_ipv6`] would bind.
pub(super) fn effective(address: SocketAddr) -> SocketAddr {
    let bind_any = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
    match is_any(address) && bind_any().is_err_and(|error| is_no_ipv6(&error)) {
        true => any_ipv4(address),
        false => address,
    }
}

pub(super) fn is_no_ipv6(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn is_any(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn any_ipv4(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], address.port()))
}
