//! Which clients an entrypoint admits, by address, number and rate. Does no I/O.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::access_list::{AccessList, Verdict};
use super::identity::ConnId;
use super::rate::{Bucket, Rate};
use super::reason::RefuseReason;

/// Whom an entrypoint admits. The default is everybody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GateRules {
    /// Who may connect; `None` for everybody.
    pub access: Option<Arc<AccessList>>,
    /// How many connections one client may have.
    pub client_connections: Option<usize>,
    /// How often one client may connect.
    pub client_rate: Option<Rate>,
    /// How many leading bits of an IPv6 address make a client.
    pub ipv6_prefix: u8,
    /// How often all clients together may connect.
    pub rate: Option<Rate>,
}

impl GateRules {
    /// Returns whether clients are told apart.
    #[must_use]
    pub fn knows_clients(&self) -> bool {
        self.client_connections.is_some() || self.client_rate.is_some()
    }

    /// Returns whether everybody is admitted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.access.is_none() && self.rate.is_none() && !self.knows_clients()
    }
}

/// What is known of the clients of one entrypoint.
///
/// A client is in the table while it has a connection, and for as long as its bucket is not full
/// again. The table has at most [`Gate::STRANGERS`] clients more than the entrypoint has
/// connections. When it is full, clients that are not in it share one bucket.
///
/// Times are in nanoseconds since a moment of the caller's choice.
#[derive(Debug, Default)]
pub(super) struct Gate {
    rules: GateRules,
    clients: HashMap<u128, Client>,
    strangers: Bucket,
    all: Bucket,
    /// When to look again for clients to forget.
    forgets_at: u64,
}

/// One client.
#[derive(Debug, Default)]
struct Client {
    bucket: Bucket,
    /// Its open connections, of which there are as many as it counts for.
    open: Vec<ConnId>,
}

impl Gate {
    /// How many clients without a connection are known at most.
    pub(super) const STRANGERS: usize = 4096;
    /// How often the full table is searched for clients to forget: at most that often, because it
    /// takes some 100 µs.
    const FORGETS_EVERY: Duration = Duration::from_secs(1);

    /// Applies other rules. `open` has the connections with the address of each. What the clients
    /// have used of their rates stays used.
    pub(super) fn apply(&mut self, rules: GateRules, open: &[(ConnId, IpAddr)]) {
        if rules.client_rate.is_none() || rules.ipv6_prefix != self.rules.ipv6_prefix {
            self.clients = HashMap::new();
        }
        self.rules = rules;
        self.clients.values_mut().for_each(|it| it.open.clear());
        for (id, ip) in open {
            self.enters(*id, *ip);
        }
    }

    /// Returns whether the client at `ip` may not connect at all.
    pub(super) fn denies(&self, ip: IpAddr) -> bool {
        let access = self.rules.access.as_ref();
        access.is_some_and(|it| it.judge(ip) == Verdict::Deny)
    }

    /// Lets a client in, or says why not. `ip` is `None` for a Unix socket. `open` is how many
    /// connections there are. The caller of an admitted client must follow with [`Gate::enters`].
    pub(super) fn admit(
        &mut self,
        ip: Option<IpAddr>,
        open: usize,
        now: u64,
    ) -> Result<(), RefuseReason> {
        let rules = &self.rules;
        let key = ip.filter(|_| rules.knows_clients());
        let key = key.map(|ip| self.key(ip));
        let known = key.and_then(|key| self.clients.get(&key));
        if let (Some(most), Some(client)) = (rules.client_connections, known)
            && client.open.len() >= most
        {
            return Err(RefuseReason::ClientLimit);
        }
        let known = known.map(|client| client.bucket);
        let mut taken = None;
        if let (Some(rate), Some(key)) = (rules.client_rate, key) {
            let is_stranger = known.is_none() && !self.has_room(open, now);
            let new = match is_stranger {
                true => self.strangers,
                false => Bucket::default(),
            };
            let mut bucket = known.unwrap_or(new);
            if !bucket.take(&rate, now) {
                return Err(RefuseReason::ClientRate);
            }
            taken = Some((key, bucket, is_stranger));
        }
        if let Some(rate) = &self.rules.rate
            && !self.all.take(rate, now)
        {
            return Err(RefuseReason::Rate);
        }
        if let Some((key, bucket, is_stranger)) = taken {
            // A stranger is known while it is connected, with what is left for strangers.
            if is_stranger {
                self.strangers = bucket;
            }
            self.clients.entry(key).or_default().bucket = bucket;
        }
        Ok(())
    }

    /// Counts a connection of a client.
    pub(super) fn enters(&mut self, id: ConnId, ip: IpAddr) {
        if self.rules.knows_clients() {
            let key = self.key(ip);
            self.clients.entry(key).or_default().open.push(id);
        }
    }

    /// Counts it no more. `open` is how many connections there are without it.
    pub(super) fn leaves(&mut self, id: ConnId, ip: IpAddr, open: usize) {
        let key = self.key(ip);
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        client.open.retain(|it| *it != id);
        let is_idle = client.open.is_empty();
        let is_full = self.clients.len() > Self::STRANGERS + open;
        if is_idle && (is_full || self.rules.client_rate.is_none()) {
            self.clients.remove(&key);
        }
    }

    /// Returns whether another client can be known, after those to forget are forgotten.
    fn has_room(&mut self, open: usize, now: u64) -> bool {
        let most = Self::STRANGERS + open;
        if self.clients.len() >= most && now >= self.forgets_at {
            self.forgets_at = now + Self::FORGETS_EVERY.as_nanos() as u64;
            let is_kept = |it: &Client| !it.open.is_empty() || !it.bucket.is_full(now);
            self.clients.retain(|_, it| is_kept(it));
        }
        self.clients.len() < most
    }

    fn key(&self, ip: IpAddr) -> u128 {
        client_key(ip, self.rules.ipv6_prefix)
    }
}

/// Returns what stands for the client at `ip`: an IPv4 address, or a part of an IPv6 address.
pub(super) fn client_key(ip: IpAddr, ipv6_prefix: u8) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => {
            let others = 128 - u32::from(ipv6_prefix.min(128));
            let kept = u128::MAX.checked_shl(others).unwrap_or(0);
            Ipv6Addr::to_bits(ip) & kept
        }
    }
}

#[cfg(test)]
mod tests;
