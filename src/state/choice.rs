//! Chooses a server of a service: by what is up, by limits, then by balancing.

use std::net::IpAddr;
use std::time::Instant;

use super::balance::Candidate;
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
        let fitting = match Self::fitting(servers, &server, tried, now) {
            Fitting::None => return Choice::None,
            Fitting::Full => return Choice::Full,
            Fitting::One(index) => return Choice::Server(index),
            Fitting::Many(fitting) => fitting,
        };
        let candidates = fitting
            .iter()
            .map(|index| server(&servers[*index]).candidate(now));
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let chosen = self.rules().balance.choose(&candidates, client, random);
        chosen.map_or(Choice::None, |chosen| Choice::Server(fitting[chosen]))
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
                fitting.add(index);
            }
        }
        fitting
    }
}

/// The servers of the best group, by position. A single one, the usual case, needs no list.
enum Fitting {
    None,
    Full,
    One(usize),
    Many(Vec<usize>),
}

impl Fitting {
    fn add(&mut self, index: usize) {
        match self {
            Self::None | Self::Full => *self = Self::One(index),
            Self::One(first) => *self = Self::Many(vec![*first, index]),
            Self::Many(all) => all.push(index),
        }
    }
}

#[cfg(test)]
mod tests;
