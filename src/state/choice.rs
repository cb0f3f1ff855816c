//! Chooses a server of a service: by what is up, by limits, then by balancing.

use std::net::IpAddr;
use std::time::Instant;

use super::server::{Server, Tier};
use super::service::Service;

/// The outcome of choosing a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The server at this position.
    Server(usize),
    /// All that could be chosen are at their limits.
    Full,
    /// None is left that could be chosen.
    None,
}

impl Service {
    /// Chooses one of `servers`, without those that are in `tried`, for a connection from `client`.
    /// `random` returns uniformly distributed numbers.
    ///
    /// Servers that are up come first, then backups that are up, then the others, unless the rules
    /// say otherwise. Within one of these groups the limits and the balancing decide.
    pub fn choose<T>(
        &self,
        servers: &[T],
        server: impl Fn(&T) -> &Server,
        tried: &[usize],
        client: Option<IpAddr>,
        random: &mut dyn FnMut() -> u64,
        now: Instant,
    ) -> Choice {
        let tier = match Self::fitting(servers, &server, tried, now) {
            Fitting::None => return Choice::None,
            Fitting::Full => return Choice::Full,
            Fitting::One(index) => return Choice::Server(index),
            Fitting::Many(tier) => tier,
        };
        // Looked up again each time, because a list would be an allocation per connection.
        let candidates = servers.iter().enumerate().filter_map(|(index, it)| {
            let it = server(it);
            let fits = !tried.contains(&index) && it.tier(now) == Some(tier) && it.has_room();
            fits.then(|| (index, it.candidate(now)))
        });
        let chosen = self.rules().balance.choose(candidates, client, random);
        chosen.map_or(Choice::None, Choice::Server)
    }

    /// Returns whether [`Service::choose`] would choose a server.
    pub fn has_room<T>(
        &self,
        servers: &[T],
        server: impl Fn(&T) -> &Server,
        tried: &[usize],
        now: Instant,
    ) -> bool {
        let fitting = Self::fitting(servers, &server, tried, now);
        matches!(fitting, Fitting::One(_) | Fitting::Many(_))
    }

    fn fitting<T>(
        servers: &[T],
        server: &impl Fn(&T) -> &Server,
        tried: &[usize],
        now: Instant,
    ) -> Fitting {
        let mut best: Option<Tier> = None;
        let mut fitting = Fitting::None;
        for (index, it) in servers.iter().enumerate() {
            let it = server(it);
            if tried.contains(&index) {
                continue;
            }
            let Some(tier) = it.tier(now) else {
                continue;
            };
            if best.is_some_and(|best| tier > best) {
                continue;
            }
            if best != Some(tier) {
                best = Some(tier);
                fitting = Fitting::Full;
            }
            if it.has_room() {
                fitting = match fitting {
                    Fitting::None | Fitting::Full => Fitting::One(index),
                    Fitting::One(_) | Fitting::Many(_) => Fitting::Many(tier),
                };
            }
        }
        fitting
    }
}

/// The servers of the best group that have room.
enum Fitting {
    /// There is no group.
    None,
    /// The group has no room.
    Full,
    /// The position of the only one, the usual case.
    One(usize),
    /// The group.
    Many(Tier),
}

#[cfg(test)]
mod tests;
