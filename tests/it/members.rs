//! The sets of the entrypoints are a partition of the whole set, and those of the servers one of the connections that have a server.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use coracle::state::{
    CloseReason, ConnId, Entrypoint, Guard, Members, Peer, Protocol, Server, Service, Shared,
};
use smol::LocalExecutor;

use crate::support::rng::{self, Rng};

/// What a configuration has, which holds it.
struct InForce {
    entrypoints: Vec<Rc<Entrypoint>>,
    service: Rc<Service>,
    servers: Vec<Rc<Server>>,
}

impl InForce {
    fn random(shared: &Shared, rng: &mut Rng) -> Self {
        let registry = &shared.registry;
        let service = registry.service(["s", "t"][rng.usize(..2)]);
        let entrypoint = |_| {
            let name = format!("e{}", rng.u64(..6));
            registry.entrypoint(&name, Protocol::Tcp, Instant::now())
        };
        let entrypoints = (0..3).map(entrypoint).collect();
        let server = |_| registry.server(&service, &format!("10.0.0.{}:80", rng.u64(..4)));
        let servers = (0..2).map(server).collect();
        Self {
            entrypoints,
            service,
            servers,
        }
    }
}

#[test]
fn every_connection_is_in_its_sets_and_in_no_others_under_random_churn() {
    const STEPS: usize = 20_000;
    let mut rng = rng::from_env();
    let shared = Shared::default();
    let executor = LocalExecutor::new();
    let mut in_force = InForce::random(&shared, &mut rng);
    let mut guards: Vec<Guard> = Vec::new();
    for step in 0..STEPS {
        let some = |rng: &mut Rng, n: usize| rng.usize(..n.max(1));
        match rng.u64(..10) {
            0..=3 => {
                let entrypoint = &in_force.entrypoints[some(&mut rng, in_force.entrypoints.len())];
                let service = &in_force.service;
                let now = Instant::now();
                guards.push(Guard::insert(
                    &shared.conns,
                    entrypoint,
                    service,
                    Peer::Unix,
                    now,
                ));
            }
            4..=5 if !guards.is_empty() => {
                let server = &in_force.servers[some(&mut rng, in_force.servers.len())];
                let which = some(&mut rng, guards.len());
                // Once more may do no harm.
                guards[which].conn().relaying(server, Instant::now());
            }
            6..=7 if !guards.is_empty() => {
                let which = some(&mut rng, guards.len());
                let guard = guards.swap_remove(which);
                match rng.u64(..2) {
                    0 => drop(guard),
                    _ => guard.close(CloseReason::Done, Instant::now()),
                }
            }
            8 if !guards.is_empty() => {
                // By its task, as a kill does.
                let which = some(&mut rng, guards.len());
                let guard = guards.swap_remove(which);
                let conn = guard.conn().clone();
                conn.owned_by(executor.spawn(async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                }));
                assert!(
                    shared
                        .conns
                        .kill(conn.id, CloseReason::Drain, Instant::now())
                );
                while executor.try_tick() {}
            }
            9 => in_force = InForce::random(&shared, &mut rng),
            _ => {}
        }
        check(&shared, step);
    }
    guards.clear();
    check(&shared, STEPS);
    assert!(shared.conns.is_empty());
}

fn check(shared: &Shared, step: usize) {
    let mut all = BTreeSet::new();
    let mut of_entrypoints: BTreeMap<_, BTreeSet<ConnId>> = BTreeMap::new();
    let mut of_servers: BTreeMap<_, BTreeSet<ConnId>> = BTreeMap::new();
    shared.conns.for_each(|conn| {
        all.insert(conn.id);
        of_entrypoints
            .entry(conn.entrypoint.id())
            .or_default()
            .insert(conn.id);
        if let Some(server) = conn.server() {
            of_servers.entry(server.id()).or_default().insert(conn.id);
        }
    });
    assert_eq!(all.len(), shared.conns.len(), "step {step}");
    let ids = |members: &Members| members.ids().into_iter().collect::<BTreeSet<_>>();
    for entrypoint in shared.registry.entrypoints() {
        let expected = of_entrypoints.remove(&entrypoint.id()).unwrap_or_default();
        assert_eq!(
            ids(&entrypoint.open),
            expected,
            "step {step}: {}",
            entrypoint.name()
        );
        assert_eq!(entrypoint.open.len(), expected.len());
    }
    for server in shared.registry.servers() {
        let expected = of_servers.remove(&server.id()).unwrap_or_default();
        assert_eq!(
            ids(&server.open),
            expected,
            "step {step}: {}",
            server.name()
        );
    }
    assert!(
        of_entrypoints.is_empty() && of_servers.is_empty(),
        "step {step}: not in the registry"
    );
    // And a copy says the same.
    let snapshot = shared.snapshot();
    let open: u64 = snapshot.entrypoints.iter().map(|it| it.open).sum();
    assert_eq!(open, all.len() as u64, "step {step}");
}
