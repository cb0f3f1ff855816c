//! The last hour in samples: exact sums, gaps that shift nothing, and what a reload changes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coracle::state::{Branch, Direction, Guard, Peer, Protocol};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::support::admin::{Admin, PATIENT, World};
use crate::support::backend::{self, hold};
use crate::support::http::get;
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::until;

fn history(admin: SocketAddr) -> Value {
    let (status, _, body) = get(admin, "/api/v1/history");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The samples of one object.
fn of<'a>(history: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let mut all = history[list].as_array().unwrap().iter();
    all.find(|it| it["name"] == name)
}

fn sum(samples: &Value, key: &str) -> u64 {
    let samples = samples[key].as_array().unwrap();
    samples.iter().filter_map(Value::as_u64).sum()
}

/// Takes the sample that is due `seconds` after the machine was booted.
fn sample(world: &mut World, seconds: u64) {
    world.shared.sample(Duration::from_secs(seconds));
}

/// Adds a connection that is connected to a server and has carried these bytes.
fn connect(world: &mut World, entrypoint: usize, server: usize, bytes: [usize; 2]) {
    let now = Instant::now();
    let guard = Guard::insert(
        &world.shared.conns,
        &world.entrypoints[entrypoint],
        Some(&Branch::only(&world.service)),
        Peer::Unix,
        now,
    );
    let conn = guard.conn();
    conn.relaying(world.servers[server].place(conn.id), now);
    conn.moved(Direction::ToServer, bytes[0], now);
    conn.moved(Direction::ToClient, bytes[1], now);
    world.guards.push(guard);
}

/// Checks the numbers of one object: `open`, `opened`, and the bytes to the server and the client.
#[track_caller]
fn assert_is(history: &Value, list: &str, name: &str, numbers: [Value; 4]) {
    let own = of(history, list, name).unwrap_or_else(|| panic!("no {name} in {history}"));
    for (key, expected) in ["open", "opened", "to_server_bytes", "to_client_bytes"]
        .iter()
        .zip(numbers)
    {
        assert_eq!(own[key], expected, "{key} of {name} in {list}");
    }
}

#[test]
fn samples_have_what_came_in_their_intervals() {
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        // What came before the first look belongs to no interval.
        connect(world, 1, 0, [5, 7]);
        sample(world, 1_003);
        connect(world, 1, 0, [100, 1]);
        connect(world, 1, 1, [0, 30]);
        sample(world, 1_011);
        // Not due.
        sample(world, 1_019);
        let moved = |world: &World, n| {
            let conn = world.guards.last_chunk::<2>().unwrap()[0].conn();
            conn.moved(Direction::ToServer, n, Instant::now());
        };
        moved(world, 11);
        world.guards.remove(0);
        sample(world, 1_020);
        // Nothing for two intervals, and then late: what passed meanwhile is in the next sample.
        moved(world, 9);
        world.guards.clear();
        sample(world, 1_059);
    });
    let told = history(admin.address);
    assert_eq!(told["interval_seconds"], 10);
    assert!(told["end"].is_u64(), "{told}");
    for (list, name) in [("entrypoints", "web"), ("services", "nas")] {
        let numbers = [
            json!([3, 2, null, null, 0]),
            json!([2, 0, null, null, 0]),
            json!([100, 11, null, null, 9]),
            json!([31, 0, null, null, 0]),
        ];
        assert_is(&told, list, name, numbers);
    }
    let idle = || json!([0, 0, null, null, 0]);
    assert_is(&told, "entrypoints", "ssh", [(); 4].map(|()| idle()));
    let first = [
        json!([2, 1, null, null, 0]),
        json!([1, 0, null, null, 0]),
        json!([100, 11, null, null, 9]),
        json!([1, 0, null, null, 0]),
    ];
    assert_is(&told, "servers", "10.0.0.1:22", first);
    let second = [
        json!([1, 1, null, null, 0]),
        json!([1, 0, null, null, 0]),
        idle(),
        json!([30, 0, null, null, 0]),
    ];
    assert_is(&told, "servers", "nas.local:22", second);
    assert_eq!(
        of(&told, "servers", "nas.local:22").unwrap()["service"],
        "nas"
    );
}

#[test]
fn what_ends_takes_its_samples_along_but_not_those_of_its_service() {
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        sample(world, 0);
        connect(world, 0, 0, [3, 4]);
        sample(world, 10);
        let registry = &world.shared.registry;
        world.entrypoints[1] = registry.entrypoint("more", Protocol::Tcp, Instant::now());
        connect(world, 1, 0, [50, 60]);
        // The server goes with its last connection, between two samples.
        world.guards.clear();
        world.servers.remove(0);
        sample(world, 20);
    });
    let told = history(admin.address);
    assert!(of(&told, "entrypoints", "web").is_none(), "{told}");
    assert!(of(&told, "servers", "10.0.0.1:22").is_none(), "{told}");
    assert_is(
        &told,
        "entrypoints",
        "more",
        [0, 1, 50, 60].map(|n| json!([n])),
    );
    let service = [json!([1, 0]), json!([1, 1]), json!([3, 50]), json!([4, 60])];
    assert_is(&told, "services", "nas", service);
    // The same name begins anew.
    admin.with(|world| {
        let again = world.shared.registry.server(&world.service, "10.0.0.1:22");
        world.servers.push(again);
        sample(world, 30);
    });
    let told = history(admin.address);
    assert_is(
        &told,
        "servers",
        "10.0.0.1:22",
        [(); 4].map(|()| json!([0])),
    );
}

#[test]
fn sums_are_those_of_the_metrics_also_after_a_reload() {
    let server = backend::start();
    let config = |name: &str| {
        format!(
            "[entrypoints.stays]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
             [entrypoints.{name}]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
             [services.s]\nservers = [\"{server}\"]\n"
        )
    };
    let coracle = Coracle::start(&config("goes"));
    let (stays, admin) = (coracle.address("stays"), coracle.admin);
    let held: Vec<_> = (0..5).map(|_| hold(stays)).collect();
    (0..7).for_each(|_| drop(hold(coracle.address("goes"))));
    let has_sums = |opened: [(&str, &str, u64); 3]| {
        until("the sample that has all connections", || {
            let told = history(admin);
            let is = |(list, name, n): &(&str, &str, u64)| {
                of(&told, list, name).is_some_and(|it| sum(it, "opened") == *n)
            };
            opened.iter().all(is).then_some(told)
        })
    };
    let server = server.to_string();
    let told = has_sums([
        ("entrypoints", "stays", 5),
        ("entrypoints", "goes", 7),
        ("servers", &server, 12),
    ]);
    let metrics = scrape(admin);
    let stays_now = of(&told, "entrypoints", "stays").unwrap();
    for (key, direction) in [
        ("to_server_bytes", "to_server"),
        ("to_client_bytes", "to_client"),
    ] {
        let label = format!("direction=\"{direction}\"");
        let labels = ["entrypoint=\"stays\"", &label];
        let counted = metrics.sum_of("coracle_bytes_total", &labels) as u64;
        assert_eq!(sum(stays_now, key), counted, "{key}");
    }
    let last = stays_now["open"].as_array().unwrap().last().cloned();
    assert_eq!(last, Some(5.into()));
    let now = clock_gettime(ClockId::Realtime).tv_sec as u64;
    let end = told["end"].as_u64().unwrap();
    assert!(
        (now - 600..now + 2).contains(&end),
        "{end}, and it is {now}"
    );

    let text = format!(
        "{}[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n",
        config("comes")
    );
    assert!(coracle.reload(&text));
    until("the removed entrypoint is gone", || {
        let told = history(admin);
        let is_there = |name| of(&told, "entrypoints", name).is_some();
        (is_there("comes") && !is_there("goes")).then_some(())
    });
    drop(held);
    let told = has_sums([
        ("entrypoints", "stays", 5),
        ("services", "s", 12),
        ("servers", &server, 12),
    ]);
    assert!(of(&told, "entrypoints", "goes").is_none());
}
