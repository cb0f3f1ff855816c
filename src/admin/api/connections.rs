//! One page of the open connections, or of the clients that they come from, from a copy of the set.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::net::IpAddr;
use std::time::Instant;

use smol::future::yield_now;

use super::query::{List, Query, Sort};
use crate::admin::body::Body;
use crate::admin::connection::write_members;
use crate::admin::json::{Json, Separator};
use crate::state::{Entries, Entry, Peer};

/// After this many elements, other work of the thread gets its turn.
const PIECE: usize = 128;

/// Writes the connections or clients that `query` asks for.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(crate) async fn write(body: &mut Body, entries: &Entries, query: &Query) -> fmt::Result {
    let list = entries.list.iter();
    let found: Vec<&Entry> = list.filter(|entry| query.fits(entries, entry)).collect();
    match query.list {
        List::Connections => {
            let write = |body: &mut Body, it: &&Entry| write_members(body, entries, it);
            page(body, query, "", "connections", found, write).await
        }
        // Those have an answer of their own.
        List::Accounts => Ok(()),
        List::Clients => {
            let write = |body: &mut Body, it: &Client| write_client(body, it, entries.at);
            page(body, query, "", "clients", clients(&found), write).await
        }
    }
}

/// What a list is sorted by.
pub(super) trait Sorted {
    fn open(&self) -> u64;
    /// Orders by age, the younger one first.
    fn by_age(&self, other: &Self) -> Ordering;
    /// The bytes to the server, and to the client.
    fn bytes(&self) -> [u64; 2];
    /// Orders elements that are equal otherwise. No two are equal in this, so that pages neither
    /// repeat nor omit one.
    fn tie(&self, other: &Self) -> Ordering;

    fn compare(&self, other: &Self, query: &Query) -> Ordering {
        let total = |it: &Self| it.bytes().iter().fold(0, |a: u64, b| a.saturating_add(*b));
        let ascending = match query.sort() {
            Sort::Age => self.by_age(other),
            Sort::Bytes => total(self).cmp(&total(other)),
            Sort::Open => self.open().cmp(&other.open()),
            Sort::ToServerBytes => self.bytes()[0].cmp(&other.bytes()[0]),
            Sort::ToClientBytes => self.bytes()[1].cmp(&other.bytes()[1]),
        };
        // Of two that are equal, the later one comes first in ascending order, as with the age.
        let ascending = ascending.then_with(|| other.tie(self));
        match query.is_ascending {
            true => ascending,
            false => ascending.reverse(),
        }
    }
}

impl Sorted for &Entry {
    fn open(&self) -> u64 {
        1
    }

    fn by_age(&self, other: &Self) -> Ordering {
        other.opened.cmp(&self.opened)
    }

    fn bytes(&self) -> [u64; 2] {
        [self.to_server_bytes, self.to_client_bytes]
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

/// The open connections of one client.
struct Client {
    /// `None` stands for all clients of Unix sockets.
    address: Option<IpAddr>,
    open: u64,
    /// When its oldest open connection was accepted.
    opened: Instant,
    bytes: [u64; 2],
}

impl Sorted for Client {
    fn open(&self) -> u64 {
        self.open
    }

    fn by_age(&self, other: &Self) -> Ordering {
        other.opened.cmp(&self.opened)
    }

    fn bytes(&self) -> [u64; 2] {
        self.bytes
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.address.cmp(&other.address)
    }
}

fn clients(entries: &[&Entry]) -> Vec<Client> {
    let mut clients: HashMap<Option<IpAddr>, Client> = HashMap::new();
    for entry in entries {
        let address = match entry.peer {
            Peer::Tcp(peer) => Some(peer.ip()),
            Peer::Unix => None,
        };
        let client = clients.entry(address).or_insert(Client {
            address,
            open: 0,
            opened: entry.opened,
            bytes: [0; 2],
        });
        client.open += 1;
        client.opened = client.opened.min(entry.opened);
        for (sum, bytes) in client.bytes.iter_mut().zip(entry.bytes()) {
            *sum = sum.saturating_add(bytes);
        }
    }
    clients.into_values().collect()
}

fn write_client(body: &mut Body, it: &Client, now: Instant) -> fmt::Result {
    let address = it.address.map_or("unix".to_owned(), |ip| ip.to_string());
    let (open, [to_server, to_client]) = (it.open, it.bytes);
    let oldest = now.saturating_duration_since(it.opened).as_secs_f64();
    write!(
        body,
        "\"address\":\"{address}\",\"open\":{open},\"oldest_seconds\":{oldest},\
         \"to_server_bytes\":{to_server},\"to_client_bytes\":{to_client}"
    )
}

pub(super) async fn page<T: Sorted>(
    body: &mut Body,
    query: &Query,
    head: &str,
    name: &str,
    mut found: Vec<T>,
    write: impl Fn(&mut Body, &T) -> fmt::Result,
) -> fmt::Result {
    let total = found.len();
    // Only the page and what stands before it need an order.
    let end = query.offset.saturating_add(query.limit);
    if end < total {
        found.select_nth_unstable_by(end, |a, b| a.compare(b, query));
        found.truncate(end);
    }
    found.sort_unstable_by(|a, b| a.compare(b, query));
    write!(
        body,
        "{{\"coracle\":{},\"total\":{total},\"offset\":{},\"limit\":{},{head}\"{name}\":[",
        Json(env!("CARGO_PKG_VERSION")),
        query.offset,
        query.limit,
    )?;
    let mut comma = Separator::default();
    for (n, it) in found.iter().skip(query.offset).enumerate() {
        write!(body, "{comma}{{")?;
        comma.next();
        write(body, it)?;
        body.write_str("}")?;
        if n % PIECE == PIECE - 1 {
            yield_now().await;
        }
    }
    body.write_str("]}")
}
