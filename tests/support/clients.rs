//! Clients from addresses of loopback, and what they may see when they are refused.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::DEADLINE;

/// Connects from an address of loopback. The reset of a client that is refused may arrive before
/// connect(2) has returned.
pub fn connect_from(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket.into())
}

/// Whether this error reports a reset: reading does by the one kind, writing by either.
pub fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
