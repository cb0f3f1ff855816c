//! The servers that SRV records stand for: the addresses of each record's target.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::dns::Record;
use super::srv;
use crate::state::{Lookups, Sorted};

/// How long the name servers have, so that their own failure is reported before the look-up is
/// late.
const QUERY_LIMIT: Duration = Duration::from_secs(4);

/// A server that an SRV record stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    /// The lower, the earlier it is used.
    pub priority: u16,
    /// Its share of connections among those of the same priority.
    pub weight: u16,
    /// Its address and port.
    pub address: SocketAddr,
    /// The record's target: the name that has this address.
    pub host: String,
}

/// The records of a name, and the addresses of their targets.
#[derive(Debug)]
pub(super) struct Found {
    records: Vec<Record>,
    addresses: Sorted<String, io::Result<Vec<IpAddr>>>,
}

/// Looks up a name's SRV records and, with `resolver`, their targets.
///
/// Blocks until the last answer arrives.
pub(super) fn look_up(
    name: &str,
    resolver: &dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> io::Result<Found> {
    let begun = Instant::now();
    let records = srv::records(name, QUERY_LIMIT)?;
    let mut targets: Vec<_> = records.iter().map(|it| it.target.clone()).collect();
    targets.sort_unstable();
    targets.dedup();
    let addresses = targets.into_iter().map(|target| {
        let ips = match begun.elapsed() < Lookups::DEADLINE {
            true => resolver(&target).and_then(|ips| usable(ips).map_err(io::Error::other)),
            false => Err(io::ErrorKind::TimedOut.into()),
        };
        (target, ips)
    });
    Ok(Found {
        addresses: addresses.collect(),
        records,
    })
}

/// Removes the addresses that a resolver that blocks names answers with. A connection there would
/// end on this machine.
///
/// # Errors
/// If none is left.
pub(super) fn usable(mut ips: Vec<IpAddr>) -> Result<Vec<IpAddr>, &'static str> {
    if ips.is_empty() {
        return Err("the name has no address");
    }
    ips.retain(|ip| !ip.is_unspecified());
    match ips.is_empty() {
        true => Err("the resolver blocks the name: it answers 0.0.0.0 or ::"),
        false => Ok(ips),
    }
}

impl Found {
    /// Returns the servers, the ones to use first at the beginning, and why a target could not be
    /// resolved, if one could not. Such a target keeps the addresses that it has in `before`.
    pub(super) fn offers(self, before: &[Offer]) -> (Rc<[Offer]>, Option<String>) {
        let mut offers = Vec::new();
        let mut failure = None;
        for Record {
            priority,
            weight,
            port,
            target,
        } in self.records
        {
            let ips = match self.addresses.get(&target) {
                Some(Ok(ips)) => ips.clone(),
                Some(Err(why)) => {
                    failure.get_or_insert_with(|| format!("{target}: {why}"));
                    let known = before.iter().filter(|it| it.host == target);
                    known.map(|it| it.address.ip()).collect()
                }
                None => Vec::new(),
            };
            offers.extend(ips.into_iter().map(|ip| Offer {
                priority,
                weight,
                address: SocketAddr::new(ip, port),
                host: target.clone(),
            }));
        }
        offers.sort_unstable();
        offers.dedup();
        (offers.into(), failure)
    }
}

/// Returns the port of the server to use first, and the addresses that have it, for a connection
/// that begins before the servers are known to those who choose among them.
pub(super) fn first(offers: &[Offer]) -> Option<(Rc<[IpAddr]>, u16)> {
    let lowest = offers.first()?.priority;
    let lowest = offers.iter().filter(|it| it.priority == lowest);
    let best = lowest.max_by_key(|it| it.weight)?;
    let is_alike = |it: &&Offer| {
        (it.priority, &it.host, it.address.port())
            == (best.priority, &best.host, best.address.port())
    };
    let alike = offers.iter().filter(is_alike);
    let ips = alike.map(|it| it.address.ip()).collect();
    Some((ips, best.address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(targets: &[(&str, Option<&str>)]) -> Found {
        let records = targets.iter().map(|(target, _)| Record {
            priority: 1,
            weight: 2,
            port: 80,
            target: (*target).to_owned(),
        });
        let ips = |ip: &Option<&str>| match ip {
            Some(ip) => Ok(vec![ip.parse().expect("an address")]),
            None => Err(io::Error::other("no answer")),
        };
        let addresses = targets.iter();
        Found {
            records: records.collect(),
            addresses: addresses
                .map(|(it, ip)| ((*it).to_owned(), ips(ip)))
                .collect(),
        }
    }

    fn addresses(offers: &[Offer]) -> Vec<String> {
        offers.iter().map(|it| it.address.to_string()).collect()
    }

    #[test]
    fn target_that_fails_keeps_its_addresses_and_others_change() {
        let all = found(&[("a", Some("10.0.0.1")), ("b", Some("10.0.0.2"))]);
        let (before, failure) = all.offers(&[]);
        assert_eq!(addresses(&before), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(failure, None);
        let (now, failure) = found(&[("a", Some("10.0.0.3")), ("b", None)]).offers(&before);
        assert_eq!(addresses(&now), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(failure.as_deref(), Some("b: no answer"));
        let (now, failure) = found(&[("c", None)]).offers(&before);
        assert!(now.is_empty() && failure.is_some());
    }

    #[test]
    fn blocked_addresses_are_no_servers() {
        let ips = |all: &[&str]| -> Vec<IpAddr> {
            all.iter()
                .map(|it| it.parse().expect("an address"))
                .collect()
        };
        assert_eq!(usable(ips(&["::", "10.0.0.1"])), Ok(ips(&["10.0.0.1"])));
        assert!(usable(ips(&["0.0.0.0", "::"])).is_err());
        assert!(usable(Vec::new()).is_err());
    }
}
