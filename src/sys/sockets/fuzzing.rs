//! Entry points for the fuzz targets in `fuzz/`: the kernel's tables as bytes, without the kernel.

use super::{Query, Table, proc_net, sock_diag};

/// Returns a query that matches the rows of the seeds.
fn query() -> Query {
    Query {
        ports: vec![8080],
        unix: true,
        closed: false,
    }
}

/// Reads an answer of sock_diag, as TCP rows and as Unix rows.
pub fn sock_diag(answer: &[u8]) -> [Table; 2] {
    sock_diag::fuzz(answer, &query())
}

/// Reads a line of `/proc/net/tcp`, `tcp6` or `unix`, as either.
pub fn proc_net(row: &[u8]) -> Table {
    proc_net::fuzz(row, &query())
}
