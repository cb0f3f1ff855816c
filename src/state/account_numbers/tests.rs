#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use proptest::prelude::*;

use super::super::branch::Branch;
use super::super::client::Prefixes;
use super::super::conns::Guard;
use super::super::direction::Direction;
use super::super::entrypoint::{Entrypoint, Protocol};
use super::super::peer::Peer;
use super::super::quota::{Period, Quota};
use super::super::reason::CloseReason;
use super::super::saved::Saved;
use super::super::service::Service;
use super::*;

const HOSTS: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8];

fn rules(clients: usize) -> AccountRules {
    let prefixes = Prefixes { ipv4: 32, ipv6: 64 };
    AccountRules {
        clients,
        prefixes,
        quota: None,
    }
}

fn peer(host: u8) -> Peer {
    SocketAddr::from(([10, 0, 0, host], 1)).into()
}

struct World {
    shared: Shared,
    entrypoint: Rc<Entrypoint>,
    service: Rc<Service>,
    began: Instant,
}

impl World {
    fn new() -> Self {
        let (shared, began) = (Shared::default(), Instant::now());
        Self {
            entrypoint: shared.registry.entrypoint("e", Protocol::Tcp, began),
            service: shared.registry.service("s"),
            shared,
            began,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.began + Duration::from_secs(seconds)
    }

    fn open(&self, host: u8, seconds: u64) -> Guard {
        let conns = &self.shared.conns;
        Guard::insert(
            conns,
            &self.entrypoint,
            Some(&Branch::only(&self.service)),
            peer(host),
            self.at(seconds),
        )
    }

    fn numbers(&self, seconds: u64) -> AccountNumbers {
        self.shared.account_numbers(self.at(seconds)).unwrap()
    }
}

/// A client as the model has it.
#[derive(Clone, Debug, Default)]
struct Modelled {
    open: u32,
    used: Passed,
    ended: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Open(u8),
    Move(usize, usize),
    Close(usize),
    Account(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::sample::select(HOSTS).prop_map(Step::Open),
        4 => (any::<usize>(), 0..10_000_usize).prop_map(|(at, n)| Step::Move(at, n)),
        5 => any::<usize>().prop_map(Step::Close),
        1 => (1..6_usize).prop_map(Step::Account),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// The table has at most as many clients as it may, forgets the one that is quiet the longest,
    /// and loses nothing from the sum.
    #[test]
    fn equals_a_model_of_clients_and_others(steps in steps(), first in 1..6_usize) {
        let world = World::new();
        let mut most = first;
        world.shared.account_by(Some(rules(most)), world.began);
        let mut model: BTreeMap<u8, Modelled> = BTreeMap::new();
        let mut all = Passed::default();
        let mut open: Vec<(u8, bool, Guard)> = Vec::new();
        let mut forgotten = 0;
        for (seconds, step) in steps.into_iter().enumerate() {
            let seconds = seconds as u64 + 1;
            match step {
                Step::Open(host) => {
                    if !model.contains_key(&host) && model.len() >= most {
                        let quiet = model.iter().filter(|(_, it)| it.open == 0);
                        let quiet = quiet.min_by_key(|(_, it)| it.ended).map(|(host, _)| *host);
                        if let Some(quiet) = quiet {
                            model.remove(&quiet);
                            forgotten += 1;
                        }
                    }
                    let has_row = model.contains_key(&host) || model.len() < most;
                    if has_row {
                        let row = model.entry(host).or_default();
                        row.open += 1;
                        row.used.opened += 1;
                    }
                    all.opened += 1;
                    open.push((host, has_row, world.open(host, seconds)));
                }
                Step::Move(at, n) if !open.is_empty() => {
                    let (host, has_row, guard) = &open[at % open.len()];
                    let now = world.at(seconds);
                    guard.conn().moved(Direction::ToClient, n, now);
                    all.bytes[1] += n as u64;
                    if *has_row {
                        model.get_mut(host).unwrap().used.bytes[1] += n as u64;
                    }
                }
                Step::Close(at) if !open.is_empty() => {
                    let (host, has_row, guard) = open.swap_remove(at % open.len());
                    guard.close(CloseReason::Done, world.at(seconds));
                    if has_row {
                        let row = model.get_mut(&host).unwrap();
                        row.open -= 1;
                        row.ended = seconds;
                    }
                }
                // Others rules while the table is not overfull, so that no row has to go.
                Step::Account(clients) if clients >= model.len() && open.iter().all(|it| it.1) => {
                    most = clients;
                    world.shared.account_by(Some(rules(most)), world.at(seconds));
                }
                _ => {}
            }
            let numbers = world.numbers(seconds);
            let mut rows = numbers.clients.clone();
            rows.sort_by_key(|it| it.client);
            prop_assert!(rows.len() <= most);
            prop_assert_eq!(numbers.forgotten, forgotten);
            let sum = rows.iter().fold(numbers.others, |sum, it| sum.and(it.used));
            prop_assert_eq!(sum, all);
            let rows: Vec<_> = rows.iter().map(|it| (it.client.to_string(), it.open, it.used)).collect();
            let expected = model.iter();
            let expected: Vec<_> = expected.map(|(host, it)| (format!("10.0.0.{host}"), it.open, it.used)).collect();
            prop_assert_eq!(rows, expected);
        }
    }

    /// Whatever is cut from a file or changed in it, reading reports it or reads what it says.
    #[test]
    fn damaged_texts_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cuts in any::<bool>()) {
        let world = World::new();
        world.shared.account_by(Some(rules(9)), world.began);
        for host in HOSTS {
            let guard = world.open(*host, 1);
            guard.conn().moved(Direction::ToServer, 1000, world.at(2));
        }
        let mut text = world.numbers(5).text(1_800_000_000).into_bytes();
        prop_assert!(Saved::parse(std::str::from_utf8(&text).unwrap()).is_ok());
        let at = at.index(text.len());
        match cuts {
            true => text.truncate(at),
            false => text[at] = byte,
        }
        if let Ok(text) = std::str::from_utf8(&text) {
            let parsed = Saved::parse(text);
            prop_assert!(!cuts || parsed.is_err());
        }
    }
}

#[test]
fn saved_clients_are_added_to_those_who_have_come_meanwhile() {
    let world = World::new();
    let mut by = rules(3);
    let (bytes, period, then) = (5_000, Period::Month, OverQuota::Log);
    by.quota = Some(Quota {
        bytes,
        period,
        then,
    });
    world.shared.account_by(Some(by), world.began);
    let wall = 1_790_000_000;
    for host in 1..=3 {
        let guard = world.open(host, host.into());
        guard
            .conn()
            .moved(Direction::ToServer, 1000, world.at(host.into()));
        guard.close(CloseReason::Done, world.at(host.into()));
    }
    assert!(
        world
            .shared
            .check_quotas(wall, Instant::now())
            .over
            .is_empty()
    );
    let text = world.numbers(10).text(wall);
    let saved = Saved::parse(&text).unwrap();

    let next = World::new();
    next.shared.account_by(Some(by), next.began);
    let _open = [next.open(2, 1), next.open(4, 1)];
    _open[0].conn().moved(Direction::ToClient, 3999, next.at(2));
    next.shared.add_accounts(&saved, next.at(2), wall + 60);
    let numbers = next.numbers(3);
    // Of the three that were saved, the one that was quiet the longest has no place.
    let mut rows: Vec<_> = numbers
        .clients
        .iter()
        .map(|it| (it.client.to_string(), it.used.opened, it.of_quota))
        .collect();
    rows.sort();
    let row = |host: &str, opened, of_quota| (format!("10.0.0.{host}"), opened, of_quota);
    assert_eq!(rows, [row("2", 2, 4999), row("3", 1, 1000), row("4", 1, 0)]);
    assert_eq!(numbers.others.opened, 1);
    assert!(
        next.shared
            .check_quotas(wall + 60, Instant::now())
            .over
            .is_empty()
    );
    // The clock of a machine that begins in the past does not begin another period.
    _open[0].conn().moved(Direction::ToClient, 1, next.at(3));
    let checked = next.shared.check_quotas(5, Instant::now());
    assert_eq!(checked.over.len(), 1, "{checked:?}");
    assert!(checked.ends.is_empty(), "it is only logged");
    assert!(
        next.shared
            .check_quotas(wall + 61, Instant::now())
            .over
            .is_empty(),
        "told once"
    );
    // The next month.
    assert!(
        next.shared
            .check_quotas(wall + 40 * 86_400, Instant::now())
            .over
            .is_empty()
    );
    assert!(
        next.numbers(4)
            .clients
            .iter()
            .all(|it| it.of_quota == 0 && !it.is_over)
    );
}

#[test]
fn over_quota_ends_and_refuses_connections_of_that_client_alone() {
    let world = World::new();
    let mut by = rules(9);
    let (bytes, period, then) = (100, Period::Day, OverQuota::Refuse);
    by.quota = Some(Quota {
        bytes,
        period,
        then,
    });
    world.shared.account_by(Some(by), world.began);
    let open = [world.open(1, 1), world.open(1, 1), world.open(2, 1)];
    open[0].conn().moved(Direction::ToServer, 60, world.at(1));
    open[2].conn().moved(Direction::ToServer, 99, world.at(1));
    assert!(
        world
            .shared
            .check_quotas(1000, Instant::now())
            .ends
            .is_empty()
    );
    open[1].conn().moved(Direction::ToClient, 40, world.at(2));
    let mut ends = world.shared.check_quotas(1000, Instant::now()).ends;
    ends.sort_unstable();
    assert_eq!(ends, [open[0].conn().id, open[1].conn().id]);
    let conns = &world.shared.conns;
    assert_eq!(
        [1, 2, 3].map(|host| conns.refuses(peer(host))),
        [true, false, false]
    );
    // The next day.
    assert!(
        world
            .shared
            .check_quotas(90_000, Instant::now())
            .ends
            .is_empty()
    );
    assert!(!conns.refuses(peer(1)));
    // Without accounting there is nothing, and connections that are open then leave as usual.
    world.shared.account_by(None, world.at(3));
    assert!(world.shared.account_numbers(world.at(3)).is_none());
    drop(open);
}

#[test]
fn other_prefixes_join_clients_and_count_open_connections_on() {
    let world = World::new();
    let early = world.open(1, 0);
    early.conn().moved(Direction::ToServer, 7, world.at(1));
    world.shared.account_by(Some(rules(9)), world.at(1));
    let late = world.open(2, 2);
    late.conn().moved(Direction::ToServer, 5, world.at(2));
    drop(world.open(3, 2));
    let mut by = rules(9);
    by.prefixes.ipv4 = 24;
    world.shared.account_by(Some(by), world.at(3));
    let numbers = world.numbers(4);
    let all: Vec<_> = numbers
        .clients
        .iter()
        .map(|it| (it.client.to_string(), it.open, it.used))
        .collect();
    let used = Passed {
        opened: 3,
        bytes: [12, 0],
    };
    assert_eq!(all, [("10.0.0.0/24".to_owned(), 2, used)]);
    drop((early, late));
    // What several clients have used together cannot be told apart again.
    world.shared.account_by(Some(rules(9)), world.at(5));
    let numbers = world.numbers(6);
    assert!(numbers.clients.is_empty());
    assert_eq!(numbers.others, used);
}
