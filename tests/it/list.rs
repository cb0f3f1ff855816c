//! `coracle list`: which connections it lists, in which order, and how many.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use socket2::{Domain, Socket, Type};

use crate::support::admin::{Admin, PATIENT};
use crate::support::backend::{self, Script, hold};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, binary};
use crate::support::until;

/// Runs `coracle list` and returns its exit code and what it prints on stdout and stderr.
fn run(admin: SocketAddr, options: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(["list", "--admin", &admin.to_string()]);
    let output = command.args(options).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The peers that it lists.
fn peers(admin: SocketAddr, options: &[&str]) -> Vec<String> {
    let (code, table, said) = run(admin, options);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{options:?}");
    let rows = table.lines().skip(1);
    rows.map(|row| row.split_whitespace().nth(1).unwrap().to_owned())
        .collect()
}

/// Connects from another loopback address.
fn connect_from(own: &str, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let own = SocketAddr::new(own.parse().unwrap(), 0);
    socket.bind(&own.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn each_filter_lists_those_that_fit_and_no_others() {
    let server = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.one]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [entrypoints.two]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [entrypoints.full]\nlisten = \"127.0.0.1:0\"\nservice = \"q\"\n\
         [services.s]\nservers = [{{ address = \"{server}\", name = \"big one\" }}]\n\
         [services.q]\nqueue_timeout = \"10m\"\n\
         servers = [{{ address = \"{server}\", max_connections = 1 }}]\n"
    ));
    let first = hold(coracle.address("one"));
    let second = connect_from("127.0.0.7", coracle.address("two"));
    {
        use std::io::Write;
        (&second).write_all(&Script::Echo.request(0)).unwrap();
        (&second).write_all(&[0; 4096]).unwrap();
    }
    let third = hold(coracle.address("full"));
    let fourth = connect_from("127.0.0.7", coracle.address("full"));
    let all = [&first, &second, &third, &fourth];
    let all = all.map(|it| it.local_addr().unwrap().to_string());
    let list = |options: &[&str]| -> Vec<usize> {
        let listed = peers(coracle.admin, options);
        let number = |peer: &String| 1 + all.iter().position(|it| it == peer).unwrap();
        listed.iter().map(number).collect()
    };
    until("the fourth is queued and the echo is back", || {
        let is_queued = list(&["--state", "queued"]) == [4];
        let bytes = scrape(coracle.admin).sum("coracle_bytes_total");
        (is_queued && bytes >= 2.0 * 4096.0).then_some(())
    });
    for (options, expected) in [
        (&[][..], &[1, 2, 3, 4][..]),
        (&["--limit", "3"], &[1, 2, 3]),
        (&["--sort", "bytes", "--limit", "1"], &[2]),
        (&["--entrypoint", "full"], &[3, 4]),
        (&["--service", "s"], &[1, 2]),
        (&["--server", "big one"], &[1, 2]),
        (&["--server", &server.to_string()], &[3]),
        (&["--peer", "127.0.0.7"], &[2, 4]),
        (&["--peer", "127.0.0.0/29"], &[1, 2, 3, 4]),
        (&["--peer", "unix"], &[]),
        (&["--peer", "127.0.0.7", "--service", "q"], &[4]),
        (&["--state", "dialling"], &[]),
        (&["--min-age", "0s"], &[1, 2, 3, 4]),
        (&["--min-age", "1d"], &[]),
        (&["--entrypoint", "another"], &[]),
    ] {
        assert_eq!(list(options), expected, "{options:?}");
    }
    let by_bytes = list(&["--sort", "bytes"]);
    assert_eq!((by_bytes.len(), by_bytes[0]), (4, 2));
}

#[test]
fn more_than_one_answer_has_are_listed_once_each() {
    const MANY: usize = 2500;
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        for n in 0..MANY {
            world.insert(n % 2);
        }
    });
    let json = |options: &[&str]| {
        let (code, text, said) = run(admin.address, &[&["--json"], options].concat());
        assert_eq!((code, said.as_str()), (Some(0), ""), "{options:?}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids = json["connections"].as_array().unwrap().iter();
        ids.map(|it| it["id"].as_str().unwrap().parse().unwrap())
            .collect::<Vec<u64>>()
    };
    let all = json(&[]);
    assert_eq!(all.len(), MANY);
    for (options, length) in [
        (&["--peer", "unix"][..], MANY),
        (&["--peer", "unix", "--limit", "1700"], 1700),
        (&["--limit", "1700"], 1700),
        (&["--limit", "10"], 10),
    ] {
        assert!(json(options) == all[..length], "{options:?}");
    }
    let mut by_bytes = json(&["--peer", "unix", "--sort", "bytes"]);
    by_bytes.sort_unstable();
    assert!(by_bytes == all);
}

#[test]
fn wrong_values_are_named() {
    let nowhere = ([127, 0, 0, 1], 1).into();
    for (options, why) in [
        (
            ["--peer", "10.0.0.1/8"],
            "--peer 10.0.0.1/8: the address has bits set after the first 8; write 10.0.0.0/8",
        ),
        (
            ["--state", "up"],
            "--state up: not a state; write dialling, queued, relaying, limited or half-closed",
        ),
        (
            ["--min-age", "5"],
            "--min-age 5: `5` has no unit; write \"5s\" for seconds",
        ),
        (
            ["--sort", "rate"],
            "--sort rate: not a key to sort by; write age or bytes",
        ),
        (
            ["--limit", "0"],
            "--limit 0: not a number from 1; write one such as 20",
        ),
    ] {
        let expected = format!("coracle: {why}\nRun `coracle list --help` for help.\n");
        assert_eq!(run(nowhere, &options), (Some(1), String::new(), expected));
    }
}
