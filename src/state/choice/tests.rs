use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::super::Registry;
use super::super::identity::ConnId;
use super::super::server::{AdminState, Share};
use super::super::service::ServiceRules;
use super::*;

/// A service with named servers, and connections with rising numbers.
struct World {
    service: Rc<Service>,
    servers: Vec<Rc<Server>>,
    now: Instant,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let registry = Registry::default();
        let service = registry.service("s");
        let servers = names.iter().map(|name| registry.server(&service, name));
        Self {
            servers: servers.collect(),
            service,
            now: Instant::now(),
        }
    }

    fn rules(&self, change: impl Fn(&mut ServiceRules)) {
        let mut rules = self.service.rules();
        change(&mut rules);
        self.service.set_rules(rules);
    }

    fn share(&self, server: usize, change: impl Fn(&mut Share)) {
        let mut share = self.servers[server].share();
        change(&mut share);
        self.servers[server].set_share(share);
    }

    fn choose(&self, tried: &[usize]) -> Choice {
        let random = &mut || 0;
        self.service
            .choose(&self.servers, |it| it, tried, None, random, self.now)
    }

    /// The names of the servers that connections try, one after the other.
    fn order(&self) -> String {
        let mut tried = Vec::new();
        let mut names = String::new();
        while let Choice::Server(index) = self.choose(&tried) {
            tried.push(index);
            names.push_str(self.servers[index].name());
        }
        names
    }

    fn take_down(&self, server: usize) {
        self.rules(|rules| rules.health.max_fails = 1);
        self.servers[server].failed("refused", self.now);
        assert!(!self.servers[server].is_up());
    }
}

fn conn(number: u64) -> ConnId {
    std::num::NonZeroU64::new(number).expect("not zero").into()
}

#[test]
fn servers_take_turns_and_a_connection_may_try_all() {
    let world = World::new(&["a", "b", "c"]);
    let firsts = [0; 4].map(|_| world.choose(&[]));
    assert_eq!(firsts, [0, 1, 2, 0].map(Choice::Server));
    for _ in 0..5 {
        let mut order: Vec<char> = world.order().chars().collect();
        order.sort_unstable();
        assert_eq!(order, ['a', 'b', 'c']);
    }
}

#[test]
fn backups_come_after_the_others_and_servers_that_are_down_last() {
    let world = World::new(&["a", "b", "c", "d"]);
    for backup in [1, 3] {
        world.share(backup, |share| share.is_backup = true);
    }
    assert_eq!(world.order(), "acbd");
    world.take_down(0);
    world.take_down(1);
    assert_eq!(
        world.order(),
        "cdab",
        "down ones last, backups after the others"
    );
    world.rules(|rules| rules.refuses_when_down = true);
    assert_eq!(world.order(), "cd");
}

#[test]
fn drained_and_weightless_servers_get_nothing() {
    let world = World::new(&["a", "b", "c"]);
    world.share(0, |share| share.weight = 0);
    assert!(
        world.servers[1]
            .order(AdminState::Drain, world.now)
            .is_none()
    );
    assert_eq!(world.order(), "c");
    let down = world.servers[2].order(AdminState::Down, world.now);
    assert!(down.is_some_and(|change| !change.is_up));
    assert_eq!(world.choose(&[]), Choice::None);
    let up = world.servers[2].order(AdminState::Ready, world.now);
    assert!(up.is_some_and(|change| change.is_up));
    assert_eq!(world.order(), "c");
}

#[test]
fn server_at_its_limit_is_full_until_a_place_is_given_up() {
    let world = World::new(&["a", "b"]);
    for server in [0, 1] {
        world.share(server, |share| share.max_connections = Some(1));
    }
    world.share(1, |share| share.is_backup = true);
    let place = world.servers[0].place(conn(1));
    assert_eq!(
        world.choose(&[]),
        Choice::Full,
        "a backup does not relieve a full server"
    );
    assert_eq!(world.choose(&[0]), Choice::Server(1));
    drop(place);
    assert_eq!(world.choose(&[]), Choice::Server(0));
}

#[test]
fn server_that_is_down_and_full_is_not_waited_for() {
    let mut world = World::new(&["a", "b"]);
    world.share(0, |share| share.max_connections = Some(1));
    world.share(1, |share| share.is_backup = true);
    let _place = world.servers[0].place(conn(1));
    assert_eq!(world.choose(&[]), Choice::Full, "it is up");
    world.take_down(0);
    assert_eq!(world.choose(&[]), Choice::Server(1));
    world.now += Duration::from_secs(1);
    assert_eq!(world.choose(&[]), Choice::Server(1), "its trial is due");
}

#[test]
fn trial_is_for_one_connection_at_a_time() {
    let mut world = World::new(&["a", "b"]);
    world.rules(|rules| rules.refuses_when_down = true);
    world.take_down(0);
    assert_eq!(world.order(), "b");
    world.now += Duration::from_secs(1);
    assert_eq!(world.order().len(), 2, "the trial is due");
    let trial = world.servers[0].place(conn(1));
    assert_eq!(world.order(), "b");
    drop(trial);
    assert_eq!(world.order().len(), 2, "it left without a result");
    let trial = world.servers[0].place(conn(2));
    assert!(
        trial
            .connected(world.now)
            .is_some_and(|change| change.is_up)
    );
    assert!(world.servers[0].is_up());
}

#[test]
fn given_up_place_wakes_the_connection_that_waited_longest() {
    let world = World::new(&["a"]);
    world.share(0, |share| share.max_connections = Some(1));
    let place = world.servers[0].place(conn(1));
    let (mut first, mut second) = (world.service.queue(), world.service.queue());
    first.wait(Waker::noop());
    second.wait(Waker::noop());
    assert_eq!(world.service.queued(), 2);
    assert!(first.is_due() && !second.is_due());
    drop(place);
    // The first has no use for it and goes on waiting.
    first.wait(Waker::noop());
    assert!(second.is_due());
    second.is_served();
    assert_eq!(world.service.queued(), 1);
}

#[test]
fn connecting_wakes_nobody() {
    let world = World::new(&["a"]);
    let place = world.servers[0].place(conn(1));
    let (mut first, mut second) = (world.service.queue(), world.service.queue());
    first.wait(Waker::noop());
    second.wait(Waker::noop());
    assert!(place.connected(world.now).is_none());
    first.wait(Waker::noop());
    assert!(!second.is_due(), "a wake-up would have been passed on");
    world.servers[0].leaves(conn(1));
    first.wait(Waker::noop());
    assert!(second.is_due());
}
