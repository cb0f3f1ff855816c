//! One audit: the entries of the set matched with the kernel's sockets, as JSON.

use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use smol::future::yield_now;

use super::kernel::entrypoint_of;
use crate::admin::body::Body;
use crate::admin::connection::write_members;
use crate::admin::json::{Json, OrNull, Separator};
use crate::state::{Addresses, ConnId, Entries, Entry, EntrypointId, Peer};
use crate::sys::sockets::{Name, Table, TableSource, TcpState};

/// After this many connections, other tasks run first.
const PIECE: usize = 128;

/// Which connections a report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// All of them.
    All,
    /// Those that only one side has.
    Differing,
}

/// Connections that only one side has.
#[derive(Clone, Debug, Default)]
pub(super) struct Differences {
    /// Entries without a socket, in order.
    set_only: Vec<ConnId>,
    /// Inodes of sockets without an entry, in order.
    kernel_only: Vec<u64>,
}

impl Differences {
    /// Returns `true` if both sides have the same connections.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.set_only.is_empty() && self.kernel_only.is_empty()
    }

    /// Returns the differences that are in both.
    #[must_use]
    pub(super) fn shared_with(&self, earlier: &Self) -> Self {
        Self {
            set_only: shared(&self.set_only, &earlier.set_only),
            kernel_only: shared(&self.kernel_only, &earlier.kernel_only),
        }
    }
}

/// Returns what is in both, of which the second is in order.
fn shared<T: Ord + Copy>(one: &[T], other: &[T]) -> Vec<T> {
    let one = one.iter().copied();
    one.filter(|it| other.binary_search(it).is_ok()).collect()
}

/// A socket of one of the entrypoints.
#[derive(Debug)]
struct Socket {
    key: Key,
    /// Of the entrypoints that share its address, the one that has it now.
    entrypoint: EntrypointId,
    state: TcpState,
    inode: u64,
}

/// What connects an entry to a socket: the entrypoint, or the group that shares its addresses, and
/// the client's address. Unix clients have no address, so only their number can be compared.
type Key = (EntrypointId, Option<SocketAddr>);

fn key(entry: &Entry, addresses: &Addresses) -> Key {
    let peer = match entry.socket_peer.unwrap_or(entry.peer) {
        Peer::Tcp(peer) => Some(SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        Peer::Unix => None,
    };
    (addresses.group_of(entry.entrypoint), peer)
}

/// One reading of the kernel's table, matched with the entries around it. It must stay small with
/// ten thousand connections, so both sides are sorted and walked in parallel.
#[derive(Debug)]
pub(super) struct Report {
    after: Entries,
    /// The kernel's state of each of these entries.
    states: Vec<Option<TcpState>>,
    /// Connections that only one side has.
    pub differences: Differences,
    /// The sockets that the differences refer to.
    kernel_only: Vec<Socket>,
    listening: Vec<(EntrypointId, Name, Option<u64>)>,
    source: TableSource,
    took: Duration,
}

impl Report {
    /// Matches the entries with the sockets.
    #[must_use]
    pub(super) fn new(
        before: Entries,
        table: Table,
        mut after: Entries,
        source: TableSource,
        took: Duration,
    ) -> Self {
        let addresses = after.addresses.clone();
        let key = |entry: &Entry| key(entry, &addresses);
        let of = |name: &Name| entrypoint_of(&addresses, name);
        let listening = table
            .listening
            .into_iter()
            .filter_map(|row| Some((of(&row.local)?, row.local, row.backlog)));
        let listening = listening.collect();
        let sockets = table.accepted.into_iter().filter_map(|row| {
            let entrypoint = of(&row.local)?;
            Some(Socket {
                key: (addresses.group_of(entrypoint), row.peer),
                entrypoint,
                state: row.state,
                inode: row.inode,
            })
        });
        let mut sockets: Vec<Socket> = sockets.collect();
        sockets.sort_unstable_by_key(|socket| socket.key);

        let mut ids: Vec<ConnId> = before.list.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        let lasted = |entry: &Entry| ids.binary_search(&entry.id).is_ok();
        // Of the entries with the same key, those that were there all the time come first: they
        // must have a socket, and the others may.
        after
            .list
            .sort_unstable_by(|a, b| key(a).cmp(&key(b)).then(lasted(b).cmp(&lasted(a))));
        let mut differences = Differences::default();
        let mut states = Vec::with_capacity(after.list.len());
        let mut unclaimed = Unclaimed {
            sockets,
            next: 0,
            left: Vec::new(),
        };
        for entry in &after.list {
            let socket = unclaimed.claim(key(entry));
            if socket.is_none() && lasted(entry) {
                differences.set_only.push(entry.id);
            }
            states.push(socket);
        }
        let mut left = unclaimed.rest();
        // The sockets of entries that left while the table was read are no difference either.
        let mut ids: Vec<ConnId> = after.list.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        let went = before
            .list
            .iter()
            .filter(|entry| ids.binary_search(&entry.id).is_err());
        for key in went.map(key) {
            if let Some(index) = left.iter().position(|socket| socket.key == key) {
                left.swap_remove(index);
            }
        }
        differences.kernel_only = left.iter().map(|socket| socket.inode).collect();
        differences.set_only.sort_unstable();
        differences.kernel_only.sort_unstable();
        Self {
            after,
            states,
            differences,
            kernel_only: left,
            listening,
            source,
            took,
        }
    }

    /// Writes the report as JSON, with all connections or only those that differ.
    ///
    /// # Errors
    /// Never fails: writing to a body cannot fail.
    pub(super) async fn write(&self, body: &mut Body, which: Listed) -> fmt::Result {
        let Differences {
            set_only,
            kernel_only,
        } = &self.differences;
        write!(
            body,
            "{{\"coracle\":{},\"agree\":{},\"open\":{},\"source\":\"{}\",\"reading_seconds\":{},\"set_only\":{},\"kernel_only\":{},\"listening\":[",
            Json(env!("CARGO_PKG_VERSION")),
            self.differences.is_empty(),
            self.after.list.len(),
            self.source,
            self.took.as_secs_f64(),
            set_only.len(),
            kernel_only.len(),
        )?;
        let named = |id: EntrypointId| Json(self.after.entrypoint_name(id));
        let mut comma = Separator::default();
        for (entrypoint, name, backlog) in &self.listening {
            let entrypoint = named(*entrypoint);
            let address = match name {
                Name::Tcp(address) => address.to_string(),
                Name::Unix(path) => format!("unix:{}", path.display()),
            };
            let (address, backlog) = (Json(&address), OrNull(*backlog));
            write!(
                body,
                "{comma}{{\"entrypoint\":{entrypoint},\"address\":{address},\"backlog\":{backlog}}}"
            )?;
            comma.next();
        }
        body.write_str("],\"connections\":[")?;
        let mut comma = Separator::default();
        for (n, (entry, state)) in self.after.list.iter().zip(&self.states).enumerate() {
            let differs = set_only.binary_search(&entry.id).is_ok();
            if differs || which == Listed::All {
                write!(body, "{comma}{{")?;
                comma.next();
                write_members(body, &self.after, entry)?;
                let state = OrNull(state.map(|state| format!("\"{state}\"")));
                write!(body, ",\"kernel\":{state},\"differs\":{differs}}}")?;
            }
            if n % PIECE == PIECE - 1 {
                yield_now().await;
            }
        }
        for socket in self
            .kernel_only
            .iter()
            .filter(|socket| kernel_only.binary_search(&socket.inode).is_ok())
        {
            let entrypoint = named(socket.entrypoint);
            let peer = socket.key.1.map_or(Peer::Unix, Peer::Tcp);
            write!(
                body,
                "{comma}{{\"id\":null,\"peer\":\"{peer}\",\"socket_peer\":null,\"entrypoint\":{entrypoint},\"service\":null,\"server\":null,\"state\":null,\
                 \"age_seconds\":null,\"to_server_bytes\":null,\"to_client_bytes\":null,\"kernel\":\"{}\",\"differs\":true}}",
                socket.state,
            )?;
            comma.next();
        }
        body.write_str("]}")
    }
}

/// Sockets in the order of their keys, to be claimed by entries in the same order.
struct Unclaimed {
    sockets: Vec<Socket>,
    next: usize,
    /// The positions of sockets that no later entry can claim.
    left: Vec<usize>,
}

impl Unclaimed {
    /// Claims a socket with this key for one entry, and returns its state. Keys must come in
    /// ascending order.
    fn claim(&mut self, key: Key) -> Option<TcpState> {
        while let Some(socket) = self.sockets.get(self.next) {
            match socket.key.cmp(&key) {
                Ordering::Less => self.left.push(self.next),
                Ordering::Equal => {
                    self.next += 1;
                    return Some(socket.state);
                }
                Ordering::Greater => return None,
            }
            self.next += 1;
        }
        None
    }

    /// Returns the sockets that no entry has claimed.
    fn rest(self) -> Vec<Socket> {
        let (mut left, next) = (self.left.into_iter().peekable(), self.next);
        let sockets = self.sockets.into_iter().enumerate();
        let rest = sockets.filter(|(index, _)| *index >= next || left.next_if_eq(index).is_some());
        rest.map(|(_, socket)| socket).collect()
    }
}
