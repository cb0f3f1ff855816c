use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use super::super::identity::Identities;
use super::*;

const SECOND: u64 = 1_000_000_000;

fn rate(count: u32, burst: u32) -> Rate {
    Rate {
        count,
        per: Duration::from_secs(1),
        burst,
    }
}

fn gate(rules: GateRules) -> Gate {
    let mut gate = Gate::default();
    gate.apply(rules, &[]);
    gate
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(n).into()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn ipv6_clients_are_networks_and_mapped_ones_are_ipv4_clients() {
    let ids = Identities::default();
    let mut gate = gate(GateRules {
        client_connections: Some(1),
        ipv6_prefix: 64,
        ..GateRules::default()
    });
    for (one, same, other) in [
        ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::", "2001:db8:0:2::1"),
    ] {
        assert_eq!(gate.admit(Some(ip(one)), 0, 0), Ok(()));
        gate.enters(ids.next(), ip(one));
        let refused = gate.admit(Some(ip(same)), 1, 0);
        assert_eq!(refused, Err(RefuseReason::ClientLimit), "{same}");
        assert_eq!(gate.admit(Some(ip(other)), 1, 0), Ok(()), "{other}");
    }
}

#[test]
fn refused_clients_use_up_nothing() {
    let mut gate = gate(GateRules {
        client_rate: Some(rate(1, 2)),
        rate: Some(rate(1, 3)),
        ..GateRules::default()
    });
    let mut admit = |n, now| gate.admit(Some(v4(n)), 0, now);
    assert_eq!([admit(1, 0), admit(1, 0)], [Ok(()); 2]);
    for _ in 0..100 {
        assert_eq!(admit(1, 0), Err(RefuseReason::ClientRate));
    }
    assert_eq!(admit(2, 0), Ok(()));
    for _ in 0..100 {
        assert_eq!(admit(3, 0), Err(RefuseReason::Rate));
    }
    // A second later all have one token, and the client with two left has not lost any.
    assert_eq!(admit(3, SECOND), Ok(()));
    assert_eq!(admit(3, 2 * SECOND), Ok(()));
    assert_eq!(gate.admit(None, 0, 2 * SECOND), Err(RefuseReason::Rate));
}

/// What the rules say, by a list of all that has ever happened.
#[derive(Default)]
struct Model {
    open: Vec<(ConnId, u32)>,
    buckets: HashMap<u32, Bucket>,
    all: Bucket,
}

impl Model {
    fn admit(&mut self, rules: &GateRules, client: u32, now: u64) -> Result<(), RefuseReason> {
        let open = self.open.iter().filter(|(_, it)| *it == client).count();
        if rules.client_connections.is_some_and(|most| open >= most) {
            return Err(RefuseReason::ClientLimit);
        }
        let mut bucket = self.buckets.get(&client).copied().unwrap_or_default();
        if rules
            .client_rate
            .is_some_and(|rate| !bucket.take(&rate, now))
        {
            return Err(RefuseReason::ClientRate);
        }
        if rules.rate.is_some_and(|rate| !self.all.take(&rate, now)) {
            return Err(RefuseReason::Rate);
        }
        self.buckets.insert(client, bucket);
        Ok(())
    }
}

#[test]
fn verdicts_agree_with_a_model_that_forgets_nothing() {
    let mut random = fastrand::Rng::with_seed(0x2672);
    let mut verdicts: HashMap<String, usize> = HashMap::new();
    for round in 0..300 {
        let rules = |random: &mut fastrand::Rng| GateRules {
            access: None,
            client_connections: random.bool().then(|| random.usize(1..4)),
            client_rate: random
                .bool()
                .then(|| rate(random.u32(1..9), random.u32(1..4))),
            ipv6_prefix: 64,
            rate: random
                .bool()
                .then(|| rate(random.u32(1..30), random.u32(1..9))),
        };
        let mut now_in_force = rules(&mut random);
        let (ids, mut model, mut now) = (Identities::default(), Model::default(), 0);
        let mut gate = gate(now_in_force.clone());
        for _ in 0..200 {
            now += random.u64(..SECOND / 4);
            let client = random.u32(..6);
            match random.u8(..20) {
                0 if now_in_force.knows_clients() => {
                    let new = rules(&mut random);
                    if !new.knows_clients() {
                        continue;
                    }
                    now_in_force = new;
                    let open = model.open.iter().map(|(id, client)| (*id, v4(*client)));
                    gate.apply(now_in_force.clone(), &open.collect::<Vec<_>>());
                    // Only with a rate are there buckets to keep.
                    if now_in_force.client_rate.is_none() {
                        break;
                    }
                }
                1..8 if !model.open.is_empty() => {
                    let at = random.usize(..model.open.len());
                    let (id, client) = model.open.swap_remove(at);
                    gate.leaves(id, v4(client), model.open.len());
                }
                _ => {
                    let verdict = gate.admit(Some(v4(client)), model.open.len(), now);
                    let expected = model.admit(&now_in_force, client, now);
                    assert_eq!(verdict, expected, "round {round}: {now_in_force:?}");
                    *verdicts.entry(format!("{verdict:?}")).or_default() += 1;
                    if verdict.is_ok() {
                        let id = ids.next();
                        gate.enters(id, v4(client));
                        model.open.push((id, client));
                    }
                }
            }
        }
        for (id, client) in std::mem::take(&mut model.open) {
            gate.leaves(id, v4(client), 0);
        }
        assert!(gate.clients.values().all(|it| it.open.is_empty()));
        if now_in_force.client_rate.is_none() {
            assert!(gate.clients.is_empty(), "round {round}");
        }
    }
    assert!(
        verdicts.len() == 4 && verdicts.values().all(|n| *n > 500),
        "{verdicts:?}"
    );
}

#[test]
fn a_million_addresses_take_no_more_memory_and_known_clients_stay() {
    const ADDRESSES: u32 = 1_000_000;
    /// What comes in one second.
    const PER_SECOND: u32 = 20_000;
    let ids = Identities::default();
    let mut gate = gate(GateRules {
        client_connections: Some(4),
        // A used token takes a minute to come back, so the flood fills the table.
        client_rate: Some(Rate {
            count: 60,
            per: Duration::from_secs(3600),
            burst: 3,
        }),
        ..GateRules::default()
    });
    let known = v4(u32::MAX);
    let connected = ids.next();
    assert_eq!(gate.admit(Some(known), 0, 0), Ok(()));
    gate.enters(connected, known);
    let (mut admitted, mut most) = (0, 0);
    for n in 0..ADDRESSES {
        let now = u64::from(n) * SECOND / u64::from(PER_SECOND);
        if gate.admit(Some(v4(n)), 1, now).is_ok() {
            admitted += 1;
            let id = ids.next();
            gate.enters(id, v4(n));
            most = most.max(gate.clients.len());
            gate.leaves(id, v4(n), 1);
        }
        most = most.max(gate.clients.len());
    }
    assert!(most <= Gate::STRANGERS + 2, "{most}");
    // One more byte for each place, by which the table finds it.
    let bytes = gate.clients.capacity() * (size_of::<(u128, Client)>() + 1);
    assert!(bytes <= 512 * 1024, "{bytes}");
    // The first ones, three more at once and then one a minute, or after they are forgotten.
    assert!((4_000..30_000).contains(&admitted), "{admitted}");
    // The known client has what it had, less its one connection, and what has come since.
    let now = 50 * SECOND;
    let again: Vec<_> = (0..3).map(|_| gate.admit(Some(known), 1, now)).collect();
    assert_eq!(again, [Ok(()), Ok(()), Err(RefuseReason::ClientRate)]);
    gate.leaves(connected, known, 0);
    // Once all buckets are full again, new clients are known again.
    let later = 10_000 * SECOND;
    let new: HashSet<_> = (0..100).map(|n| v4(0x7f00_0000 + n)).collect();
    for ip in new {
        assert_eq!(gate.admit(Some(ip), 0, later), Ok(()), "{ip}");
    }
    assert!(gate.clients.len() <= 200, "{}", gate.clients.len());
}
