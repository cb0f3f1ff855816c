//! What the kernel says: sockets that a process owns, read from /proc/net/tcp and tcp6, and from `ss`.

use std::process::Command;

/// Sockets on local port `port` that some process owns: neither listening nor without an inode, which is not accepted yet or
/// already closed.
pub fn connections(port: u16) -> usize {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap_or_default())
        .map(|table| {
            table
                .lines()
                .skip(1)
                .filter(|row| is_owned(row, port))
                .count()
        })
        .sum()
}

fn is_owned(row: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let columns: Vec<_> = row.split_whitespace().collect();
    let local_port = columns[1].rsplit(':').next().unwrap();
    u16::from_str_radix(local_port, 16).unwrap() == port
        && columns[3] != LISTEN
        && columns[9] != "0"
}

/// Connected Unix sockets that were accepted at `path`: the kernel names them by their listener's path.
pub fn unix_connections(path: &str) -> usize {
    const CONNECTED: &str = "03";
    let table = std::fs::read_to_string("/proc/net/unix").unwrap();
    let is_ours = |row: &&str| {
        let columns: Vec<_> = row.split_whitespace().collect();
        columns.get(7) == Some(&path) && columns[5] == CONNECTED && columns[6] != "0"
    };
    table.lines().skip(1).filter(is_ours).count()
}

/// The same as `ss` counts it.
pub fn connections_by_ss(port: u16) -> usize {
    let filter = format!("( sport = :{port} )");
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
