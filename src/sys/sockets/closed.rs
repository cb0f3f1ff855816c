//! Recognises a TCP socket that both sides have closed, and finds its two addresses, which the
//! kernel's table has forgotten.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::getsockname;

use super::socket_table::{Query, TcpState};

/// Returns the local and peer addresses of a closed socket on one of the queried ports.
///
/// Once both sides have finished, the kernel's table has at most a row without an inode
/// (TIME_WAIT), or none, even while the descriptor is open. The socket itself still knows its state
/// and both addresses. The peer is `None` if the kernel does not report it.
pub(super) fn ends(
    descriptor: BorrowedFd<'_>,
    query: &Query,
) -> Option<(SocketAddr, Option<SocketAddr>)> {
    let local = SocketAddr::try_from(getsockname(descriptor).ok()?).ok()?;
    if query.ports.binary_search(&local.port()).is_err() {
        return None;
    }
    // The first byte of struct tcp_info is the state. Only TCP sockets have this option.
    let state = option::<1>(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    if TcpState(state[0]) != TcpState::CLOSED {
        return None;
    }
    // For a closed socket getpeername(2) fails with "not connected", but this option still returns
    // the peer. A socket that was never connected has neither and must not be counted. The kernel
    // refuses to return more bytes than the address has.
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERNAME);
    let peer = match local {
        SocketAddr::V4(_) => address(&option::<16>(descriptor, level, name)?),
        SocketAddr::V6(_) => address(&option::<28>(descriptor, level, name)?),
    };
    Some((local, peer))
}

/// Decodes a struct sockaddr_in or sockaddr_in6.
fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip: &[u8; 4] = name.get(4..)?.first_chunk()?;
            Some((Ipv4Addr::from(*ip), port).into())
        }
        libc::AF_INET6 => {
            let ip: &[u8; 16] = name.get(8..)?.first_chunk()?;
            Some((Ipv6Addr::from(*ip), port).into())
        }
        _ => None,
    }
}

/// Returns the first `N` bytes of an option's value.
fn option<const N: usize>(descriptor: BorrowedFd<'_>, level: i32, name: i32) -> Option<[u8; N]> {
    let mut value = [0_u8; N];
    let mut length = N as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is that long and valid for
    // any bytes, and the number of bytes written to `length`. Both outlive the call.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::getsockopt(
            descriptor.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &mut length,
        )
    };
    (answer == 0 && length as usize == N).then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn closed_socket_knows_both_addresses() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let at = listener.local_addr().unwrap();
            let query = Query {
                ports: vec![at.port()],
                ..Query::default()
            };
            let mut client = TcpStream::connect(at).unwrap();
            let (mut accepted, peer) = listener.accept().unwrap();
            let ends = |socket: BorrowedFd<'_>| ends(socket, &query);
            assert_eq!(ends(accepted.as_fd()), None);
            accepted.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            assert_eq!(ends(accepted.as_fd()), None);
            drop(client);
            assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
            assert_eq!(ends(accepted.as_fd()), Some((at, Some(peer))));
            assert_eq!(ends(listener.as_fd()), None);
        }
    }
}
