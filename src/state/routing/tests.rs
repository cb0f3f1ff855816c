//! Compares the decision with a simple model that knows everything, on all that a client has sent
//! and on each beginning of it.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;

const NAMES: [&str; 6] = [
    "nas.lan",
    "a.nas.lan",
    "b.a.nas.lan",
    "lan",
    "web.org",
    "xnas.lan",
];
const PATTERNS: [&str; 6] = [
    "nas.lan",
    "*.lan",
    "*.nas.lan",
    "*.a.nas.lan",
    "web.org",
    "*.org",
];
const ALPN: [&str; 3] = ["h2", "http/1.1", "ssh"];
const PREFIXES: [&[u8]; 4] = [b"SSH-2.0-", b"\x16\x03", b"GET ", b"\0\x01\x02"];
const NETWORKS: [&str; 5] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1", "::/0"];
const CLIENTS: [&str; 5] = [
    "10.1.1.1",
    "10.1.2.3",
    "10.2.0.1",
    "192.0.2.1",
    "2001:db8::1",
];

/// What a client sends.
#[derive(Clone, Debug)]
enum Sent {
    Tls(Option<&'static str>, Vec<&'static str>),
    Http(Option<&'static str>),
    Raw(Vec<u8>),
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Tls(name, alpn) => hello(*name, alpn),
            Self::Http(None) => b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            Self::Http(Some(host)) => {
                format!("GET / HTTP/1.1\r\nHost: {host}:80\r\n\r\n").into_bytes()
            }
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

/// A ClientHello with one cipher suite.
fn hello(name: Option<&str>, alpn: &[&str]) -> Vec<u8> {
    fn sized(bytes: usize, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&length[4 - bytes..], body].concat()
    }
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let list = [&[0][..], &sized(2, name.as_bytes())].concat();
        extensions.extend([&[0, 0][..], &sized(2, &sized(2, &list))].concat());
    }
    if !alpn.is_empty() {
        let list: Vec<u8> = alpn.iter().flat_map(|it| sized(1, it.as_bytes())).collect();
        extensions.extend([&[0, 16][..], &sized(2, &sized(2, &list))].concat());
    }
    let body = [
        &[3, 3][..],
        &[7; 32],
        &sized(1, &[]),
        &sized(2, &[0x13, 1]),
        &sized(1, &[0]),
        &sized(2, &extensions),
    ];
    let message = [&[1][..], &sized(3, &body.concat())].concat();
    [&[22, 3, 1][..], &sized(2, &message)].concat()
}

fn pattern(text: &str) -> NamePattern {
    match text.strip_prefix("*.") {
        Some(name) => NamePattern::new(name, true),
        None => NamePattern::new(text, false),
    }
}

fn some<T: Clone + std::fmt::Debug + 'static>(all: &[T]) -> impl Strategy<Value = Vec<T>> + use<T> {
    let all = all.to_vec();
    let several = subsequence(all.clone(), 1..=2);
    prop_oneof![3 => Just(Vec::new()), 1 => several]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let names = || some(&PATTERNS).prop_map(|it| it.iter().map(|it| pattern(it)).collect());
    let protocols = [
        Protocol::Tls,
        Protocol::Http,
        Protocol::Ssh,
        Protocol::Socks5,
    ];
    let bytes = |it: &[u8]| Box::<[u8]>::from(it);
    let rule = (
        names(),
        some(&ALPN).prop_map(move |it| it.iter().map(|it| bytes(it.as_bytes())).collect()),
        some(&protocols),
        some(&PREFIXES).prop_map(move |it| it.iter().map(|it| bytes(it)).collect()),
        names(),
        some(&NETWORKS).prop_map(|it| it.iter().map(|it| it.parse().unwrap()).collect()),
    );
    let rule = rule.prop_map(|(sni, alpn, starts, starts_with, host, from)| Rule {
        sni,
        alpn,
        starts,
        starts_with,
        host,
        from,
    });
    prop::collection::vec(rule, 0..6)
}

fn sent() -> impl Strategy<Value = Sent> {
    let name = || prop::option::of(prop::sample::select(&NAMES[..]));
    let raw = prop::sample::select(&PREFIXES[..]);
    let rest = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        4 => (name(), subsequence(ALPN.to_vec(), 0..=2)).prop_map(|(name, alpn)| Sent::Tls(name, alpn)),
        3 => name().prop_map(Sent::Http),
        3 => (raw, rest).prop_map(|(raw, rest)| Sent::Raw([raw, &rest].concat())),
        1 => Just(Sent::Raw(Vec::new())),
    ]
}

/// What the documentation says: of the rules that fit, the one with the best name, then with the
/// smallest network, then the first.
fn model(rules: &[Rule], from: IpAddr, sent: &Sent, bytes: &[u8]) -> Option<usize> {
    let fits_name = |all: &[NamePattern], name: &str| {
        let fitting = all.iter().map(NamePattern::to_string).filter_map(|it| {
            if it == name {
                return Some(1_000);
            }
            let end = it.strip_prefix('*')?;
            (name.len() > end.len() && name.ends_with(end)).then_some(end.len())
        });
        fitting.max()
    };
    let mut fitting = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let (name, alpn, host) = match sent {
            Sent::Tls(name, alpn) => (*name, &alpn[..], None),
            Sent::Http(host) => (None, &[][..], *host),
            Sent::Raw(_) => (None, &[][..], None),
        };
        let mut best = 0;
        let mut fits = true;
        for (all, asked) in [(&rule.sni, name), (&rule.host, host)] {
            if !all.is_empty() {
                let rank = asked.and_then(|name| fits_name(all, name));
                fits &= rank.is_some();
                best = best.max(rank.unwrap_or(0));
            }
        }
        let mut wanted = rule.alpn.iter();
        let has = wanted.any(|it| alpn.iter().any(|own| own.as_bytes() == &**it));
        fits &= rule.alpn.is_empty() || has;
        let starts = |it: &Protocol| it.matches(bytes) == Some(true);
        fits &= rule.starts.is_empty() || rule.starts.iter().any(starts);
        let starts = rule.starts_with.iter().any(|it| bytes.starts_with(it));
        fits &= rule.starts_with.is_empty() || starts;
        let networks = rule.from.iter().filter(|it| it.contains(from));
        let network = networks.map(|it| 1 + i32::from(it.bits())).max();
        fits &= rule.from.is_empty() || network.is_some();
        if fits {
            fitting.push((best, network.unwrap_or(0), std::cmp::Reverse(index)));
        }
    }
    fitting.into_iter().max().map(|(_, _, index)| index.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn decision_is_that_of_the_model_and_never_changes(
        rules in rules(),
        from in prop::sample::select(&CLIENTS[..]),
        sent in sent(),
        more in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let from: IpAddr = from.parse().unwrap();
        let bytes = sent.bytes();
        // Raw bytes may happen to be another protocol's, about which the model knows nothing.
        let is_raw = matches!(sent, Sent::Raw(_));
        let is_clear = !is_raw || Known::of(&rules, Some(from), &bytes, false).is_nothing();
        prop_assume!(is_clear);
        let expected = model(&rules, from, &sent, &bytes);
        prop_assert_eq!(decide(&rules, Some(from), &bytes, false), Some(expected));
        for end in 0..=bytes.len() {
            if let Some(early) = decide(&rules, Some(from), &bytes[..end], true) {
                prop_assert_eq!(early, expected, "after {} of {}", end, bytes.len());
            }
        }
        // What is whole decides at once, and what follows it changes nothing.
        if !is_raw {
            let longer = [&bytes[..], &more].concat();
            let decided = decide(&rules, Some(from), &bytes, true);
            if decided.is_some() {
                prop_assert_eq!(decide(&rules, Some(from), &longer, true), decided);
            }
        }
    }

    #[test]
    fn hidden_rules_never_decide(
        rules in rules(),
        at in any::<Index>(),
        condition in 0..6,
        clients in prop::collection::vec((prop::sample::select(&CLIENTS[..]), sent()), 20),
    ) {
        prop_assume!(!rules.is_empty());
        // Two rules are seldom alike, so the later one is a part of an earlier one.
        let (mut rules, first) = (rules.clone(), at.index(rules.len()));
        let mut later = rules[first].clone();
        later.sni.truncate(1);
        later.alpn.truncate(1);
        later.from.truncate(1);
        if later.starts.is_empty() {
            later.starts.clone_from(&rules[0].starts);
        }
        prop_assert!(rules[first].hides(&later));
        // With one condition of another rule, it may decide.
        let (mut changed, other) = (later.clone(), &rules[0]);
        match condition {
            0 => changed.sni.clone_from(&other.sni),
            1 => changed.alpn.clone_from(&other.alpn),
            2 => changed.starts.clone_from(&other.starts),
            3 => changed.starts_with.clone_from(&other.starts_with),
            4 => changed.host.clone_from(&other.host),
            _ => changed.from.clone_from(&other.from),
        }
        let mut hidden = vec![rules.len()];
        let is_hidden = rules.iter().any(|it| it.hides(&changed));
        rules.extend([later, changed]);
        hidden.extend(is_hidden.then_some(rules.len() - 1));
        for (from, sent) in clients {
            let from: IpAddr = from.parse().unwrap();
            let decided = decide(&rules, Some(from), &sent.bytes(), false);
            prop_assert!(hidden.iter().all(|index| decided != Some(Some(*index))));
        }
    }

    #[test]
    fn any_bytes_are_decided_about_in_the_end(rules in rules(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decide(&rules, None, &bytes, false).is_some());
        let most = most_bytes(&rules);
        let long = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { most });
        let long: Vec<u8> = long.collect();
        prop_assert!(decide(&rules, None, &long, true).is_some() || long.len() < most);
    }
}

impl Known<'_> {
    fn is_nothing(&self) -> bool {
        matches!((&self.hello, &self.host), (Some(None), Some(None)))
    }
}

fn sni(name: &str) -> Rule {
    Rule {
        sni: vec![pattern(name)],
        ..Rule::default()
    }
}

fn from(network: &str) -> Rule {
    Rule {
        from: vec![network.parse().unwrap()],
        ..Rule::default()
    }
}

#[test]
fn no_more_bytes_are_needed_than_decide() {
    let lan = Some("10.0.0.1".parse().unwrap());
    let away = Some("192.0.2.1".parse().unwrap());
    let ssh = Rule {
        starts: vec![Protocol::Ssh],
        ..Rule::default()
    };
    let in_lan = Rule {
        from: vec!["10.0.0.0/8".parse().unwrap()],
        ..sni("nas.lan")
    };
    // Networks alone read nothing.
    let rules = [from("10.0.0.0/8")];
    assert_eq!(most_bytes(&rules), 0);
    assert_eq!(decide(&rules, lan, b"", true), Some(Some(0)));
    assert_eq!(decide(&rules, away, b"", true), Some(None));
    assert_eq!(decide(&rules, None, b"", true), Some(None));
    // A rule that is for others reads nothing of theirs.
    let rules = [in_lan];
    assert_eq!(decide(&rules, away, b"", true), Some(None));
    assert_eq!(decide(&rules, lan, b"", true), None);
    // The first one that fits anyway decides before those that cannot be better.
    let rules = [from("10.0.0.0/8"), ssh.clone()];
    assert_eq!(decide(&rules, lan, b"", true), Some(Some(0)));
    assert_eq!(decide(&rules, away, b"S", true), None);
    assert_eq!(decide(&rules, away, b"SSH-", true), Some(Some(1)));
    assert_eq!(decide(&rules, away, b"GET", true), Some(None));
    // A name would come first.
    let rules = [from("10.0.0.0/8"), sni("nas.lan"), ssh];
    assert_eq!(decide(&rules, lan, b"", true), None);
    assert_eq!(decide(&rules, lan, b"S", true), Some(Some(0)));
    let hello = hello(Some("nas.lan"), &[]);
    for end in 1..hello.len() {
        assert_eq!(decide(&rules, lan, &hello[..end], true), None, "{end}");
    }
    assert_eq!(decide(&rules, lan, &hello, true), Some(Some(1)));
}

#[test]
fn a_wildcard_is_for_all_names_below_and_the_longest_comes_first() {
    let rules = ["*.lan", "*.nas.lan", "nas.lan"].map(sni);
    for (name, expected) in [
        ("nas.lan", Some(2)),
        ("NAS.lan", Some(2)),
        ("nas.lan.", Some(2)),
        ("a.nas.lan", Some(1)),
        ("a.b.nas.lan", Some(1)),
        ("web.lan", Some(0)),
        ("lan", None),
        ("xlan", None),
        ("lan.org", None),
    ] {
        let hello = hello(Some(name), &[]);
        assert_eq!(decide(&rules, None, &hello, true), Some(expected), "{name}");
    }
    assert_eq!(decide(&rules, None, &hello(None, &[]), true), Some(None));
}
