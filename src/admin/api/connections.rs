//! One page of the open connections, from a copy of the set.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use smol::future::yield_now;

use super::query::{Query, Sort};
use crate::admin::body::Body;
use crate::admin::connection::write_members;
use crate::admin::json::{Json, Separator};
use crate::state::{Entries, Entry};

/// After this many connections, other work of the thread gets its turn.
const PIECE: usize = 128;

/// Writes the connections that `query` asks for.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(crate) async fn write(body: &mut Body, entries: &Entries, query: &Query) -> fmt::Result {
    let list = entries.list.iter();
    let mut found: Vec<&Entry> = list.filter(|entry| query.fits(entries, entry)).collect();
    let total = found.len();
    // Only the page and what stands before it need an order.
    let end = query.offset.saturating_add(query.limit);
    if end < total {
        found.select_nth_unstable_by(end, |a, b| compare(query, a, b));
        found.truncate(end);
    }
    found.sort_unstable_by(|a, b| compare(query, a, b));
    let page = found.iter().skip(query.offset);
    write!(
        body,
        "{{\"coracle\":{},\"total\":{total},\"offset\":{},\"limit\":{},\"connections\":[",
        Json(env!("CARGO_PKG_VERSION")),
        query.offset,
        query.limit,
    )?;
    let mut comma = Separator::default();
    for (n, entry) in page.enumerate() {
        write!(body, "{comma}{{")?;
        comma.next();
        write_members(body, entries, entry)?;
        body.write_str("}")?;
        if n % PIECE == PIECE - 1 {
            yield_now().await;
        }
    }
    body.write_str("]}")
}

/// Compares two connections. No two are equal, so that pages neither repeat nor omit one.
fn compare(query: &Query, a: &Entry, b: &Entry) -> Ordering {
    let both = |bytes: fn(&Entry) -> u64| bytes(a).cmp(&bytes(b));
    let ascending = match query.sort {
        Sort::Age => b.opened.cmp(&a.opened),
        Sort::Bytes => both(|it| it.to_server_bytes.saturating_add(it.to_client_bytes)),
        Sort::ToServerBytes => both(|it| it.to_server_bytes),
        Sort::ToClientBytes => both(|it| it.to_client_bytes),
    };
    // Of two that are equal, the later one comes first in ascending order, as with the age.
    let ascending = ascending.then(b.id.cmp(&a.id));
    match query.is_ascending {
        true => ascending,
        false => ascending.reverse(),
    }
}
