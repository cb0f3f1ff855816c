//! Reads the kernel's sockets over NETLINK_SOCK_DIAG (sock_diag(7)), which needs no privileges.
//!
//! Messages are encoded and decoded as plain bytes in native byte order, with the layouts of
//! linux/netlink.h, linux/inet_diag.h and linux/unix_diag.h.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::socket_table::{Accepted, Listening, Name, Query, Table, TcpState, plain};

/// For more ports than this, all sockets are read at once, because each port costs a walk through
/// the kernel's whole table.
const PORTS_ONE_BY_ONE: usize = 3;
/// The most that the kernel writes at once (NLMSG_GOODSIZE is at most 8 KiB, dumps go up to 32
/// KiB).
const RECEIVE_BYTES: usize = 32 * 1024;
/// How long to wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST | NLM_F_DUMP.
const DUMP: u16 = 0x301;
/// The table changed during the dump, which may lack rows.
const NLM_F_DUMP_INTR: u16 = 0x10;
const HEADER_BYTES: usize = 16;

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN.
const UNIX_SHOW: u32 = 0x01 | 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_RQLEN: u16 = 4;

/// A netlink socket, kept open.
#[derive(Debug)]
pub(super) struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Some(netlink::SOCK_DIAG);
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Box::default(),
        })
    }

    pub(super) fn read(&mut self, query: &Query) -> io::Result<Table> {
        let mut table = Table::default();
        self.buffer = vec![0; RECEIVE_BYTES].into();
        let read = self.read_into(query, &mut table);
        // Kept only while reading, because a scrape every 15 seconds is typical.
        self.buffer = Box::default();
        read.map(|()| table)
    }

    fn read_into(&mut self, query: &Query, table: &mut Table) -> io::Result<()> {
        let ports = match query.ports.len() {
            0..=PORTS_ONE_BY_ONE => query.ports.clone(),
            _ => vec![0],
        };
        for port in ports {
            for family in [AF_INET, AF_INET6] {
                self.dump(&inet_request(family, port), |row| {
                    read_inet(row, query, table)
                })?;
            }
        }
        if query.unix {
            self.dump(&unix_request(), |row| read_unix(row, table))?;
        }
        Ok(())
    }

    /// Sends one request and passes each row of the answer to `row`.
    fn dump(&mut self, request: &[u8], mut row: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER_BYTES + request.len());
        message.extend(((HEADER_BYTES + request.len()) as u32).to_ne_bytes());
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(DUMP.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(request);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        loop {
            let (n, _) = recv(&self.socket, &mut *self.buffer, RecvFlags::empty())?;
            if read_messages(&self.buffer[..n], self.sequence, &mut row)? {
                return Ok(());
            }
        }
    }
}

/// Hands over the rows in one read of the answer to request `sequence`. True if the answer ends.
fn read_messages(
    mut messages: &[u8],
    sequence: u32,
    row: &mut impl FnMut(&[u8]) -> Option<()>,
) -> io::Result<bool> {
    while let Some(header) = Header::read(messages) {
        let body = messages.get(HEADER_BYTES..header.length);
        let body = body.ok_or(io::ErrorKind::InvalidData)?;
        let end = messages.len().min(header.length.next_multiple_of(4));
        messages = &messages[end..];
        // An answer to an earlier request that was given up.
        if header.sequence != sequence {
            continue;
        }
        match header.kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(error(body)),
            _ if header.flags & NLM_F_DUMP_INTR != 0 => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            SOCK_DIAG_BY_FAMILY => row(body).ok_or(io::ErrorKind::InvalidData)?,
            _ => {}
        }
    }
    Ok(false)
}

/// Reads `answer` as TCP rows and as Unix rows.
#[cfg(fuzzing)]
pub(super) fn fuzz(answer: &[u8], query: &Query) -> [Table; 2] {
    let sequence = u32_at(answer, 8).unwrap_or(0);
    let [mut tcp, mut unix] = [Table::default(), Table::default()];
    let _ = read_messages(answer, sequence, &mut |row| read_inet(row, query, &mut tcp));
    let _ = read_messages(answer, sequence, &mut |row| read_unix(row, &mut unix));
    [tcp, unix]
}

struct Header {
    length: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let length = u32_at(bytes, 0)? as usize;
        (length >= HEADER_BYTES).then_some(())?;
        Some(Self {
            length,
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
        })
    }
}

/// Decodes the error in an NLMSG_ERROR, which is a negative number.
fn error(body: &[u8]) -> io::Error {
    let number = u32_at(body, 0).unwrap_or(0) as i32;
    io::Error::from_raw_os_error(number.wrapping_neg())
}

/// Encodes a struct inet_diag_req_v2.
///
/// In a dump, a nonzero source port selects the sockets with this local port.
fn inet_request(family: u8, port: u16) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(TcpState::wanted_mask().to_ne_bytes());
    request.extend(port.to_be_bytes());
    // The rest of struct inet_diag_sockid: the other port, two addresses, an interface, and a
    // cookie that matches any.
    request.extend([0; 2 + 16 + 16 + 4]);
    request.extend([0xff; 8]);
    request
}

/// Encodes a struct unix_diag_req.
fn unix_request() -> Vec<u8> {
    let mut request = vec![AF_UNIX, 0, 0, 0];
    request.extend(TcpState::wanted_mask().to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(UNIX_SHOW.to_ne_bytes());
    request.extend([0xff; 8]);
    request
}

/// Decodes a struct inet_diag_msg.
fn read_inet(row: &[u8], query: &Query, table: &mut Table) -> Option<()> {
    let family = *row.first()?;
    let state = TcpState(*row.get(1)?);
    let local = address(family, row, 4, 8)?;
    let peer = address(family, row, 6, 24)?;
    let inode = u64::from(u32_at(row, 68)?);
    if query.ports.binary_search(&local.port()).is_err() {
        return Some(());
    }
    let local = Name::Tcp(local);
    if state == TcpState::LISTEN {
        table.listening.push(Listening {
            local,
            // For a listener, idiag_rqueue is the length of its accept queue.
            backlog: Some(u64::from(u32_at(row, 56)?)),
            inode,
        });
    } else {
        table.accepted.push(Accepted {
            local,
            peer: Some(plain(peer)),
            state,
            inode,
        });
    }
    Some(())
}

/// Decodes an address in a struct inet_diag_sockid.
///
/// Its port and IP are in network byte order.
fn address(family: u8, row: &[u8], port_at: usize, ip_at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes(row, port_at)?);
    let ip = match family {
        AF_INET => IpAddr::from(Ipv4Addr::from(bytes::<4>(row, ip_at)?)),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(bytes::<16>(row, ip_at)?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Decodes a struct unix_diag_msg and its attributes.
///
/// Skips sockets without a path.
fn read_unix(row: &[u8], table: &mut Table) -> Option<()> {
    let state = TcpState(*row.get(2)?);
    let inode = u64::from(u32_at(row, 4)?);
    let (mut path, mut backlog) = (None, None);
    let mut attributes = row.get(16..)?;
    while let Some(length) = u16_at(attributes, 0) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        match u16_at(attributes, 2)? {
            // An abstract name starts with 0.
            UNIX_DIAG_NAME if value.first() != Some(&0) => {
                let end = value.iter().position(|byte| *byte == 0);
                let name = &value[..end.unwrap_or(value.len())];
                path = Some(PathBuf::from(OsStr::from_bytes(name)));
            }
            UNIX_DIAG_RQLEN => backlog = Some(u64::from(u32_at(value, 0)?)),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    let Some(path) = path else { return Some(()) };
    let local = Name::Unix(path);
    if state == TcpState::LISTEN {
        table.listening.push(Listening {
            local,
            backlog,
            inode,
        });
    } else {
        table.accepted.push(Accepted {
            local,
            peer: None,
            state,
            inode,
        });
    }
    Some(())
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn u16_at(from: &[u8], at: usize) -> Option<u16> {
    bytes(from, at).map(u16::from_ne_bytes)
}

fn u32_at(from: &[u8], at: usize) -> Option<u32> {
    bytes(from, at).map(u32::from_ne_bytes)
}
