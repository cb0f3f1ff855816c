//! Reads the kernel's sockets from `/proc/net/tcp`, `tcp6` and `unix`, if sock_diag is unavailable.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::socket_table::{Accepted, Listening, Name, Query, Table, TcpState, plain};

/// The state of a connected Unix socket (SS_CONNECTED in linux/net.h).
const UNIX_CONNECTED: &[u8] = b"03";
/// __SO_ACCEPTCON: the socket listens.
const UNIX_LISTENS: &[u8] = b"00010000";
/// The size of one read. A table of thousands of sockets is never in memory as text.
const READ_BYTES: usize = 16 * 1024;

pub(super) fn read(query: &Query) -> io::Result<Table> {
    let mut table = Table::default();
    for_each_row("/proc/net/tcp", |row| read_tcp(row, query, &mut table))?;
    match for_each_row("/proc/net/tcp6", |row| read_tcp(row, query, &mut table)) {
        // The file does not exist without IPv6.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if query.unix {
        for_each_row("/proc/net/unix", |row| read_unix(row, &mut table))?;
    }
    Ok(table)
}

/// Calls `row` with each line except the header.
///
/// Skips lines that it cannot parse. Lines are bytes, because the path of a Unix socket may contain
/// any bytes.
fn for_each_row(path: &str, mut row: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
    let mut file = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    let mut line = Vec::new();
    for n in 0_u64.. {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if n > 0 {
            let _ = row(line.strip_suffix(b"\n").unwrap_or(&line));
        }
    }
    Ok(())
}

/// Reads `row` as one of `/proc/net/tcp` and one of `/proc/net/unix`.
#[cfg(fuzzing)]
pub(super) fn fuzz(row: &[u8], query: &Query) -> Table {
    let mut table = Table::default();
    let _ = read_tcp(row, query, &mut table);
    let _ = read_unix(row, &mut table);
    table
}

/// Parses a row of `/proc/net/tcp` or `tcp6` (proc_net_tcp):
///
/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`
fn read_tcp(row: &[u8], query: &Query, table: &mut Table) -> Option<()> {
    let mut columns = std::str::from_utf8(row)
        .ok()?
        .split_ascii_whitespace()
        .skip(1);
    let local = address(columns.next()?)?;
    let peer = address(columns.next()?)?;
    let state = TcpState(u8::from_str_radix(columns.next()?, 16).ok()?);
    let (_, receive_queue) = columns.next()?.split_once(':')?;
    let inode = columns.nth(4)?.parse().ok()?;
    if query.ports.binary_search(&local.port()).is_err() {
        return None;
    }
    let local = Name::Tcp(local);
    if state == TcpState::LISTEN {
        let backlog = u64::from_str_radix(receive_queue, 16).ok();
        table.listening.push(Listening {
            local,
            backlog,
            inode,
        });
    } else if state.is_connected() {
        let peer = Some(plain(peer));
        table.accepted.push(Accepted {
            local,
            peer,
            state,
            inode,
        });
    }
    Some(())
}

/// Parses `0100007F:1F90`: the address in groups of four bytes in native byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = [0; 16];
    let words = ip.len() / 8;
    for (i, word) in bytes.chunks_exact_mut(4).take(words).enumerate() {
        let number = u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok()?;
        word.copy_from_slice(&number.to_ne_bytes());
    }
    let ip = match words {
        1 => IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        4 => IpAddr::from(Ipv6Addr::from(bytes)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Parses a row of `/proc/net/unix`: `Num RefCount Protocol Flags Type St Inode Path`.
fn read_unix(row: &[u8], table: &mut Table) -> Option<()> {
    let mut columns = row.splitn(7, |byte| *byte == b' ');
    let flags = columns.nth(3)?;
    let state = columns.nth(1)?;
    // The inode is padded with spaces. Everything after it is the path.
    let rest = columns.next()?.trim_ascii_start();
    let end = rest.iter().position(|byte| *byte == b' ')?;
    let inode = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    let local = Name::Unix(PathBuf::from(OsStr::from_bytes(&rest[end + 1..])));
    if flags == UNIX_LISTENS {
        let backlog = None;
        table.listening.push(Listening {
            local,
            backlog,
            inode,
        });
    } else if state == UNIX_CONNECTED {
        let state = TcpState::ESTABLISHED;
        table.accepted.push(Accepted {
            local,
            peer: None,
            state,
            inode,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_both_families_are_read() {
        let query = Query {
            ports: vec![8080],
            unix: true,
            closed: false,
        };
        let mut table = Table::default();
        let rows = [
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 77 1 0 100 0",
            "   1: 0100007F:1F90 0200007F:C350 01 00000000:00000000 02:00000000 00000000     0        0 78 1 0 20 0",
            "   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:C351 08 00000000:00000000 00:0 0 0 0 79 1",
            "   3: 0100007F:1F91 0200007F:C350 01 00000000:00000000 02:00000000 00000000     0        0 80 1 0 20 0",
            "   4: 0100007F:1F90 0200007F:C352 06 00000000:00000000 03:00000000 00000000     0        0 0 1 0 20 0",
            "nonsense",
        ];
        for row in rows {
            read_tcp(row.as_bytes(), &query, &mut table);
        }
        assert_eq!(table.listening.len(), 1);
        assert_eq!(table.listening[0].backlog, Some(3));
        let peers: Vec<_> = table
            .accepted
            .iter()
            .map(|row| row.peer.unwrap().to_string())
            .collect();
        assert_eq!(peers, ["127.0.0.2:50000", "127.0.0.2:50001"]);
        let states: Vec<_> = table
            .accepted
            .iter()
            .map(|row| row.state.to_string())
            .collect();
        assert_eq!(states, ["established", "close-wait"]);
    }

    #[test]
    fn unix_paths_may_contain_spaces_and_any_bytes() {
        let mut table = Table::default();
        let rows: [&[u8]; 4] = [
            b"0000000000000000: 00000002 00000000 00010000 0001 01 21001 /run/a b.sock",
            b"0000000000000000: 00000003 00000000 00000000 0001 03   912 /run/a b.sock",
            b"0000000000000000: 00000003 00000000 00000000 0001 03   913 /run/\xff\xfe.sock",
            b"0000000000000000: 00000003 00000000 00000000 0001 03 21003",
        ];
        for row in rows {
            read_unix(row, &mut table);
        }
        assert_eq!(table.listening[0].local, Name::Unix("/run/a b.sock".into()));
        let inodes: Vec<_> = table.accepted.iter().map(|row| row.inode).collect();
        assert_eq!(inodes, [912, 913]);
        let path = OsStr::from_bytes(b"/run/\xff\xfe.sock");
        assert_eq!(table.accepted[1].local, Name::Unix(path.into()));
    }
}
