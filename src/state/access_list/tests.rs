use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

fn list(allow: &[&str], deny: &[&str], otherwise: Verdict) -> (AccessList, Vec<(String, Idle)>) {
    let rule = |text: &&str, verdict| AccessRule {
        network: text.parse().expect("a network"),
        verdict,
        tag: 0,
    };
    let allow = allow.iter().map(|text| rule(text, Verdict::Allow));
    let deny = deny.iter().map(|text| rule(text, Verdict::Deny));
    let mut rules: Vec<_> = allow.chain(deny).collect();
    let mut idle = Vec::new();
    let list = AccessList::new(&mut rules, otherwise, |rule, why| {
        idle.push((rule.network.to_string(), why));
    });
    (list, idle)
}

fn admits(list: &AccessList, ip: &str) -> bool {
    list.judge(ip.parse().expect("an address")) == Verdict::Allow
}

#[test]
fn the_smallest_network_decides() {
    let allow = ["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"];
    let deny = ["10.1.0.0/16", "10.1.2.3", "2001:db8:1::/48"];
    let (list, idle) = list(&allow, &deny, Verdict::Deny);
    assert_eq!(idle, []);
    for (ip, is_in) in [
        ("9.255.255.255", false),
        ("10.0.0.0", true),
        ("10.0.255.255", true),
        ("10.1.0.0", false),
        ("10.1.2.2", true),
        ("10.1.2.3", false),
        ("10.1.2.4", true),
        ("10.1.3.0", false),
        ("10.2.0.0", true),
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("::ffff:10.1.2.2", true),
        ("::ffff:10.1.2.3", false),
        ("2001:db8::1", true),
        ("2001:db8:1::1", false),
        ("2001:db9::", false),
        ("::1", false),
    ] {
        assert_eq!(admits(&list, ip), is_in, "{ip}");
    }
}

#[test]
fn networks_up_to_the_last_address_end_there() {
    let (v4, _) = list(&[], &["0.0.0.0/0"], Verdict::Allow);
    assert!(!admits(&v4, "0.0.0.0") && !admits(&v4, "255.255.255.255"));
    assert!(admits(&v4, "::") && admits(&v4, "ffff::"));
    let (v6, _) = list(&["::/0"], &["ffff::/16"], Verdict::Deny);
    assert!(admits(&v6, "::") && !admits(&v6, "ffff:ffff::") && !admits(&v6, "1.2.3.4"));
    let deny = ["255.255.255.255", "255.255.255.254"];
    let (ends, _) = list(&[], &deny, Verdict::Allow);
    assert!(admits(&ends, "255.255.255.253") && !admits(&ends, "255.255.255.255"));
}

#[test]
fn idle_rules_are_reported() {
    let covered = |by: &str, verdict| Idle::Covered(by.parse().expect("a network"), verdict);
    let (_, idle) = list(
        &["10.0.0.0/8", "10.0.0.0/8", "10.1.0.0/16", "192.168.0.1"],
        &["192.168.0.1", "10.2.0.0/16", "10.2.3.0/24", "172.16.0.0/12"],
        Verdict::Deny,
    );
    let expected = [
        ("10.0.0.0/8", covered("10.0.0.0/8", Verdict::Allow)),
        ("10.1.0.0/16", covered("10.0.0.0/8", Verdict::Allow)),
        ("10.2.3.0/24", covered("10.2.0.0/16", Verdict::Deny)),
        ("172.16.0.0/12", Idle::Otherwise),
        ("192.168.0.1", covered("192.168.0.1", Verdict::Deny)),
    ];
    assert_eq!(idle, expected.map(|(name, why)| (name.to_owned(), why)));
}

#[test]
fn a_list_that_admits_nobody_is_known() {
    let nobody = |allow: &[&str], deny: &[&str]| list(allow, deny, Verdict::Deny).0.admits_nobody();
    assert!(nobody(&[], &[]));
    assert!(nobody(&["10.0.0.0/8"], &["10.0.0.0/8"]));
    assert!(nobody(&["10.0.0.0/31"], &["10.0.0.0", "10.0.0.1"]));
    assert!(!nobody(&["10.0.0.0/31"], &["10.0.0.0"]));
    assert!(!nobody(&["::1"], &[]));
    let (all, _) = list(&[], &["::/0", "0.0.0.0/0"], Verdict::Allow);
    assert!(!all.admits_nobody(), "no list of those allowed");
}

/// What a list says by its definition, rule for rule.
fn naive(rules: &[AccessRule], otherwise: Verdict, ip: IpAddr) -> Verdict {
    let fitting = rules.iter().filter(|it| it.network.contains(ip));
    let size = |it: &&AccessRule| {
        let (_, first, last) = it.network.range();
        (last - first, it.verdict)
    };
    fitting.min_by_key(size).map_or(otherwise, |it| it.verdict)
}

/// An address near few others, so that networks overlap and touch.
fn address(random: &mut fastrand::Rng) -> IpAddr {
    let bits = random.u32(..) & 0xc000_0307;
    let high = [0, u128::MAX << 48][random.usize(..2)];
    match random.u8(..4) {
        0 => Ipv6Addr::from_bits(high | u128::from(bits)).into(),
        1 => Ipv4Addr::from_bits(bits).to_ipv6_mapped().into(),
        2 => Ipv4Addr::from_bits(!bits).into(),
        _ => Ipv4Addr::from_bits(bits).into(),
    }
}

#[test]
fn lists_agree_with_their_definition() {
    let mut random = fastrand::Rng::with_seed(0x2672);
    for round in 0..3_000 {
        let otherwise = [Verdict::Deny, Verdict::Allow][random.usize(..2)];
        let rules = (0..random.u32(..12)).map(|tag| AccessRule {
            network: Network::of(address(&mut random), random.u8(..=128)),
            verdict: [Verdict::Deny, Verdict::Allow][random.usize(..2)],
            tag,
        });
        let mut rules: Vec<_> = rules.collect();
        let mut idle = Vec::new();
        let list = AccessList::new(&mut rules, otherwise, |rule, _| idle.push(rule.tag));
        let edges = rules.iter().flat_map(|it| {
            let (is_v4, first, last) = it.network.range();
            let ip = move |bits: u128| match is_v4 {
                true => IpAddr::from(Ipv4Addr::from_bits(bits as u32)),
                false => Ipv6Addr::from_bits(bits).into(),
            };
            [first, first.wrapping_sub(1), last, last.wrapping_add(1)].map(ip)
        });
        let more = (0..20).map(|_| address(&mut random));
        for ip in edges.chain(more).collect::<Vec<_>>() {
            assert_eq!(
                list.judge(ip),
                naive(&rules, otherwise, ip),
                "round {round}: {ip} in {rules:?}"
            );
        }
        // A rule that was reported decides nothing. Each is taken away alone, since two can cover
        // each other.
        for tag in idle {
            let mut others = rules.clone();
            others.retain(|it| it.tag != tag);
            let without = AccessList::new(&mut others, otherwise, |_, _| {});
            assert_eq!(
                (&without.v4, &without.v6),
                (&list.v4, &list.v6),
                "round {round}"
            );
        }
    }
}

#[test]
fn memory_per_network_is_bounded() {
    const LINES: u32 = 100_000;
    let rule = |network| AccessRule {
        network,
        verdict: Verdict::Deny,
        tag: 0,
    };
    let v4 = |n: u32| Network::of(Ipv4Addr::from_bits(n << 12).into(), 24);
    let mut rules: Vec<_> = (0..LINES).map(|n| rule(v4(n))).collect();
    let list = AccessList::new(&mut rules, Verdict::Allow, |_, _| {});
    assert_eq!(list.size() - size_of::<AccessList>(), 8 * LINES as usize);
    let v6 = |n: u32| Network::of(Ipv6Addr::from_bits(u128::from(n) << 96).into(), 64);
    let mut rules: Vec<_> = (1..=LINES).map(|n| rule(v6(n))).collect();
    let list = AccessList::new(&mut rules, Verdict::Allow, |_, _| {});
    assert_eq!(list.size() - size_of::<AccessList>(), 32 * LINES as usize);
    assert!(size_of::<AccessRule>() <= 24, "while a list is made");
}
