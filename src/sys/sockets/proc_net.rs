//! Reads the kernel's sockets from `/proc/net/tcp`, `tcp6` and `unix`, where sock_diag is not to be had.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::row::{Accepted, Listening, Name, Query, Table, TcpState, plain};

/// The state of a connected Unix socket (SS_CONNECTED in linux/net.h).
const UNIX_CONNECTED: &str = "03";
/// __SO_ACCEPTCON: it listens.
const UNIX_LISTENS: &str = "00010000";

pub(super) fn read(query: &Query) -> io::Result<Table> {
    let mut table = Table::default();
    for row in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        read_tcp(row, query, &mut table);
    }
    // Without IPv6 there is no such file.
    for row in fs::read_to_string("/proc/net/tcp6")
        .unwrap_or_default()
        .lines()
        .skip(1)
    {
        read_tcp(row, query, &mut table);
    }
    if query.unix {
        for row in fs::read_to_string("/proc/net/unix")?.lines().skip(1) {
            read_unix(row, &mut table);
        }
    }
    Ok(table)
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...` (proc_net_tcp).
fn read_tcp(row: &str, query: &Query, table: &mut Table) -> Option<()> {
    let mut columns = row.split_ascii_whitespace().skip(1);
    let local = address(columns.next()?)?;
    let peer = address(columns.next()?)?;
    let state = TcpState(u8::from_str_radix(columns.next()?, 16).ok()?);
    let (_, receive_queue) = columns.next()?.split_once(':')?;
    let inode = columns.nth(4)?.parse().ok()?;
    if !query.ports.contains(&local.port()) {
        return None;
    }
    let local = Name::Tcp(plain(local));
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

/// `0100007F:1F90`: each four bytes of the address in the machine's order, then the port.
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

/// `Num RefCount Protocol Flags Type St Inode Path`.
fn read_unix(row: &str, table: &mut Table) -> Option<()> {
    let columns: Vec<&str> = row.splitn(8, ' ').collect();
    let [_, _, _, flags, _, state, rest @ ..] = columns.as_slice() else {
        return None;
    };
    // The inode is padded with spaces.
    let (inode, path) = rest
        .join(" ")
        .trim_start()
        .split_once(' ')
        .map(|(inode, path)| (inode.parse().ok(), PathBuf::from(path)))?;
    let (inode, local) = (inode?, Name::Unix(path));
    if *flags == UNIX_LISTENS {
        let backlog = None;
        table.listening.push(Listening {
            local,
            backlog,
            inode,
        });
    } else if *state == UNIX_CONNECTED {
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
            read_tcp(row, &query, &mut table);
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
    fn unix_rows_are_read_and_paths_may_hold_spaces() {
        let mut table = Table::default();
        let rows = [
            "0000000000000000: 00000002 00000000 00010000 0001 01 21001 /run/a b.sock",
            "0000000000000000: 00000003 00000000 00000000 0001 03   912 /run/a b.sock",
            "0000000000000000: 00000003 00000000 00000000 0001 03 21003",
        ];
        for row in rows {
            read_unix(row, &mut table);
        }
        assert_eq!(table.listening[0].local, Name::Unix("/run/a b.sock".into()));
        assert_eq!(table.accepted.len(), 1);
        assert_eq!(table.accepted[0].inode, 912);
    }
}
