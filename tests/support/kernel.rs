//! What the kernel says: sockets that a process owns, read from `/proc/net/tcp` and `tcp6`, and
//! from `ss`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

/// A row of `/proc/net/tcp` or `tcp6` (proc(5)): a socket that some process owns. Rows without an
/// inode, not accepted yet or already closed, are left out.
#[derive(Clone, Debug)]
pub struct TcpSocket {
    pub inode: String,
    /// The address of this end. An IPv4-mapped one is an IPv4 address.
    pub local_ip: IpAddr,
    pub local_port: u16,
    pub remote_port: u16,
    pub listens: bool,
    /// Bytes that the peer has not acknowledged.
    pub send_queue: u64,
    /// Bytes that its process has not read; for a listener, the connections waiting to be accepted.
    pub receive_queue: u64,
    /// What its timer is for: 2 is keep-alive, 4 probes a closed window.
    pub timer: u8,
}

impl TcpSocket {
    /// The socket of a row, with its inode.
    fn parse(row: &str) -> Option<(String, Self)> {
        const LISTEN: &str = "0A";
        let columns: Vec<_> = row.split_whitespace().collect();
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        let (timer, _) = columns[5].split_once(':')?;
        let (send, receive) = columns[4].split_once(':')?;
        let inode = columns[9];
        let socket = Self {
            inode: inode.to_owned(),
            local_ip: ip(columns[1].split(':').next()?)?,
            local_port: port(columns[1])?,
            remote_port: port(columns[2])?,
            listens: columns[3] == LISTEN,
            send_queue: u64::from_str_radix(send, 16).ok()?,
            receive_queue: u64::from_str_radix(receive, 16).ok()?,
            timer: u8::from_str_radix(timer, 16).ok()?,
        };
        (inode != "0").then(|| (inode.to_owned(), socket))
    }
}

/// Parses an address: words of 32 bits in hexadecimal, each of which the machine has read as one
/// number.
fn ip(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let words: Vec<_> = words.collect::<Option<_>>()?;
    match *words.as_flattened() {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        ref bytes => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
    }
}

/// All TCP sockets that some process owns.
pub fn tcp_sockets() -> Vec<TcpSocket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    // Keyed by inode: while others come and go, the kernel may show a row twice.
    let sockets: BTreeMap<_, _> = rows.filter_map(TcpSocket::parse).collect();
    sockets.into_values().collect()
}

/// Whether some process listens on local port `port`.
pub fn listens(port: u16) -> bool {
    let is_it = |socket: &TcpSocket| socket.local_port == port && socket.listens;
    tcp_sockets().iter().any(is_it)
}

/// Connected sockets at this local address that some process owns.
///
/// Their port alone does not do: the kernel gives a client that binds another address of loopback
/// any port that is free there, the listener's too.
pub fn connections(address: SocketAddr) -> usize {
    let is_ours = |socket: &&TcpSocket| {
        (socket.local_ip, socket.local_port) == (address.ip(), address.port()) && !socket.listens
    };
    tcp_sockets().iter().filter(is_ours).count()
}

/// The socket at one end of a connection: on port `local`, connected to port `remote`.
pub fn end(local: u16, remote: u16) -> Option<TcpSocket> {
    let is_it = |socket: &TcpSocket| (socket.local_port, socket.remote_port) == (local, remote);
    tcp_sockets().into_iter().find(is_it)
}

/// Whether the socket on port `local` has bytes for port `remote`, whose full kernel buffer takes
/// no more.
pub fn has_closed_window(local: u16, remote: u16) -> bool {
    const WINDOW_PROBE: u8 = 4;
    end(local, remote).is_some_and(|socket| socket.timer == WINDOW_PROBE)
}

/// Connected Unix sockets accepted at `path`: the kernel names them by their listener's path.
pub fn unix_connections(path: &str) -> usize {
    const CONNECTED: &str = "03";
    // Of all processes, and a path may be any bytes.
    let table = std::fs::read("/proc/net/unix").unwrap();
    let table = String::from_utf8_lossy(&table);
    let is_ours = |row: &&str| {
        let columns: Vec<_> = row.split_whitespace().collect();
        columns.get(7) == Some(&path) && columns[5] == CONNECTED && columns[6] != "0"
    };
    table.lines().skip(1).filter(is_ours).count()
}

/// The same as counted by `ss`.
pub fn connections_by_ss(address: SocketAddr) -> usize {
    let filter = format!("( src = {address} )");
    let output = Command::new("ss")
        .args(["-Htane", &filter])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let is_owned = |line: &&str| {
        !line.starts_with("LISTEN") && line.contains(" ino:") && !line.contains(" ino:0 ")
    };
    text.lines().filter(is_owned).count()
}
