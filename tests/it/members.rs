//! The sets of the entrypoints partition the set of all connections, and those of the servers
//! partition the connections that have a server.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use coracle::state::{
    Branch, CloseReason, ConnId, Entrypoint, Guard, Members, Peer, Place, Protocol, Server, Shared,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use smol::LocalExecutor;

use crate::support::rng;

/// One change of the sets. An [`Index`] picks one of what there is at that time.
#[derive(Clone, Debug)]
enum Step {
    Enter {
        entrypoint: Index,
    },
    /// The connection dials a server: its task takes a place there, which it holds until it
    /// connects, tries another server, or ends.
    Dial {
        conn: Index,
        server: Index,
    },
    /// A second server for the same connection changes nothing.
    Relay {
        conn: Index,
        server: Index,
    },
    Drop {
        conn: Index,
    },
    Close {
        conn: Index,
    },
    /// Drops the connection's task, and with it the guard.
    Kill {
        conn: Index,
    },
    /// Replaces what the configuration names. Connections keep what they have.
    Reload(Names),
}

/// What a configuration names.
#[derive(Clone, Debug)]
struct Names {
    service: &'static str,
    entrypoints: [u8; 3],
    servers: [u8; 2],
}

fn names() -> impl Strategy<Value = Names> {
    let service = prop_oneof![Just("s"), Just("t")];
    let (entrypoints, servers) = (
        prop::array::uniform3(0..6_u8),
        prop::array::uniform2(0..4_u8),
    );
    (service, entrypoints, servers).prop_map(|(service, entrypoints, servers)| Names {
        service,
        entrypoints,
        servers,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let any = any::<Index>;
    prop_oneof![
        4 => any().prop_map(|entrypoint| Step::Enter { entrypoint }),
        2 => (any(), any()).prop_map(|(conn, server)| Step::Dial { conn, server }),
        2 => (any(), any()).prop_map(|(conn, server)| Step::Relay { conn, server }),
        1 => any().prop_map(|conn| Step::Drop { conn }),
        1 => any().prop_map(|conn| Step::Close { conn }),
        1 => any().prop_map(|conn| Step::Kill { conn }),
        1 => names().prop_map(Step::Reload),
    ]
}

/// What a configuration names, held as a running proxy holds it.
struct InForce {
    entrypoints: Vec<Rc<Entrypoint>>,
    branch: Rc<Branch>,
    servers: Vec<Rc<Server>>,
}

impl InForce {
    fn new(shared: &Shared, names: &Names) -> Self {
        let registry = &shared.registry;
        let service = registry.service(names.service);
        let entrypoint = |n| {
            let name = format!("e{n}");
            registry.entrypoint(&name, Protocol::Tcp, Instant::now())
        };
        let server = |n| registry.server(&service, &format!("10.0.0.{n}:80"));
        Self {
            entrypoints: names.entrypoints.map(entrypoint).into(),
            servers: names.servers.map(server).into(),
            branch: Branch::only(&service),
        }
    }
}

proptest! {
    #![proptest_config(rng::cases(200))]

    #[test]
    fn sets_partition_the_open_connections(
        first in names(),
        steps in vec(step(), 0..300),
    ) {
        let shared = Shared::default();
        let mut in_force = InForce::new(&shared, &first);
        let mut guards = Vec::new();
        let mut places = BTreeMap::new();
        for step in steps {
            take(step, &shared, &mut in_force, &mut guards, &mut places);
            check(&shared, &places);
        }
        places.clear();
        guards.clear();
        check(&shared, &places);
        prop_assert!(shared.conns.is_empty());
    }
}

/// The places of the connections that dial. A connection's task drops its place before its guard.
type Places = BTreeMap<ConnId, Place>;

fn take(
    step: Step,
    shared: &Shared,
    in_force: &mut InForce,
    guards: &mut Vec<Guard>,
    places: &mut Places,
) {
    let now = Instant::now();
    let conns = &shared.conns;
    match step {
        Step::Enter { entrypoint } => {
            let entrypoint = entrypoint.get(&in_force.entrypoints);
            let branch = Some(&in_force.branch);
            guards.push(Guard::insert(conns, entrypoint, branch, Peer::Unix, now));
        }
        Step::Reload(names) => *in_force = InForce::new(shared, &names),
        // All others need a connection.
        _ if guards.is_empty() => {}
        Step::Relay { conn, server } => {
            let server = server.get(&in_force.servers);
            let conn = conn.get(guards).conn();
            let place = places.remove(&conn.id);
            conn.relaying(place.unwrap_or_else(|| server.place(conn.id)), now);
        }
        Step::Dial { conn, server } => {
            let (server, id) = (server.get(&in_force.servers), conn.get(guards).conn().id);
            places.remove(&id);
            places.insert(id, server.place(id));
        }
        Step::Drop { conn } => {
            let guard = guards.swap_remove(conn.index(guards.len()));
            places.remove(&guard.conn().id);
        }
        Step::Close { conn } => {
            let guard = guards.swap_remove(conn.index(guards.len()));
            places.remove(&guard.conn().id);
            guard.close(CloseReason::Done, now);
        }
        Step::Kill { conn } => {
            let executor = LocalExecutor::new();
            let guard = guards.swap_remove(conn.index(guards.len()));
            let conn = guard.conn().clone();
            let place = places.remove(&conn.id);
            conn.owned_by(executor.spawn(async move {
                let (_place, _guard) = (place, guard);
                std::future::pending::<()>().await;
            }));
            assert!(conns.kill(conn.id, CloseReason::Drain, now));
            while executor.try_tick() {}
        }
    }
}

/// Compares the sets with what the connections say of themselves.
fn check(shared: &Shared, places: &Places) {
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
    assert_eq!(all.len(), shared.conns.len());
    let ids = |members: &Members| members.ids().into_iter().collect::<BTreeSet<_>>();
    for entrypoint in shared.registry.entrypoints() {
        let expected = of_entrypoints.remove(&entrypoint.id()).unwrap_or_default();
        assert_eq!(ids(&entrypoint.open), expected, "{}", entrypoint.name());
        assert_eq!(entrypoint.open.len(), expected.len());
    }
    for server in shared.registry.servers() {
        let expected = of_servers.remove(&server.id()).unwrap_or_default();
        assert_eq!(ids(&server.open), expected, "{}", server.name());
        let places = places.values().map(Place::server);
        let dialling = places.filter(|it| it.id() == server.id()).count();
        assert_eq!(
            server.load(),
            expected.len() + dialling,
            "{}",
            server.name()
        );
    }
    assert!(
        of_entrypoints.is_empty() && of_servers.is_empty(),
        "not in the registry"
    );
    // A copy agrees.
    let snapshot = shared.snapshot();
    let open: u64 = snapshot.entrypoints.iter().map(|it| it.open).sum();
    assert_eq!(open, all.len() as u64);
}
