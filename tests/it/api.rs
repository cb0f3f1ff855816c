//! The API: what it answers equals what is documented, and what the state is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use coracle::state::{Branch, Direction, Guard, Peer};
use serde_json::Value;

use crate::support::admin::{Admin, PATIENT};
use crate::support::backend::{self, hold};
use crate::support::http::{get, http};
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::rng::{self, Rng};

fn json(address: SocketAddr, path: &str) -> Value {
    let (status, headers, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    assert_eq!(headers.value("content-type"), Some("application/json"));
    assert_eq!(headers.value("cache-control"), Some("no-store"));
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// A coracle with open connections, a server that is down and another one that is checked.
fn busy() -> (Coracle, Vec<std::net::TcpStream>) {
    let server = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = [\"127.0.0.1:0\"]\nservice = \"nas\"\nmax_connections = 9\n\
         [entrypoints.other]\nlisten = \"127.0.0.1:0\"\nservice = \"dead\"\n\
         [services.nas]\nservers = [\"{server}\"]\nhealth = {{ kind = \"tcp\", interval = \"100ms\" }}\n\
         [services.dead]\nservers = [\"127.0.0.1:9\"]\nmax_fails = 1\n\
         [accounting]\nquota = \"1GiB/day\"\n",
    ));
    let address = coracle.address("web");
    let clients = (0..3).map(|_| hold(address)).collect();
    (coracle, clients)
}

/// Checks `value` against a schema. Supports what the description uses, and nothing more.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (key, rule) in schema.as_object().unwrap() {
        let wrong = || Err(format!("{at}: {key} is {rule}, and the value {value}"));
        match key.as_str() {
            "description" | "default" | "examples" => {}
            "$ref" => {
                let path = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(document, document.pointer(path).unwrap(), value, at)?;
            }
            "type" => {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(n) if n.is_f64() => "number",
                    Value::Number(_) => "integer",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let kinds = rule.as_array().cloned().unwrap_or(vec![rule.clone()]);
                let is = |it: &Value| it == kind || it == "number" && kind == "integer";
                if !kinds.iter().any(is) {
                    return wrong();
                }
            }
            "enum" if rule.as_array().unwrap().contains(value) => {}
            "minimum" => {
                if value
                    .as_f64()
                    .is_some_and(|value| value < rule.as_f64().unwrap())
                {
                    return wrong();
                }
            }
            "required" => {
                let mut names = rule.as_array().unwrap().iter();
                if let Some(name) = names.find(|name| value.get(name.as_str().unwrap()).is_none()) {
                    return Err(format!("{at}: no {name}"));
                }
            }
            "additionalProperties" => {
                assert_eq!(*rule, false);
                let Some(object) = value.as_object() else {
                    return wrong();
                };
                let mut names = object.keys();
                if let Some(name) = names.find(|name| schema["properties"].get(name).is_none()) {
                    return Err(format!("{at}: {name} is not documented"));
                }
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(document, schema, value, &format!("{at}.{name}"))?;
                    }
                }
            }
            "items" => {
                let Some(list) = value.as_array() else {
                    return wrong();
                };
                for value in list {
                    check(document, rule, value, &format!("{at}[]"))?;
                }
            }
            "anyOf" => {
                let all = rule.as_array().unwrap().iter();
                let tried: Vec<_> = all.map(|rule| check(document, rule, value, at)).collect();
                if tried.iter().all(Result::is_err) {
                    return Err(format!("{tried:?}"));
                }
            }
            _ => return wrong(),
        }
    }
    Ok(())
}

#[test]
fn each_path_answers_as_its_description_says() {
    let (coracle, _clients) = busy();
    // A connection that only waits for its client, and one that has failed.
    drop(hold_or_fail(coracle.address("other")));
    let document = json(coracle.admin, "/api/v1/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        let pointer = "/get/responses/200/content/application~1json/schema";
        if item.get("post").is_some() {
            // An order, which changes something: tests/it/control.rs and tests/it/token.rs.
            assert_eq!(get(coracle.admin, path).0, 405, "{path}");
            continue;
        }
        let Some(schema) = item.pointer(pointer) else {
            assert_eq!(path, "/api/v1/events", "which tests/it/events.rs reads");
            continue;
        };
        let answer = json(coracle.admin, path);
        check(&document, schema, &answer, path).unwrap();
    }
    // The lists that were checked are not empty.
    for list in [
        "entrypoints",
        "services",
        "servers",
        "connections",
        "clients",
    ] {
        let answer = json(coracle.admin, &format!("/api/v1/{list}"));
        assert!(
            answer[list].as_array().is_some_and(|list| !list.is_empty()),
            "{list}"
        );
    }
    let accounted = json(coracle.admin, "/api/v1/accounting");
    assert!(
        accounted["clients"][0]["of_quota_bytes"].is_u64(),
        "{accounted}"
    );
    let problem = &document["components"]["schemas"]["Problem"];
    let (_, _, body) = get(coracle.admin, "/api/v1/connections?limit=0");
    check(
        &document,
        problem,
        &serde_json::from_str(&body).unwrap(),
        "problem",
    )
    .unwrap();
    // What the checker is for.
    let mut wrong = json(coracle.admin, "/api/v1/status");
    let status = &document["components"]["schemas"]["Status"];
    wrong["more"] = Value::Null;
    assert!(check(&document, status, &wrong, "").is_err());
    wrong.as_object_mut().unwrap().remove("more");
    wrong["servers"][0]["up"] = Value::Null;
    assert!(check(&document, status, &wrong, "").is_err());
}

fn hold_or_fail(address: SocketAddr) -> Option<std::net::TcpStream> {
    std::net::TcpStream::connect(address).ok()
}

#[test]
fn parts_of_the_status_are_its_lists() {
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        world.insert(0);
    });
    let status = json(admin.address, "/api/v1/status");
    for list in ["entrypoints", "services", "servers"] {
        let part = json(admin.address, &format!("/api/v1/{list}"));
        assert_eq!(part[list], status[list]);
        assert_eq!(part.as_object().unwrap().len(), 2, "{part}");
    }
}

/// What the test knows about a connection.
#[derive(Clone, Debug)]
struct Known {
    id: u64,
    opened: Duration,
    entrypoint: &'static str,
    peer: Peer,
    state: &'static str,
    server: Option<usize>,
    bytes: [u64; 2],
}

/// Puts `n` connections into the set. They have no more than a few values of each kind, so that
/// many are equal in what they are sorted by.
fn fill(admin: &Admin, n: usize, mut rng: Rng) -> (Vec<Known>, [String; 2]) {
    admin.with(move |world| {
        let begin = Instant::now();
        let names = [0, 1].map(|n| world.servers[n].name().to_owned());
        let known = (0..n).map(|n| {
            let opened = Duration::from_millis(n as u64 / 3);
            let entrypoint = rng.usize(..2);
            let ip = Ipv4Addr::new(10, 0, rng.u8(..3), rng.u8(..4));
            let peer = match rng.u8(..8) {
                0 => Peer::Unix,
                _ => Peer::from(SocketAddr::from((ip, 1 + n as u16))),
            };
            let guard = Guard::insert(
                &world.shared.conns,
                &world.entrypoints[entrypoint],
                Some(&Branch::only(&world.service)),
                peer,
                begin + opened,
            );
            let conn = guard.conn();
            let bytes = [(); 2].map(|()| rng.u64(..4));
            let server = (rng.u8(..3) > 0).then(|| rng.usize(..2));
            let mut state = "dialling";
            if let Some(server) = server {
                conn.relaying(world.servers[server].place(conn.id), begin + opened);
                conn.moved(Direction::ToServer, bytes[0] as usize, begin + opened);
                conn.moved(Direction::ToClient, bytes[1] as usize, begin + opened);
                state = "relaying";
            }
            if rng.bool() {
                conn.half_closed(begin + opened);
                state = "half-closed";
            } else if server.is_none() && rng.bool() {
                conn.queued(true, begin + opened);
                state = "queued";
            }
            let known = Known {
                id: conn.id.to_string().parse().unwrap(),
                opened,
                entrypoint: ["ssh", "web"][entrypoint],
                peer,
                state,
                server,
                bytes: server.map_or([0, 0], |_| bytes),
            };
            world.guards.push(guard);
            known
        });
        (known.collect(), names)
    })
}

fn is_in(peer: Peer, network: &str) -> bool {
    match (network, peer) {
        ("unix", Peer::Unix) => true,
        (_, Peer::Unix) | ("unix", _) => false,
        ("10.0.1.2", peer) => peer.to_string().starts_with("10.0.1.2:"),
        ("10.0.2.0/24", peer) => peer.to_string().starts_with("10.0.2."),
        (all, _) => all == "0.0.0.0/0",
    }
}

#[test]
fn connections_are_filtered_sorted_and_paged() {
    let admin = Admin::start(PATIENT);
    let mut rng = rng::from_env();
    let (known, servers) = fill(&admin, 1500, rng.fork());
    for _ in 0..60 {
        let mut query = Vec::new();
        let mut expected = known.clone();
        if rng.bool() {
            let entrypoint = *rng.choice(&["ssh", "web", "none"]).unwrap();
            query.push(format!("entrypoint={entrypoint}"));
            expected.retain(|it| it.entrypoint == entrypoint);
        }
        if rng.u8(..4) == 0 {
            let service = *rng.choice(&["nas", "none"]).unwrap();
            query.push(format!("service={service}"));
            expected.retain(|_| service == "nas");
        }
        if rng.u8(..3) == 0 {
            let server = rng.usize(..2);
            query.push(format!("server={}", servers[server]));
            expected.retain(|it| it.server == Some(server));
        }
        if rng.u8(..3) == 0 {
            let network = *rng
                .choice(&["unix", "10.0.1.2", "10.0.2.0/24", "0.0.0.0/0"])
                .unwrap();
            query.push(format!("peer={network}"));
            expected.retain(|it| is_in(it.peer, network));
        }
        if rng.u8(..3) == 0 {
            let state = *rng
                .choice(&["dialling", "queued", "relaying", "half-closed"])
                .unwrap();
            query.push(format!("state={state}"));
            expected.retain(|it| it.state == state);
        }
        if rng.u8(..5) == 0 {
            let age = *rng.choice(&["0", "1e6"]).unwrap();
            query.push(format!("min_age_seconds={age}"));
            expected.retain(|_| age == "0");
        }
        let sort = *rng
            .choice(&["age", "bytes", "to_server_bytes", "to_client_bytes"])
            .unwrap();
        // The oldest is the first one that was opened; the earlier of two equal ones comes first.
        expected.sort_by_key(|it| {
            let by = match sort {
                "age" => -(it.opened.as_nanos() as i64),
                "bytes" => (it.bytes[0] + it.bytes[1]) as i64,
                "to_server_bytes" => it.bytes[0] as i64,
                _ => it.bytes[1] as i64,
            };
            (-by, it.id)
        });
        query.push(format!("sort={sort}"));
        if rng.bool() {
            query.push("order=asc".to_owned());
            expected.reverse();
        }
        let total = expected.len();
        let (limit, mut offset) = (rng.usize(100..=1000), 0);
        let mut paged = Vec::new();
        loop {
            let page = format!("limit={limit}&offset={offset}&{}", query.join("&"));
            let answer = json(admin.address, &format!("/api/v1/connections?{page}"));
            assert_eq!(answer["total"], total, "{page}");
            let connections = answer["connections"].as_array().unwrap();
            let left = total.saturating_sub(offset);
            assert_eq!(connections.len(), left.min(limit), "{page}");
            paged.extend(connections.iter().cloned());
            offset += limit;
            if offset >= total {
                break;
            }
        }
        for (got, want) in paged.iter().zip(&expected) {
            let peer = want.peer.to_string();
            assert_eq!(got["id"], want.id.to_string(), "{query:?}: {got} {want:?}");
            assert_eq!(got["peer"], peer);
            assert_eq!(got["entrypoint"], want.entrypoint);
            assert_eq!(got["service"], "nas");
            assert_eq!(got["server"].as_str(), want.server.map(|n| &*servers[n]));
            assert_eq!(got["state"], want.state);
            assert_eq!(got["to_server_bytes"], want.bytes[0]);
            assert_eq!(got["to_client_bytes"], want.bytes[1]);
        }
    }
    let usual = json(admin.address, "/api/v1/connections");
    assert_eq!(usual["connections"].as_array().unwrap().len(), 100);
    assert_eq!(
        (&usual["total"], &usual["offset"]),
        (&1500.into(), &0.into())
    );
    clients_are_the_sums_of_their_connections(&admin, &known);
    admin.with(|world| world.guards.clear());
}

fn clients_are_the_sums_of_their_connections(admin: &Admin, known: &[Known]) {
    let mut sums: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for it in known.iter().filter(|it| it.entrypoint == "web") {
        let peer = it.peer.to_string();
        let address = peer.split(':').next().unwrap().to_owned();
        let sum = sums.entry(address).or_default();
        let more = [1, it.bytes[0], it.bytes[1]];
        sum.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
    }
    let (mut last, mut seen) = (u64::MAX, BTreeSet::new());
    for offset in 0..sums.len() {
        let path = format!("/api/v1/clients?entrypoint=web&limit=1&offset={offset}");
        let answer = json(admin.address, &path);
        assert_eq!(answer["total"], sums.len());
        let client = &answer["clients"][0];
        let number = |key: &str| client[key].as_u64().unwrap();
        let own = ["open", "to_server_bytes", "to_client_bytes"].map(number);
        assert_eq!(sums[client["address"].as_str().unwrap()], own);
        assert!(
            seen.insert(client["address"].to_string()),
            "{client} is there twice"
        );
        assert!(own[0] <= last, "{path}: {client}");
        last = own[0];
        assert!(client["oldest_seconds"].is_f64(), "{client}");
    }
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let admin = Admin::start(PATIENT);
    let wrong = |path: &str| {
        let (status, headers, body) = get(admin.address, path);
        let kind = headers.value("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{path}: {body}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], status);
        let detail = problem["detail"].as_str().unwrap().to_owned();
        (status, problem["parameter"].clone(), detail)
    };
    let (status, parameter, detail) = wrong("/api/v1/connections?sort=age&limit=1001");
    assert_eq!((status, parameter), (400, "limit".into()));
    assert_eq!(detail, "limit: write a number from 1 to 1000");
    let (status, parameter, detail) = wrong("/api/v1/connections?state=open");
    assert_eq!((status, parameter), (400, "state".into()));
    assert_eq!(
        detail,
        "state: write one of prologue, dialling, queued, relaying, limited, half-closed"
    );
    let (status, parameter, _) = wrong("/api/v1/connections?%22%0a=1");
    assert_eq!((status, parameter), (400, "\"\n".into()));
    let (status, parameter, _) = wrong("/api/v1/servers?limit=1");
    assert_eq!((status, parameter), (400, "limit".into()));
    for path in [
        "/api/v1/",
        "/api/v1/nothing",
        "/api/v2/servers",
        "/api/v1/servers/",
    ] {
        assert_eq!(wrong(path).0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!("{method} /api/v1/servers HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(http(admin.address, request).0, 400);
        let request = format!("{method} /api/v1/servers HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (status, headers, _) = http(admin.address, request);
        assert_eq!(
            (status, headers.value("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    let head = "HEAD /api/v1/servers HTTP/1.0\r\n\r\n";
    let mut client = crate::support::http::Client::connect(admin.address);
    client.send(head);
    assert_eq!(client.answer_to_head().status, 200);
    client.expect_end();
}

#[test]
fn requests_are_counted_by_kind_and_status() {
    let admin = Admin::start(PATIENT);
    for path in [
        "/api/v1/servers",
        "/api/v1/status",
        "/api/v1/none",
        "/healthz",
        "/none",
    ] {
        get(admin.address, path);
    }
    http(
        admin.address,
        "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    http(admin.address, "nonsense\r\n\r\n");
    for scrapes in [0.0, 1.0] {
        let metrics = scrape(admin.address);
        let count = |endpoint: &str, code: u16| {
            let labels = [
                format!("endpoint=\"{endpoint}\""),
                format!("code=\"{code}\""),
            ];
            metrics.sum_of(
                "coracle_admin_requests_total",
                &labels.each_ref().map(|it| &**it),
            )
        };
        assert_eq!((count("api", 200), count("api", 404)), (2.0, 1.0));
        assert_eq!((count("health", 200), count("order", 403)), (1.0, 1.0));
        assert_eq!((count("other", 404), count("other", 400)), (1.0, 1.0));
        assert_eq!(count("metrics", 200), scrapes);
    }
}

#[test]
fn pages_of_other_origins_are_refused() {
    let admin = Admin::start(PATIENT);
    let status = |host: &str, origin: &str| {
        let path = "/api/v1/servers";
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
        http(admin.address, request).0
    };
    assert_eq!(status("localhost:2672", "http://localhost:2672"), 200);
    assert_eq!(status("localhost:2672", "https://LOCALHOST:2672"), 200);
    assert_eq!(status("127.0.0.1:2672", "http://listed.example"), 200);
    for origin in [
        "null",
        "http://evil.example",
        "http://localhost:8080",
        "http://localhost",
        "",
    ] {
        assert_eq!(status("localhost:2672", origin), 403, "{origin}");
    }
}

/// Runs schemathesis, which makes requests from the description and checks the answers.
#[test]
fn schemathesis_finds_no_difference() {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/schemathesis/bin/st");
    let tool = std::env::var_os("CORACLE_SCHEMATHESIS").map_or(tool, Into::into);
    if !tool.exists() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "schemathesis is not installed");
        println!("skipped: schemathesis is not installed; `.ci/run` does that");
        return;
    }
    let (coracle, _clients) = busy();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(tool);
    let url = format!("http://{}/api/v1/openapi.json", coracle.admin);
    let seed = rng::from_env().u32(..).to_string();
    command.args([
        "run",
        &url,
        "--seed",
        &seed,
        "--max-examples",
        "40",
        "--no-color",
    ]);
    command.args([
        "--checks",
        "all",
        "--mode",
        "all",
        "--exclude-path",
        "/api/v1/events",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    // Requests that are not HTTP get text, whatever their path.
    let output = command
        .current_dir(dir.path())
        .env("NO_PROXY", "*")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(report.contains("Test cases:"), "{report}");
}
