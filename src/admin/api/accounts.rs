//! One page of what clients have used.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use super::connections::{Sorted, page};
use super::query::Query;
use crate::admin::body::Body;
use crate::admin::json::OrNull;
use crate::state::{AccountNumbers, ClientNumbers};

impl Sorted for &ClientNumbers {
    fn open(&self) -> u64 {
        self.open.into()
    }

    fn by_age(&self, other: &Self) -> Ordering {
        self.since.cmp(&other.since)
    }

    fn bytes(&self) -> [u64; 2] {
        self.used.bytes
    }

    fn tie(&self, other: &Self) -> Ordering {
        self.client.cmp(&other.client)
    }
}

/// Writes the clients that `query` asks for, or that nothing is counted.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(crate) async fn write(
    body: &mut Body,
    numbers: Option<&AccountNumbers>,
    query: &Query,
) -> fmt::Result {
    let clients = numbers.map_or(&[][..], |it| &it.clients);
    let clients = clients.iter().filter(|it| query.fits_client(it.client));
    let clients: Vec<_> = clients.collect();
    let quota = numbers.and_then(|it| it.rules.quota);
    let mut head = String::new();
    write!(head, "\"counts\":{},\"quota\":", numbers.is_some())?;
    match quota {
        None => head.write_str("null")?,
        Some(it) => {
            let (bytes, period) = (it.bytes, it.period.word());
            write!(head, "{{\"bytes\":{bytes},\"period\":\"{period}\"}}")?;
        }
    }
    let (others, forgotten) = numbers.map_or_else(Default::default, |it| (it.others, it.forgotten));
    let [to_server, to_client] = others.bytes;
    write!(
        head,
        ",\"others\":{{\"forgotten\":{forgotten},\"connections\":{},\
         \"to_server_bytes\":{to_server},\"to_client_bytes\":{to_client}}},",
        others.opened,
    )?;
    let write = |body: &mut Body, it: &&ClientNumbers| write_client(body, it, quota.is_some());
    page(body, query, &head, "clients", clients, write).await
}

fn write_client(body: &mut Body, it: &ClientNumbers, has_quota: bool) -> fmt::Result {
    let [to_server, to_client] = it.used.bytes;
    let of_quota = has_quota.then_some(it.of_quota);
    write!(
        body,
        "\"client\":\"{}\",\"open\":{},\"connections\":{},\"to_server_bytes\":{to_server},\
         \"to_client_bytes\":{to_client},\"since_seconds\":{},\"quiet_seconds\":{},\
         \"of_quota_bytes\":{},\"over_quota\":{}",
        it.client,
        it.open,
        it.used.opened,
        it.since.as_secs(),
        OrNull(it.quiet.map(|it| it.as_secs())),
        OrNull(of_quota),
        it.is_over,
    )
}
