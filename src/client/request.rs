//! One request to an admin endpoint and its response, within a time limit.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::config::{Address, AdminEndpoint, Host};
use crate::sys;

/// Far larger than an audit of all connections that a process can have.
const ANSWER_BYTES: u64 = 512 << 20;

/// Enough for getaddrinfo(3), whatever the C library.
const STACK_BYTES: usize = 256 * 1024;

/// Why there is no answer, in one line that says what to do.
#[derive(Debug)]
pub struct Failure(pub(super) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Sends `request` and returns the whole response, head and body.
///
/// # Errors
/// Those of connecting, writing and reading. `TimedOut` after `limit`, wherever the time went.
pub(super) fn exchange(
    admin: &AdminEndpoint,
    request: Vec<u8>,
    limit: Duration,
) -> io::Result<String> {
    let (tell, told) = mpsc::channel();
    let admin = admin.clone();
    // On a thread, because looking up a name and connecting to a Unix socket have no time limit.
    sys::thread::spawn("request", STACK_BYTES, move || {
        let _ = tell.send(fetch(&admin, &request, limit));
    })
    .map_err(|error| io::Error::other(format!("no thread can be started: {error}")))?;
    told.recv_timeout(limit)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn fetch(admin: &AdminEndpoint, request: &[u8], limit: Duration) -> io::Result<String> {
    match &admin.0 {
        Address::Unix(path) => converse(UnixStream::connect(path)?, request),
        Address::Srv(_) => Err(io::ErrorKind::Unsupported.into()),
        Address::Tcp { host, port, .. } => {
            let addresses = match host {
                Host::Ip(ip) => vec![SocketAddr::new(*ip, *port)],
                Host::Name(name) => resolve(name, *port)?,
            };
            let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for address in addresses {
                match TcpStream::connect_timeout(&address, limit) {
                    Ok(stream) => return converse(stream, request),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        }
    }
}

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses = (name, port).to_socket_addrs();
    let addresses = addresses.map_err(|error| {
        // The resolver's own text, without the standard library's prefix.
        let error = error.to_string();
        let why = error.rsplit(": ").next().unwrap_or_default();
        io::Error::other(format!("the name cannot be resolved: {why}"))
    })?;
    Ok(addresses.collect())
}

fn converse(mut stream: impl Read + Write, request: &[u8]) -> io::Result<String> {
    match stream.write_all(request) {
        // The server responded before it read all of the request. The response says why.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) => {}
        written => written?,
    }
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
