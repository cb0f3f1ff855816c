//! Clients from addresses of loopback, and what they may see when they are refused.

use std::io::{self, ErrorKind, Read, Write};
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

/// Sends `bytes` to a coracle that resets the connection, which may happen before. One call reports
/// it.
pub fn is_cut(mut client: TcpStream, bytes: &[u8]) {
    let sent = client.write_all(bytes);
    let error = sent.and_then(|()| client.read(&mut [0])).unwrap_err();
    assert!(is_reset(&error), "{error}");
}
