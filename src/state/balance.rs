//! Which of several servers gets the next connection. Pure: loads, weights and random numbers are
//! arguments, and the only state is each candidate's seat.

use std::cell::Cell;
use std::net::IpAddr;

/// How a server is chosen for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, in proportion to the weights.
    #[default]
    RoundRobin,
    /// The one with the fewest connections in proportion to its weight.
    LeastConnections,
    /// The less loaded of two that are picked at random.
    Random,
    /// By the client's address.
    Source,
}

impl Balance {
    /// Returns the word for it in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Random => "random",
            Self::Source => "source",
        }
    }
}

/// A server that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its share in proportion to that of the others; not zero.
    pub weight: u32,
    /// The connections that it has or that are dialling it.
    pub load: usize,
    /// What round robin owes it.
    pub seat: &'a Cell<i64>,
    /// A hash of its name, which stays the same over restarts.
    pub key: u64,
}

impl Candidate<'_> {
    /// Returns whether its load is lower than that of `other`, in proportion to the weights.
    fn is_less_loaded(&self, other: &Self) -> bool {
        self.load_against(other) < other.load_against(self)
    }

    fn load_against(&self, other: &Self) -> u128 {
        self.load as u128 * u128::from(other.weight)
    }
}

impl Balance {
    /// Returns the position of the chosen candidate, or `None` if there are none.
    ///
    /// `candidates` have their positions, in rising order. `client` is the client's address, if it
    /// has one. `random` returns uniformly distributed numbers.
    pub fn choose<'a>(
        self,
        candidates: impl Candidates<'a>,
        client: Option<IpAddr>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let mut some = candidates.clone();
        let first = some.next().map(|(position, _)| position);
        if some.next().is_none() {
            return first;
        }
        match (self, client) {
            (Self::RoundRobin, _) | (Self::Source, None) => round_robin(candidates),
            (Self::LeastConnections, _) => least_connections(candidates),
            (Self::Random, _) => random_of_two(candidates, random),
            (Self::Source, Some(client)) => by_source(candidates, client),
        }
    }
}

/// Candidates with their positions, of which each walk finds the same.
pub trait Candidates<'a>: Iterator<Item = (usize, Candidate<'a>)> + Clone {}

impl<'a, I: Iterator<Item = (usize, Candidate<'a>)> + Clone> Candidates<'a> for I {}

/// Smooth weighted round robin, as in nginx since 1.3.1: each candidate gains its weight, and the
/// one that then has most pays the sum of all weights. A weight of 5 beside two of 1 gives
/// `aabacaa` instead of `aaaaabc`.
fn round_robin<'a>(candidates: impl Candidates<'a>) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<(usize, Candidate<'_>)> = None;
    for (position, candidate) in candidates {
        let weight = i64::from(candidate.weight);
        let seat = candidate.seat.get().saturating_add(weight);
        candidate.seat.set(seat);
        total += weight;
        if best.is_none_or(|(_, best)| seat > best.seat.get()) {
            best = Some((position, candidate));
        }
    }
    let (position, best) = best?;
    best.seat.set(best.seat.get() - total);
    Some(position)
}

/// Equally loaded candidates take turns.
fn least_connections<'a>(candidates: impl Candidates<'a>) -> Option<usize> {
    let less_loaded = |a: Candidate<'a>, b| match Candidate::is_less_loaded(&b, &a) {
        true => b,
        false => a,
    };
    let all = candidates.clone().map(|(_, it)| it);
    let least = all.reduce(less_loaded)?;
    round_robin(candidates.filter(move |(_, it)| !least.is_less_loaded(it)))
}

/// The power of two random choices (Mitzenmacher, 2001): nearly as even as the least loaded of all,
/// and several proxies do not all pick the same server at once.
fn random_of_two<'a>(
    candidates: impl Candidates<'a>,
    random: &mut dyn FnMut() -> u64,
) -> Option<usize> {
    let (first, one) = weighted(candidates.clone(), random())?;
    let others = candidates.filter(move |(position, _)| *position != first);
    match weighted(others, random()) {
        Some((second, other)) if other.is_less_loaded(&one) => Some(second),
        _ => Some(first),
    }
}

/// Returns one of the candidates, each in proportion to its weight.
fn weighted<'a>(candidates: impl Candidates<'a>, random: u64) -> Option<(usize, Candidate<'a>)> {
    let mut candidates = candidates;
    let total: u64 = candidates.clone().map(|(_, it)| u64::from(it.weight)).sum();
    let mut left = random.checked_rem(total)?;
    candidates.find(|(_, it)| {
        let weight = u64::from(it.weight);
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    })
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998) with the weights of Schindelhauer and
/// Schomaker (2005): the client's highest score wins. A server that goes moves only its own
/// clients, and one that comes takes its share from all others equally.
fn by_source<'a>(candidates: impl Candidates<'a>, client: IpAddr) -> Option<usize> {
    let client = match client.to_canonical() {
        IpAddr::V4(ip) => mixed(fnv(&ip.octets())),
        IpAddr::V6(ip) => mixed(fnv(&ip.octets())),
    };
    let score = |it: &Candidate<'_>| {
        // The upper 53 bits make a number between 0 and 1, both excluded.
        let hash = mixed(client ^ it.key) >> 11;
        let uniform = (hash as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(it.weight) / uniform.ln()
    };
    let scores = candidates.map(|(position, it)| (position, score(&it)));
    let best = scores.max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(position, _)| position)
}

/// Returns the key of a server by its name.
pub(super) fn key(name: &str) -> u64 {
    fnv(name.as_bytes())
}

/// The 64-bit hash FNV-1a (Fowler, Noll and Vo).
fn fnv(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(start, step)
}

/// Spreads a hash over all bits: the last steps of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
