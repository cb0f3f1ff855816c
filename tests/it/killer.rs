//! Ends connections of a running coracle over its control socket and over TCP, and counts them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use socket2::{Domain, Socket, Type};

use crate::control::{ask, post};
use crate::support;
use crate::support::backend::Script;
use crate::support::http::http;

/// Ends connections, by turns over the control socket and over TCP with the token, each by its client's address, which no other has.
pub(super) struct Killer {
    /// One order at a time: a client that has not sent its request yet gives way to the next.
    socket: Mutex<PathBuf>,
    admin: OnceLock<SocketAddr>,
    orders: AtomicU32,
    addresses: AtomicU32,
    killed: AtomicU64,
}

impl Killer {
    /// The token that coracle's configuration must name.
    pub(super) const TOKEN: &str = "a-token-of-the-tests";
    const FIRST: u32 = u32::from_be_bytes([127, 16, 0, 0]);

    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket: Mutex::new(socket),
            admin: OnceLock::new(),
            orders: AtomicU32::new(0),
            addresses: AtomicU32::new(0),
            killed: AtomicU64::new(0),
        }
    }

    /// Says where the admin endpoint is. Without this, every order goes over the control socket.
    pub(super) fn over_tcp(self, admin: SocketAddr) -> Self {
        let _ = self.admin.set(admin);
        self
    }

    /// How many connections it has ended.
    pub(super) fn killed(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }

    /// Connects from an address of its own.
    pub(super) fn connect(&self, address: SocketAddr) -> TcpStream {
        let n = self.addresses.fetch_add(1, Ordering::Relaxed);
        let own = SocketAddr::from((Ipv4Addr::from_bits(Self::FIRST + n), 0));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        stream
    }

    /// Requests a script from an address of its own, and waits for the server's first byte.
    pub(super) fn begin(&self, address: SocketAddr, script: Script, n: u64) -> TcpStream {
        let mut stream = self.connect(address);
        stream.write_all(&script.request(n)).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    }

    /// Kills the connection of a client that connected from an address of its own. Returns whether
    /// it was in the set.
    pub(super) fn kill(&self, client: &TcpStream) -> bool {
        let peer = client.local_addr().unwrap().ip();
        let socket = self.socket.lock().unwrap();
        let target = format!("/api/v1/kill?peer={peer}");
        let n = self.orders.fetch_add(1, Ordering::Relaxed);
        let (status, told) = match self.admin.get().filter(|_| n % 2 == 1) {
            Some(admin) => {
                let token = Self::TOKEN;
                let (status, _, told) = http(
                    *admin,
                    format!("POST {target} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n"),
                );
                (status, told)
            }
            None => ask(&socket, post(&target, "")),
        };
        assert_eq!(status, 200, "{told}");
        let n = match &*told {
            "0 connections ended\n" => 0,
            "1 connection ended\n" => 1,
            _ => panic!("{told}"),
        };
        self.killed.fetch_add(n, Ordering::Relaxed);
        n == 1
    }

    /// Whether a client connected from an address of its own.
    pub(super) fn may_kill(client: &TcpStream) -> bool {
        match client.local_addr().unwrap().ip() {
            IpAddr::V4(ip) => ip.to_bits() >= Self::FIRST,
            IpAddr::V6(_) => false,
        }
    }
}
