//! Which addresses may connect to an entrypoint. Does no I/O.

use std::net::IpAddr;

use super::network::Network;

/// What a list says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It may not connect.
    Deny,
    /// It may connect.
    Allow,
}

/// A network of a list, and what the list says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// The network.
    pub network: Network,
    /// What its addresses may do, unless a rule for a smaller network in it says otherwise.
    pub verdict: Verdict,
    /// Where the rule comes from, for the caller of [`AccessList::new`].
    pub tag: u32,
}

/// Which addresses may connect.
///
/// The smallest network that contains an address decides, and of equal ones the one that denies. An
/// IPv4-mapped address is an IPv4 address.
///
/// The verdict on an address depends only on how many of a few sorted numbers are not above it, so
/// a list takes at most 8 bytes for an IPv4 network and 32 for an IPv6 network, and a look-up in a
/// list of 100,000 networks compares 18 numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessList {
    /// What applies to the addresses in no network.
    otherwise: Verdict,
    /// The addresses at which the verdict changes. The first address of all has the verdict
    /// `otherwise` if it is not among them.
    v4: Box<[u32]>,
    v6: Box<[u128]>,
    rules: usize,
}

/// Why a rule is never what decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The rule for this network says the same of all its addresses, or is for the same network and
    /// precedes it.
    Covered(Network, Verdict),
    /// No rule applies to the network, and what applies then is the same.
    Otherwise,
}

impl AccessList {
    /// Creates the list of `rules`, which it sorts. `otherwise` applies to all other addresses.
    /// Calls `idle` with each rule without which the list would be the same.
    pub fn new(
        rules: &mut [AccessRule],
        otherwise: Verdict,
        mut idle: impl FnMut(&AccessRule, Idle),
    ) -> Self {
        // A network comes before those that it contains.
        rules.sort_unstable_by_key(|it| {
            let (is_v4, first, last) = it.network.range();
            (is_v4, first, !last, it.verdict, it.tag)
        });
        let v4_from = rules.partition_point(|it| !it.network.range().0);
        let (v6, v4) = rules.split_at(v4_from);
        let v6 = changes(v6, otherwise, u128::MAX, &mut idle);
        let v4 = changes(v4, otherwise, u32::MAX.into(), &mut idle);
        Self {
            otherwise,
            v4: v4.into_iter().map(|it| it as u32).collect(),
            v6: v6.into(),
            rules: rules.len(),
        }
    }

    /// Returns what the list says about an address.
    #[must_use]
    pub fn judge(&self, ip: IpAddr) -> Verdict {
        let below = match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.partition_point(|at| *at <= ip.to_bits()),
            IpAddr::V6(ip) => self.v6.partition_point(|at| *at <= ip.to_bits()),
        };
        turned(self.otherwise, below)
    }

    /// Returns whether the list lets no address connect.
    #[must_use]
    pub fn admits_nobody(&self) -> bool {
        self.otherwise == Verdict::Deny && self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns the number of rules that the list was made of.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// Returns how many bytes the list takes, itself included.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.v4) + size_of_val(&*self.v6)
    }
}

/// Returns the addresses at which the verdict changes, which sorted rules of one family lead to.
/// `most` is the family's last address.
fn changes(
    rules: &[AccessRule],
    otherwise: Verdict,
    most: u128,
    idle: &mut impl FnMut(&AccessRule, Idle),
) -> Vec<u128> {
    let mut changes = Vec::new();
    // From this address on, until the next change.
    let mut applies = |at: u128, verdict: Verdict| {
        if changes.last() == Some(&at) {
            changes.pop();
        }
        if turned(otherwise, changes.len()) != verdict {
            changes.push(at);
        }
    };
    // The rules that apply, each inside the one before it.
    let mut around: Vec<&AccessRule> = Vec::new();
    let leave = |around: &mut Vec<&AccessRule>, before: Option<u128>| {
        while let Some(inner) = around.last() {
            let (_, _, last) = inner.network.range();
            if before.is_some_and(|before| last >= before) {
                return None;
            }
            around.pop();
            if last < most {
                let outer = around.last().map_or(otherwise, |it| it.verdict);
                return Some((last + 1, outer));
            }
        }
        None
    };
    for same in rules.chunk_by(|one, other| one.network == other.network) {
        let (rule, others) = (&same[0], &same[1..]);
        let (_, first, _) = rule.network.range();
        while let Some((at, verdict)) = leave(&mut around, Some(first)) {
            applies(at, verdict);
        }
        // A rule that denies is not idle if another one would allow the same network.
        if others.iter().all(|it| it.verdict == rule.verdict) {
            match around.last() {
                Some(outer) if outer.verdict == rule.verdict => {
                    idle(rule, Idle::Covered(outer.network, outer.verdict));
                }
                None if rule.verdict == otherwise => idle(rule, Idle::Otherwise),
                _ => {}
            }
        }
        for other in others {
            idle(other, Idle::Covered(rule.network, rule.verdict));
        }
        applies(first, rule.verdict);
        around.push(rule);
    }
    while let Some((at, verdict)) = leave(&mut around, None) {
        applies(at, verdict);
    }
    changes.shrink_to_fit();
    changes
}

/// Returns the verdict after `n` changes.
fn turned(verdict: Verdict, n: usize) -> Verdict {
    match (verdict, n % 2) {
        (it, 0) => it,
        (Verdict::Allow, _) => Verdict::Deny,
        (Verdict::Deny, _) => Verdict::Allow,
    }
}

#[cfg(test)]
mod tests;
