//! A blocking client for SRV records (RFC 2782). It asks the name servers of /etc/resolv.conf.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::dns::{self, Record, Reply};
use super::resolv_conf::ResolvConf;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The most of that file that is read.
const MAX_CONF_BYTES: u64 = 64 * 1024;
/// More than a datagram has without EDNS, which is 512.
const DATAGRAM_BYTES: usize = 4096;

/// Returns the SRV records of a name: none if the name exists, but offers no such service.
///
/// Blocks for about `limit` at most.
///
/// # Errors
/// If no name server answers, or the name has no such records.
pub(super) fn records(name: &str, limit: Duration) -> io::Result<Vec<Record>> {
    let deadline = Instant::now() + limit;
    let mut text = Vec::new();
    if let Ok(file) = File::open(RESOLV_CONF) {
        file.take(MAX_CONF_BYTES).read_to_end(&mut text)?;
    }
    let conf = ResolvConf::parse(&String::from_utf8_lossy(&text), interface);
    // Each server gets its turn within the limit.
    let turns = u32::try_from(conf.servers.len()).unwrap_or(1) * conf.attempts;
    let client = Client {
        timeout: conf.timeout.min(limit / turns),
        deadline,
    };
    let mut servers = conf.servers.clone();
    let mut failure = None;
    for name in conf.candidates(name) {
        match client.ask_all(&mut servers, conf.attempts, &name) {
            Ok(records) if records.is_empty() => {}
            Ok(mut records) => {
                records.retain(|it| !it.target.is_empty());
                return Ok(records);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("the name has no SRV record")))
}

/// Returns the number of a network interface.
fn interface(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
    text.ok()?.trim().parse().ok()
}

struct Client {
    /// How long one server may take.
    timeout: Duration,
    deadline: Instant,
}

impl Client {
    /// Asks one server after the other. The one that answers becomes the first.
    fn ask_all(
        &self,
        servers: &mut [SocketAddr],
        attempts: u32,
        name: &str,
    ) -> io::Result<Vec<Record>> {
        let mut failure = None;
        for _ in 0..attempts {
            for n in 0..servers.len() {
                match self.ask(servers[n], name) {
                    Ok(records) => {
                        servers[..=n].rotate_right(1);
                        return Ok(records);
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
    }

    fn ask(&self, server: SocketAddr, name: &str) -> io::Result<Vec<Record>> {
        let told = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer".to_owned(),
                _ => error.to_string(),
            };
            io::Error::other(format!("name server {}: {why}", server.ip()))
        };
        let query = dns::query(random(), name).ok_or(io::ErrorKind::InvalidInput)?;
        let mut reply = self.over_udp(server, &query).map_err(told)?;
        if reply == Reply::Truncated {
            reply = self.over_tcp(server, &query).map_err(told)?;
        }
        match reply {
            Reply::Records(records) => Ok(records),
            Reply::Failed(code) => Err(told(io::Error::other(match code {
                2 => "server failure".to_owned(),
                5 => "refused".to_owned(),
                code => format!("error {code}"),
            }))),
            _ => Err(told(io::Error::other("the answer is malformed"))),
        }
    }

    /// Returns the first reply that belongs to the query. The kernel passes on only what comes from
    /// the server's address and port.
    fn over_udp(&self, server: SocketAddr, query: &[u8]) -> io::Result<Reply> {
        let until = self.until();
        let own = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(own)?;
        socket.connect(server)?;
        socket.send(query)?;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            socket.set_read_timeout(Some(left(until)?))?;
            let n = match socket.recv(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            match dns::reply(&buffer[..n], query) {
                Reply::Unrelated => {}
                reply => return Ok(reply),
            }
        }
    }

    fn over_tcp(&self, server: SocketAddr, query: &[u8]) -> io::Result<Reply> {
        let until = self.until();
        let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
        stream.set_write_timeout(Some(left(until)?))?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), query].concat())?;
        let mut length = [0; 2];
        read_exact(&mut stream, &mut length, until)?;
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        read_exact(&mut stream, &mut message, until)?;
        Ok(dns::reply(&message, query))
    }

    fn until(&self) -> Instant {
        self.deadline.min(Instant::now() + self.timeout)
    }
}

/// Fills the buffer. A server that sends single bytes gets no more time than one that sends none.
fn read_exact(stream: &mut TcpStream, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => buffer = &mut buffer[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns how much time is left.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// Returns a number that cannot be guessed: its keys are the kernel's random bytes.
fn random() -> u16 {
    let [a, b, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    u16::from_ne_bytes([a, b])
}
