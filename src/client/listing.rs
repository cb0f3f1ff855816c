//! Which connections `coracle list` asks for, and how it reads more than one answer has. No I/O.

use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::command::percent_encoded;
use crate::state::{Label as _, Network, Phase};

/// The most connections that coracle puts into one answer.
const PAGE: usize = 1000;
/// How many connections of the last page are asked for again: as many of them may end between two
/// pages, and still nothing is left out.
const OVERLAP: usize = 100;

/// The clients that connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFilter {
    /// Those of Unix sockets.
    Unix,
    /// Those of a network.
    Of(Network),
}

impl FromStr for PeerFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unix" => Ok(Self::Unix),
            _ => text.parse().map(Self::Of),
        }
    }
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListSort {
    /// The oldest first.
    #[default]
    Age,
    /// Those that have carried the most bytes first, in both directions together.
    Bytes,
}

/// Which connections to list. What is `None` says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those of these clients.
    pub peer: Option<PeerFilter>,
    /// Those of this entrypoint.
    pub entrypoint: Option<String>,
    /// Those for this service.
    pub service: Option<String>,
    /// Those connected to this server.
    pub server: Option<String>,
    /// Those in this state.
    pub state: Option<Phase>,
    /// Those that have been open at least this long.
    pub min_age: Option<Duration>,
    /// The order.
    pub sort: ListSort,
    /// The first so many.
    pub limit: Option<usize>,
}

impl Listing {
    /// Returns whether all connections are wanted, which an audit has, at one moment.
    pub(super) fn is_of_one_moment(&self) -> bool {
        self.filters().is_empty() && self.limit.is_none_or(|limit| limit > PAGE)
    }

    /// Reads the connections from the answers of `get` to paths of the API.
    ///
    /// What one answer can have is one request. Beyond that it is several, the oldest first. A
    /// connection that ends between two of them moves the others forward, so each begins before
    /// where the last one ended, and further before if it shares no connection with that. So each
    /// connection that was open at the first and is open at the last answer is there, once.
    pub(super) fn read<E>(
        &self,
        mut get: impl FnMut(&str) -> Result<Value, E>,
    ) -> Result<Vec<Value>, E> {
        let wanted = self.limit.unwrap_or(usize::MAX);
        let first = self.path(self.sort, 0, wanted.min(PAGE));
        let (mut all, total) = page(get(&first)?);
        if all.len() as u64 >= total || all.len() >= wanted {
            return Ok(all);
        }
        // An order in which a connection never passes another one.
        let begun = Instant::now();
        let wanted = match self.sort {
            ListSort::Age => wanted,
            ListSort::Bytes => {
                all.clear();
                usize::MAX
            }
        };
        let (mut offset, mut step) = (all.len().saturating_sub(OVERLAP), OVERLAP);
        while all.len() < wanted {
            let (mut next, total) = page(get(&self.path(ListSort::Age, offset, PAGE))?);
            let last = all.last().map_or(0, id);
            if offset > 0 && next.first().is_none_or(|first| id(first) > last) {
                // Of those before this page, some may be missing.
                offset = offset.saturating_sub(step);
                step *= 2;
                continue;
            }
            step = OVERLAP;
            let end = offset + next.len();
            offset = end.saturating_sub(OVERLAP);
            next.retain(|connection| id(connection) > last);
            // Those that came later are endless on a busy machine.
            let age = |it: &Value| it["age_seconds"].as_f64().unwrap_or(0.0);
            let is_late = |it: &Value| age(it) < begun.elapsed().as_secs_f64();
            let is_end = end as u64 >= total || next.last().is_some_and(is_late);
            all.append(&mut next);
            if is_end {
                break;
            }
        }
        Ok(all)
    }

    fn path(&self, sort: ListSort, offset: usize, limit: usize) -> String {
        let sort = match sort {
            ListSort::Age => "age",
            ListSort::Bytes => "bytes",
        };
        let filters = self.filters();
        format!("/api/v1/connections?sort={sort}&offset={offset}&limit={limit}{filters}")
    }

    /// Returns the parameters that select connections.
    fn filters(&self) -> String {
        let peer = self.peer.map(|clients| match clients {
            PeerFilter::Unix => "unix".to_owned(),
            PeerFilter::Of(network) => network.to_string(),
        });
        let age = self.min_age.map(|age| age.as_secs_f64().to_string());
        let state = self.state.map(|state| state.label().to_owned());
        let pairs = [
            ("peer", &peer),
            ("entrypoint", &self.entrypoint),
            ("service", &self.service),
            ("server", &self.server),
            ("state", &state),
            ("min_age_seconds", &age),
        ];
        let pairs = pairs.iter().filter_map(|(key, value)| {
            let value = percent_encoded(value.as_ref()?);
            Some(format!("&{key}={value}"))
        });
        pairs.collect()
    }
}

/// Returns the connections of an answer, and how many there are on all pages.
fn page(mut answer: Value) -> (Vec<Value>, u64) {
    let connections = answer["connections"].as_array_mut().map(std::mem::take);
    let total = answer["total"].as_u64().unwrap_or(0);
    (connections.unwrap_or_default(), total)
}

/// Returns a connection's ID. A later connection has a larger one.
fn id(connection: &Value) -> u64 {
    let id = connection["id"].as_str();
    id.and_then(|id| id.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Returns a parameter of a path.
    fn number(path: &str, key: &str) -> usize {
        let pairs = path.split(['?', '&']);
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(own, _)| *own == key);
        value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    }

    /// Answers as coracle does, from the IDs of the open connections.
    fn answer(open: &[u64], path: &str) -> Value {
        let (offset, limit) = (number(path, "offset"), number(path, "limit"));
        let page = open.iter().skip(offset).take(limit);
        let page = page.map(|id| json!({ "id": id.to_string(), "age_seconds": 1e6 }));
        json!({ "total": open.len(), "connections": page.collect::<Vec<_>>() })
    }

    fn ids(list: &[Value]) -> Vec<u64> {
        list.iter().map(id).collect()
    }

    #[test]
    fn what_one_answer_can_have_is_one_request() {
        for (limit, open, expected) in [(None, 1000, 1000), (Some(7), 5000, 7), (None, 0, 0)] {
            let open: Vec<u64> = (1..=open).collect();
            let listing = Listing {
                limit,
                entrypoint: Some("a b".to_owned()),
                sort: ListSort::Bytes,
                ..Listing::default()
            };
            let mut asked = Vec::new();
            let Ok(list) = listing.read(|path| {
                asked.push(path.to_owned());
                Ok::<_, Infallible>(answer(&open, path))
            });
            assert_eq!(list.len(), expected);
            assert_eq!(asked.len(), 1);
            assert!(asked[0].contains("sort=bytes&") && asked[0].ends_with("&entrypoint=a%20b"));
        }
    }

    #[test]
    fn all_filters_are_in_the_query() {
        let listing = Listing {
            peer: "10.0.0.0/8".parse().ok(),
            entrypoint: Some("e".to_owned()),
            service: Some("s".to_owned()),
            server: Some("[::1]:80".to_owned()),
            state: Some(Phase::HalfClosed),
            min_age: Some(Duration::from_millis(1500)),
            ..Listing::default()
        };
        assert!(!listing.is_of_one_moment());
        assert_eq!(
            listing.filters(),
            "&peer=10.0.0.0/8&entrypoint=e&service=s&server=%5B%3A%3A1%5D%3A80&state=half-closed&min_age_seconds=1.5"
        );
    }

    proptest! {
        /// Between any two pages, any connections end and others begin.
        #[test]
        fn pages_leave_out_nothing_that_stays_and_repeat_nothing(
            mut open in (0..5000_u64).prop_map(|n| (1..=n).collect::<Vec<_>>()),
            changes in prop::collection::vec((0..3000_usize, 0..500_u64, any::<bool>()), 0..8),
            is_by_bytes: bool,
        ) {
            let first = open.clone();
            let sort = if is_by_bytes { ListSort::Bytes } else { ListSort::Age };
            let listing = Listing { sort, ..Listing::default() };
            let (mut changes, mut next) = (changes.into_iter(), 10_000);
            let Ok(list) = listing.read(|path| {
                let answer = answer(&open, path);
                if let Some((ended, begun, old)) = changes.next() {
                    let ended = ended.min(open.len());
                    let all = open.len();
                    open.drain(if old { 0..ended } else { all - ended..all });
                    open.extend(next..next + begun);
                    next += begun;
                }
                Ok::<_, Infallible>(answer)
            });
            let list = ids(&list);
            prop_assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
            let stayed = first.iter().filter(|id| open.contains(id));
            let missing: Vec<_> = stayed.filter(|id| list.binary_search(id).is_err()).collect();
            prop_assert!(missing.is_empty(), "{missing:?}");
        }
    }
}
