//! The open connections of one entrypoint or server: a set of identities whose length is the gauge.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::identity::ConnId;
use super::waiters::{Until, Waiters};

/// A set of connections. A connection's [`Guard`](super::Guard) adds it and removes it; there is no
/// counter beside the set.
#[derive(Debug, Default)]
pub struct Members {
    ids: RefCell<HashSet<ConnId, BuildHasherDefault<IdHasher>>>,
    fewer: Waiters,
}

impl Members {
    /// Returns the number of connections: the gauge.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.borrow().len()
    }

    /// Returns `true` if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the identities of all connections, in no particular order.
    #[must_use]
    pub fn ids(&self) -> Vec<ConnId> {
        self.ids.borrow().iter().copied().collect()
    }

    /// Waits until there are fewer than `limit`. Leaving connections wake it.
    pub fn below(&self, limit: usize) -> Until<'_, impl Fn() -> bool + Unpin> {
        Until::new(&self.fewer, move || self.len() < limit)
    }

    /// Waits until `holds`. Leaving connections wake it, one task each.
    pub fn until<F: Fn() -> bool + Unpin>(&self, holds: F) -> Until<'_, F> {
        Until::new(&self.fewer, holds)
    }

    /// Wakes the next task that waits, because one that was woken had no use for it.
    pub fn offer(&self) {
        self.fewer.wake_one();
    }

    /// Wakes every task that waits, because what it waits for may have changed.
    pub fn offer_all(&self) {
        self.fewer.wake_all();
    }

    pub(super) fn insert(&self, id: ConnId) {
        let is_new = self.ids.borrow_mut().insert(id);
        debug_assert!(is_new, "a connection enters once");
    }

    pub(super) fn remove(&self, id: ConnId) {
        let was_there = self.ids.borrow_mut().remove(&id);
        debug_assert!(was_there, "a connection leaves once");
        self.fewer.wake_one();
    }
}

/// Hashes an identity with one multiplication (Fibonacci hashing; Knuth, The Art of Computer
/// Programming, volume 3, section 6.4). The standard hasher resists keys that an attacker chooses;
/// identities count up.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = (self.0 ^ number).wrapping_mul(GOLDEN_RATIO);
        // The low bits of a product depend on the low bits of the number alone, and a client could
        // keep every 1,024th connection open.
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn identities_that_share_their_low_bits_spread_over_a_table() {
        let build = BuildHasherDefault::<IdHasher>::default();
        for shift in [0, 10, 20, 30] {
            let hashes = (1..=1024_u64).map(|number| build.hash_one(number << shift));
            let buckets: BTreeSet<_> = hashes.map(|hash| hash % 1024).collect();
            assert!(buckets.len() > 400, "{} for shift {shift}", buckets.len());
        }
    }
}
