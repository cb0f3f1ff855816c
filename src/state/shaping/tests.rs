//! Simulates flows that share limits, in virtual time.

use std::collections::BTreeMap;

use super::super::identity::Identities;
use super::*;

const SECOND: u64 = 1_000_000_000;
const UP: Direction = Direction::ToServer;
const DOWN: Direction = Direction::ToClient;

fn both(rate: ByteRate) -> Bandwidth {
    Bandwidth {
        to_server: Some(rate),
        to_client: Some(rate),
    }
}

fn wanted(sharers: Option<Sharers>, rate: ByteRate) -> Option<Wanted> {
    Some(Wanted {
        sharers,
        bandwidth: both(rate),
        is_joint: false,
    })
}

fn service(rate: ByteRate) -> Option<Wanted> {
    wanted(Some(Sharers::Service("s".into())), rate)
}

/// Flows that send as much as they may, in messages of at most so many bytes.
struct World {
    shaping: Shaping,
    ids: Identities,
    flows: Vec<(ConnId, Direction)>,
    by_id: BTreeMap<ConnId, usize>,
    most: Vec<u64>,
    passed: Vec<u64>,
    called: Vec<Called>,
    now: u64,
    /// Everything that has passed, and when.
    history: Vec<(u64, u64)>,
}

impl World {
    fn new() -> Self {
        Self {
            shaping: Shaping::default(),
            ids: Identities::default(),
            flows: Vec::new(),
            by_id: BTreeMap::new(),
            most: Vec::new(),
            passed: Vec::new(),
            called: Vec::new(),
            now: 0,
            history: Vec::new(),
        }
    }

    /// Adds a connection that sends in one direction.
    fn add(&mut self, chain: Chain, direction: Direction, most: u64) -> usize {
        let id = self.ids.next();
        let (now, called) = (self.now, &mut self.called);
        assert!(self.shaping.limit(id, chain, now, called));
        self.flows.push((id, direction));
        self.by_id.insert(id, self.flows.len() - 1);
        self.most.push(most);
        self.passed.push(0);
        self.flows.len() - 1
    }

    /// Has a flow pass one message. Returns whether it may go on.
    fn pass(&mut self, flow: usize) -> bool {
        let (id, direction) = self.flows[flow];
        let most = self.shaping.allowance(id, direction, self.now);
        if most == 0 {
            self.shaping.wait(id, direction, Waker::noop(), self.now);
            return false;
        }
        let n = most.min(self.most[flow]);
        self.shaping.spend(id, direction, n as usize, self.now);
        self.passed[flow] += n;
        self.history.push((self.now, n));
        true
    }

    /// Runs flows that always have something to send for some time. The clock is late at random.
    fn run(&mut self, time: u64, late: u64) {
        let mut random = fastrand::Rng::with_seed(1);
        let end = self.now + time;
        for flow in 0..self.flows.len() {
            while self.pass(flow) {}
        }
        while let Some(next) = self.shaping.next() {
            let next = next.max(self.now);
            // As the loop's timers, which are exact to a millisecond, or the next iteration.
            self.now = match next == self.now {
                true => next + 10_000,
                false => next.next_multiple_of(1_000_000) + random.u64(..=late),
            };
            if self.now >= end {
                self.now = end;
                return;
            }
            let mut called = Vec::new();
            self.shaping.resume(self.now, &mut called);
            for it in called {
                let flow = self.by_id[&it.id];
                while self.pass(flow) {}
            }
        }
    }

    /// Asserts that no more has passed than the burst and what has come since, from any moment on.
    fn keeps_to(&self, rate: &ByteRate) {
        // What would be left in a bucket that is checked by its definition.
        let (mut level, mut at) = (i128::from(rate.burst) * i128::from(SECOND), 0);
        for (now, n) in &self.history {
            level += i128::from(rate.bytes) * i128::from(now - at);
            level = level.min(i128::from(rate.burst) * i128::from(SECOND));
            level -= i128::from(*n) * i128::from(SECOND);
            at = *now;
            assert!(
                level >= 0,
                "{n} bytes at {now}: {} too many",
                -level / i128::from(SECOND)
            );
        }
    }

    fn sum(&self) -> u64 {
        self.passed.iter().sum()
    }
}

/// Asserts that `passed` is within 1 % of what `rate` lets pass in `time`, with its burst.
fn is_rate(passed: u64, rate: &ByteRate, time: u64) {
    let expected = (u128::from(rate.bytes) * u128::from(time) / u128::from(SECOND)) as u64;
    let (least, most) = (expected - expected / 100, expected + rate.burst);
    assert!(
        (least..=most).contains(&passed),
        "{passed}, not {expected}: {rate:?}"
    );
}

#[test]
fn rates_are_exact_and_bursts_are_kept_although_timers_are_late() {
    for bytes in [10 << 10, 100 << 10, 1 << 20, 10 << 20, 100 << 20, 1 << 30] {
        let rate = ByteRate::new(bytes);
        // A thirtieth of a second, which the usual burst covers.
        for late in [0, SECOND / 30] {
            let mut world = World::new();
            world.add([wanted(None, rate), None, None, None], DOWN, 1 << 20);
            world.run(60 * SECOND, late);
            world.keeps_to(&rate);
            is_rate(world.sum(), &rate, 60 * SECOND);
        }
    }
}

#[test]
fn those_that_share_a_limit_get_the_same() {
    for n in [2, 3, 50, 500] {
        let rate = ByteRate::new(1 << 20);
        let mut world = World::new();
        for _ in 0..n {
            world.add([None, None, service(rate), None], UP, 1 << 20);
        }
        world.run(60 * SECOND, SECOND / 30);
        world.keeps_to(&rate);
        is_rate(world.sum(), &rate, 60 * SECOND);
        let fair = world.sum() / n;
        for passed in &world.passed {
            // The first gets the burst, and one turn more or less is a matter of the end.
            let most = fair + fair / 8 + rate.burst + 2 * rate.piece();
            let least = (fair - fair / 8).saturating_sub(2 * rate.piece());
            assert!(
                (least..=most).contains(passed),
                "{passed} of {fair}, {n} flows"
            );
        }
    }
}

#[test]
fn small_messages_neither_starve_nor_leave_the_rate_unused() {
    let rate = ByteRate::new(1 << 20);
    let mut world = World::new();
    let bulk = world.add([None, None, service(rate), None], DOWN, 1 << 20);
    let small: Vec<_> = (0..20)
        .map(|_| world.add([None, None, service(rate), None], DOWN, 1000))
        .collect();
    world.run(20 * SECOND, 0);
    world.keeps_to(&rate);
    is_rate(world.sum(), &rate, 20 * SECOND);
    assert!(
        small.iter().all(|flow| world.passed[*flow] > 100_000),
        "{:?}",
        world.passed
    );
    assert!(world.passed[bulk] > 100_000, "{:?}", world.passed);
}

#[test]
fn every_limit_of_a_chain_is_kept_and_none_starves() {
    let (own, client, of_service) = (
        ByteRate::new(20 << 10),
        ByteRate::new(64 << 10),
        ByteRate::new(1 << 20),
    );
    let mut world = World::new();
    let entrypoints = Identities::default();
    let entrypoint: EntrypointId = entrypoints.next();
    // Some connections with all of these limits, and some with that of the service alone.
    let slow: Vec<_> = (0..40)
        .map(|n| {
            let sharers = Sharers::Client(entrypoint, n / 8);
            let chain = [
                wanted(None, own),
                wanted(Some(sharers), client),
                service(of_service),
                None,
            ];
            world.add(chain, UP, 1 << 20)
        })
        .collect();
    let fast: Vec<_> = (0..4)
        .map(|_| world.add([None, None, service(of_service), None], UP, 1 << 20))
        .collect();
    world.run(60 * SECOND, 0);
    world.keeps_to(&of_service);
    is_rate(world.sum(), &of_service, 60 * SECOND);
    for clients in slow.chunks(8) {
        let sum: u64 = clients.iter().map(|it| world.passed[*it]).sum();
        is_rate(sum, &client, 60 * SECOND);
        for it in clients {
            let (passed, most) = (world.passed[*it], own.burst + 60 * own.bytes);
            assert!(
                (60 * client.bytes / 8 / 2..=most).contains(&passed),
                "{passed}"
            );
        }
    }
    // What the others leave is for these, in equal parts.
    let rest: u64 = fast.iter().map(|it| world.passed[*it]).sum();
    assert!(
        fast.iter().all(|it| world.passed[*it] > rest / 5),
        "{:?}",
        world.passed
    );
}

#[test]
fn both_directions_have_a_rate_of_their_own_unless_they_are_joint() {
    let rate = ByteRate::new(100 << 10);
    for is_joint in [false, true] {
        let mut world = World::new();
        let chain = || {
            let mut quota = wanted(Some(Sharers::Account(1)), rate);
            quota.iter_mut().for_each(|it| it.is_joint = is_joint);
            [None, None, None, quota]
        };
        world.add(chain(), UP, 1 << 20);
        world.add(chain(), DOWN, 1 << 20);
        world.run(60 * SECOND, 0);
        let all = ByteRate {
            bytes: if is_joint { rate.bytes } else { 2 * rate.bytes },
            burst: 2 * rate.burst,
        };
        is_rate(world.sum(), &all, 60 * SECOND);
        assert!(
            world.passed.iter().all(|it| *it > world.sum() / 3),
            "{:?}",
            world.passed
        );
    }
}

#[test]
fn other_limits_apply_at_once_to_those_that_wait() {
    let slow = ByteRate::new(10 << 10);
    let fast = ByteRate::new(10 << 20);
    let mut world = World::new();
    let flow = world.add([None, None, service(slow), None], UP, 1 << 20);
    while world.pass(flow) {}
    let (id, _) = world.flows[flow];
    let later = world.shaping.next().expect("it waits");
    let mut called = Vec::new();
    world
        .shaping
        .limit(id, [None, None, service(fast), None], 0, &mut called);
    assert!(world.shaping.next().is_some_and(|at| at < later / 10));
    // Without the limit that it waits for, it is called at once, and with another limit too.
    let other = wanted(Some(Sharers::Service("t".into())), slow);
    world
        .shaping
        .limit(id, [None, None, other, None], 0, &mut called);
    assert_eq!((called.len(), called[0].limit), (1, Limit::Service));
    assert!(!world.shaping.waits(id));
    while world.pass(flow) {}
    let none = world.shaping.limit(id, Chain::default(), 0, &mut called);
    assert_eq!((none, called.len()), (false, 2));
    assert!(world.shaping.limited.is_empty());
}

#[test]
fn those_that_leave_while_they_wait_hold_up_nobody() {
    let rate = ByteRate::new(64 << 10);
    let mut world = World::new();
    for _ in 0..100 {
        world.add([None, None, service(rate), None], UP, 1 << 20);
    }
    world.run(SECOND, 0);
    let stays = world.flows.pop().expect("the last");
    for (id, _) in world.flows.drain(..) {
        world.shaping.leave(id, world.now);
    }
    world.flows = vec![stays; 100];
    let before = world.sum();
    let ids: Vec<_> = world.by_id.keys().copied().collect();
    ids[..99]
        .iter()
        .for_each(|key| assert!(world.by_id.remove(key).is_some()));
    world.run(10 * SECOND, 0);
    is_rate(world.sum() - before, &rate, 10 * SECOND);
}

#[test]
fn reconnecting_gives_no_new_burst() {
    let rate = ByteRate::new(1 << 20);
    let entrypoints = Identities::default();
    let entrypoint: EntrypointId = entrypoints.next();
    let mut world = World::new();
    for _ in 0..50 {
        let sharers = Sharers::Client(entrypoint, 7);
        let flow = world.add([None, wanted(Some(sharers), rate), None, None], UP, 1 << 20);
        while world.pass(flow) {}
        let (id, _) = world.flows[flow];
        world.shaping.leave(id, world.now);
    }
    assert!(world.sum() <= rate.burst, "{}", world.sum());
    assert_eq!(world.shaping.shares.len(), 1);
}

#[test]
fn a_million_clients_keep_the_table_small() {
    let rate = ByteRate::new(1 << 20);
    let entrypoints = Identities::default();
    let entrypoint: EntrypointId = entrypoints.next();
    let mut world = World::new();
    for client in 0..1_000_000 {
        let sharers = Sharers::Client(entrypoint, client);
        let chain = [None, wanted(Some(sharers), rate), None, None];
        let id = world.ids.next();
        assert!(world.shaping.limit(id, chain, world.now, &mut world.called));
        world.shaping.spend(id, UP, 1 << 20, world.now);
        world.shaping.leave(id, world.now);
        world.now += 1000;
        assert!(world.shaping.shares.len() <= Shaping::STRANGERS + 1);
    }
    assert!(world.shaping.shared.capacity() < 4 * Shaping::STRANGERS);
    assert!(world.shaping.due.is_empty() && world.shaping.limited.is_empty());
}
