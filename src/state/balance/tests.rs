use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Servers of a test, whose loads may change.
struct Servers {
    weights: Vec<u32>,
    loads: Vec<usize>,
    seats: Vec<Cell<i64>>,
    random: fastrand::Rng,
}

impl Servers {
    fn new(weights: &[u32]) -> Self {
        Self {
            weights: weights.to_vec(),
            loads: vec![0; weights.len()],
            seats: vec![Cell::new(0); weights.len()],
            random: fastrand::Rng::with_seed(7),
        }
    }

    /// Chooses among the servers of which `is_up` is true, and returns the server's number.
    fn choose(
        &mut self,
        balance: Balance,
        client: Option<IpAddr>,
        is_up: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let candidate = |n: usize| Candidate {
            weight: self.weights[n],
            load: self.loads[n],
            seat: &self.seats[n],
            key: key(&format!("10.0.0.{n}:80")),
        };
        let up = (0..self.weights.len()).filter(|n| is_up(*n));
        let candidates = up.map(|n| (n, candidate(n)));
        let random = &mut self.random;
        balance.choose(candidates, client, &mut || random.u64(..))
    }
}

fn client(n: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from(n).into())
}

const ALL: [Balance; 4] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::Random,
    Balance::Source,
];

#[test]
fn round_robin_spreads_the_heavy_ones_turns() {
    let mut servers = Servers::new(&[5, 1, 1]);
    let turns = (0..14).filter_map(|_| servers.choose(Balance::RoundRobin, None, |_| true));
    let turns: String = turns.map(|n| ["a", "b", "c"][n]).collect();
    assert_eq!(turns, "aabacaaaabacaa");
}

#[test]
fn clients_without_an_address_take_turns() {
    let mut servers = Servers::new(&[1, 1]);
    let turns = [0; 4].map(|_| servers.choose(Balance::Source, None, |_| true));
    assert_eq!(turns, [Some(0), Some(1), Some(0), Some(1)]);
}

#[test]
fn source_shares_follow_the_weights() {
    let mut servers = Servers::new(&[1, 2, 5]);
    let mut shares = [0; 3];
    for n in 0..8_000 {
        let chosen = servers.choose(Balance::Source, client(n), |_| true);
        shares[chosen.expect("a server")] += 1;
    }
    for (share, expected) in shares.into_iter().zip([1_000, 2_000, 5_000]) {
        assert!(
            (expected * 9 / 10..=expected * 11 / 10).contains(&share),
            "{shares:?}"
        );
    }
}

#[test]
fn random_of_two_levels_the_loads() {
    let mut servers = Servers::new(&[1; 10]);
    for _ in 0..10_000 {
        let chosen = servers.choose(Balance::Random, None, |_| true);
        servers.loads[chosen.expect("a server")] += 1;
    }
    // One random choice would differ by more than a hundred.
    let (least, most) = (servers.loads.iter().min(), servers.loads.iter().max());
    assert!(
        most.zip(least)
            .is_some_and(|(most, least)| most - least < 15)
    );
}

/// A thousand servers go up and down at random, connections come and go. Every choice is an up
/// server, least connections keeps the loads level, and nobody starves.
#[test]
fn simulation_of_a_thousand_servers() {
    for balance in ALL {
        let mut random = fastrand::Rng::with_seed(42);
        let weights: Vec<u32> = (0..1_000).map(|_| random.u32(1..=4)).collect();
        let mut servers = Servers::new(&weights);
        let mut up = vec![true; 1_000];
        let mut open: Vec<usize> = Vec::new();
        let mut served = vec![0; 1_000];
        let mut steps_up = vec![0; 1_000];
        for step in 0..40_000 {
            if step % 20 == 0 {
                let n = random.usize(..1_000);
                up[n] = !up[n];
                // At least half of the servers stay up.
                up[(n + 500) % 1_000] = true;
            }
            for (steps, is_up) in steps_up.iter_mut().zip(&up) {
                *steps += u32::from(*is_up);
            }
            let chosen = servers.choose(balance, client(random.u32(..)), |n| up[n]);
            let chosen = chosen.expect("a server is up");
            assert!(up[chosen], "{balance:?} chose a server that is down");
            if balance == Balance::LeastConnections {
                let load = |n: usize| servers.loads[n] as f64 / f64::from(weights[n]);
                let least = (0..1_000).filter(|n| up[*n]).map(load);
                let least = least.fold(f64::INFINITY, f64::min);
                assert!(load(chosen) <= least, "not the least loaded");
            }
            servers.loads[chosen] += 1;
            served[chosen] += 1;
            open.push(chosen);
            if open.len() > 2_000 {
                let ended = open.swap_remove(random.usize(..open.len()));
                servers.loads[ended] -= 1;
            }
        }
        // Who is up half of the time expects eight connections or more.
        let mut up_for_long = served.iter().zip(steps_up);
        let starves = |(served, steps): (&i32, u32)| *served == 0 && steps > 20_000;
        assert!(!up_for_long.any(starves), "{balance:?} starves a server");
    }
}

proptest! {
    #[test]
    fn round_robin_is_exact_over_a_whole_cycle(weights in vec(1u32..20, 1..12), cycles in 1u32..4) {
        let mut servers = Servers::new(&weights);
        let mut served = vec![0; weights.len()];
        let total: u32 = weights.iter().sum();
        for _ in 0..total * cycles {
            let chosen = servers.choose(Balance::RoundRobin, None, |_| true);
            served[chosen.expect("a server")] += 1;
        }
        let expected: Vec<u32> = weights.iter().map(|weight| weight * cycles).collect();
        prop_assert_eq!(served, expected);
    }

    #[test]
    fn round_robin_is_never_far_from_the_share(weights in vec(1u32..20, 2..12), steps in 1u32..200) {
        let mut servers = Servers::new(&weights);
        let mut served = vec![0u32; weights.len()];
        let total: u32 = weights.iter().sum();
        for step in 1..=steps {
            let chosen = servers.choose(Balance::RoundRobin, None, |_| true);
            served[chosen.expect("a server")] += 1;
            for (served, weight) in served.iter().zip(&weights) {
                let due = f64::from(*weight) * f64::from(step) / f64::from(total);
                // A bound of the smooth algorithm: it is off by less than the number of servers.
                prop_assert!((f64::from(*served) - due).abs() < weights.len() as f64);
            }
        }
    }

    #[test]
    fn source_moves_only_the_clients_of_the_server_that_goes(
        weights in vec(1u32..8, 2..20),
        gone in any::<prop::sample::Index>(),
        clients in vec(any::<u32>(), 1..50),
    ) {
        let gone = gone.index(weights.len());
        let mut servers = Servers::new(&weights);
        for n in clients {
            let before = servers.choose(Balance::Source, client(n), |_| true);
            let after = servers.choose(Balance::Source, client(n), |it| it != gone);
            prop_assert!(after != Some(gone));
            prop_assert!(before == Some(gone) || before == after);
        }
    }

    #[test]
    fn same_client_gets_the_same_server(weights in vec(1u32..8, 1..20), n in any::<u32>()) {
        let mut servers = Servers::new(&weights);
        let first = servers.choose(Balance::Source, client(n), |_| true);
        servers.loads[first.unwrap_or(0)] += 9;
        prop_assert_eq!(servers.choose(Balance::Source, client(n), |_| true), first);
    }

    #[test]
    fn choice_is_always_one_of_the_candidates(weights in vec(1u32..300, 0..20), n in any::<u32>()) {
        for balance in ALL {
            let mut servers = Servers::new(&weights);
            let chosen = servers.choose(balance, client(n), |_| true);
            prop_assert_eq!(chosen.is_none(), weights.is_empty());
            prop_assert!(chosen.is_none_or(|it| it < weights.len()));
        }
    }
}
