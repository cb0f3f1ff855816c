//! What clients use: counted exactly, limited by a quota, and kept over a restart.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{self, Script};
use crate::support::clients::connect_from;
use crate::support::http::get;
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, binary};
use crate::support::{namespace, until};

/// A coracle with an entrypoint `e` and this section.
fn config(to: SocketAddr, accounting: &str) -> String {
    format!("[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n{accounting}\n")
}

/// Connects as the client 127.0.0.`host`.
fn connect(to: SocketAddr, host: u8) -> TcpStream {
    connect_from(Ipv4Addr::new(127, 0, 0, host), to).unwrap()
}

/// Has the server send `n` bytes, and reads to the end.
fn fetch(to: SocketAddr, host: u8, n: u64) {
    let mut stream = connect(to, host);
    stream.write_all(&Script::SendAndClose.request(n)).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len() as u64, n);
}

fn accounting(admin: SocketAddr, query: &str) -> Value {
    let (status, _, body) = get(admin, &format!("/api/v1/accounting{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// A client's open connections, its connections and its bytes.
fn used(answer: &Value, client: &str) -> Option<[u64; 4]> {
    let mut all = answer["clients"].as_array().unwrap().iter();
    let it = all.find(|it| it["client"] == client)?;
    let keys = ["open", "connections", "to_server_bytes", "to_client_bytes"];
    Some(keys.map(|key| it[key].as_u64().unwrap()))
}

fn clients(admin: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary())
        .args(["clients", "--admin", &admin.to_string()])
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn each_client_has_what_its_connections_carried() {
    let to = backend::start();
    let coracle = Coracle::start(&config(to, "[accounting]"));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    fetch(address, 2, 1000);
    fetch(address, 2, 500);
    let mut open = connect(address, 3);
    open.write_all(&Script::Echo.request(0)).unwrap();
    open.write_all(b"echo").unwrap();
    open.read_exact(&mut [0; 4]).unwrap();
    let answer = until("the closed connections have left", || {
        let answer = accounting(admin, "");
        (used(&answer, "127.0.0.2") == Some([0, 2, 18, 1500])).then_some(answer)
    });
    // With what the open connection has carried so far.
    assert_eq!(used(&answer, "127.0.0.3"), Some([1, 1, 13, 4]));
    assert_eq!(
        answer["clients"][0]["client"], "127.0.0.2",
        "the largest first"
    );
    assert!(answer["clients"][0]["quiet_seconds"].is_u64());
    assert!(answer["clients"][1]["quiet_seconds"].is_null());
    assert_eq!(answer["quota"], Value::Null);
    let metrics = scrape(admin);
    assert_eq!(
        metrics.sum("coracle_bytes_total"),
        (18 + 1500 + 13 + 4) as f64
    );
    assert_eq!(metrics.sum("coracle_accounting_clients"), 2.0);
    let one = accounting(admin, "?peer=127.0.0.3&sort=open&order=asc");
    assert_eq!(
        (&one["total"], &one["clients"][0]),
        (&1.into(), &answer["clients"][1])
    );
    assert_eq!(
        accounting(admin, "?peer=127.0.0.0/8&limit=1&offset=1")["total"],
        2
    );
    let (status, _, body) = get(admin, "/api/v1/accounting?state=relaying");
    assert!(
        status == 400 && body.contains("peer, sort, order, limit, offset"),
        "{body}"
    );

    let (is_good, table) = clients(admin, &[]);
    assert!(is_good, "{table}");
    let lines: Vec<Vec<_>> = table
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1][..7],
        ["127.0.0.2", "0", "2", "18", "B", "1.5", "KiB"],
        "{table}"
    );
    assert_eq!(
        lines[2][..7],
        ["127.0.0.3", "1", "1", "13", "B", "4", "B"],
        "{table}"
    );
    let (_, json) = clients(admin, &["--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(used(&json, "127.0.0.2"), Some([0, 2, 18, 1500]));

    let status = Command::new(binary())
        .args(["status", "--admin", &admin.to_string()])
        .output()
        .unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    let last: Vec<_> = status.lines().rev().take(2).collect();
    assert_eq!(
        last[1], "CLIENTS  AT MOST  FORGOTTEN  OVER QUOTA",
        "{status}"
    );
    assert_eq!(last[0], "2        4096     0          0");

    // A reload without the section forgets all of it.
    let rest = format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n");
    assert!(coracle.reload(&config(to, &rest)));
    let off = accounting(admin, "");
    assert_eq!((&off["counts"], &off["total"]), (&false.into(), &0.into()));
    let (is_good, told) = clients(admin, &[]);
    assert!(
        !is_good && told.contains("add a table [accounting]"),
        "{told}"
    );
    // And one with it counts the open connection from its beginning, by networks.
    let rest = format!("[accounting]\nipv4_prefix = 8\n{rest}");
    assert!(coracle.reload(&config(to, &rest)));
    open.write_all(b"!").unwrap();
    open.read_exact(&mut [0]).unwrap();
    let answer = accounting(admin, "");
    assert_eq!(used(&answer, "127.0.0.0/8"), Some([1, 1, 14, 5]));
}

#[test]
fn quota_ends_and_refuses_what_runs_over() {
    let to = backend::start();
    let section = "[accounting]\nquota = \"1KiB/month\"\nat_quota = \"refuse\"";
    let coracle = Coracle::start(&config(to, section));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    let mut other = connect(address, 3);
    other.write_all(&Script::Echo.request(0)).unwrap();
    let mut open = connect(address, 2);
    open.write_all(&Script::Hold.request(0)).unwrap();
    open.read_exact(&mut [0]).unwrap();
    fetch(address, 2, 1100);
    // The next check resets the connection that is open.
    let cut = open.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(cut, Err(ErrorKind::ConnectionReset));
    let line = coracle.logged("has used up its quota");
    assert!(line.contains("127.0.0.2"), "{line}");
    let mut refused = connect(address, 2);
    let cut = refused.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(cut, Err(ErrorKind::ConnectionReset));
    other.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    let metrics = scrape(admin);
    let sum = |name, reason: &str| metrics.sum_where(name, &format!("reason=\"{reason}\""));
    assert_eq!(sum("coracle_connections_closed_total", "quota"), 1.0);
    assert_eq!(sum("coracle_connections_refused_total", "quota"), 1.0);
    assert_eq!(metrics.sum("coracle_accounting_clients_over_quota"), 1.0);
    let answer = accounting(admin, "?peer=127.0.0.2");
    assert_eq!(
        answer["quota"],
        serde_json::json!({ "bytes": 1024, "period": "month" })
    );
    assert_eq!(answer["clients"][0]["over_quota"], true);

    // A larger one that is only logged lets the client in again.
    let rest = format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n");
    let section = format!("[accounting]\nquota = \"2KiB/month\"\n{rest}");
    assert!(coracle.reload(&config(to, &section)));
    fetch(address, 2, 1000);
    until("it is logged again", || {
        let lines = coracle.log();
        let told = lines
            .iter()
            .filter(|it| it.contains("has used up its quota"));
        (told.count() == 2).then_some(())
    });
    fetch(address, 2, 10);
}

#[test]
fn client_over_its_quota_is_slowed_and_others_are_not() {
    const RATE: u64 = 64 << 10;
    let to = backend::start();
    let section =
        "[accounting]\nquota = \"1KiB/week\"\nat_quota = \"slow\"\nquota_rate = \"64KiB/s\"";
    let coracle = Coracle::start(&config(to, section));
    let (address, admin) = (coracle.address("e"), coracle.admin);
    fetch(address, 2, 1100);
    coracle.logged("has used up its quota");
    let duration = || scrape(admin).sum("coracle_connection_duration_seconds_sum");
    let before = duration();
    let fetching = thread::spawn(move || fetch(address, 2, 4 * RATE));
    // Several at once share the rate, and each gets through.
    let more = thread::spawn(move || fetch(address, 2, RATE));
    fetching.join().unwrap();
    more.join().unwrap();
    let took = until("both have left", || {
        let metrics = scrape(admin);
        (metrics.sum("coracle_open_connections") == 0.0).then(duration)
    });
    // Each connection's first part can be a second's, and each part 64 KiB too large.
    assert!(took - before >= 1.0, "{took} s after {before} s");
    // Another client gets far more than that at once, spliced, and a larger quota frees the first.
    fetch(address, 3, 1000);
    let rest = format!("[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n");
    let section = format!("[accounting]\nquota = \"900GiB/week\"\n{rest}");
    let mut slow = connect(address, 2);
    slow.write_all(&Script::SendAndClose.request(200 * RATE))
        .unwrap();
    slow.read_exact(&mut [0; 1000]).unwrap();
    assert!(coracle.reload(&config(to, &section)));
    let mut received = Vec::new();
    slow.read_to_end(&mut received).unwrap();
    assert_eq!(received.len() as u64, 200 * RATE - 1000);
}

fn with_file(to: SocketAddr, file: &Path) -> String {
    let file = file.display();
    let section = format!("[accounting]\nfile = \"{file}\"\nsave_interval = \"100ms\"");
    config(to, &section)
}

#[test]
fn file_keeps_what_was_used_over_a_restart_and_a_kill() {
    let to = backend::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("accounting");
    let config = with_file(to, &file);
    let mut coracle = Coracle::start(&config);
    fetch(coracle.address("e"), 2, 1000);
    coracle.signal(Signal::TERM);
    assert!(coracle.wait().success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("\nclient 127.0.0.2 ") && text.ends_with("\nend 1\n"),
        "{text}"
    );

    // Killed while it writes again and again: what is there is always whole.
    let mut connections = 1;
    for round in 0..6 {
        let mut coracle = Coracle::start(&config);
        let known = until("the file is read", || {
            used(&accounting(coracle.admin, ""), "127.0.0.2").map(|it| it[1])
        });
        assert!(known <= connections, "{known} after {connections}");
        connections = known;
        let is_saved = || {
            let text = std::fs::read_to_string(&file).unwrap();
            text.lines().find_map(|it| {
                let words: Vec<_> = it.split(' ').collect();
                (words[..2] == ["client", "127.0.0.2"]).then(|| words[4].parse::<u64>().unwrap())
            })
        };
        until("it has saved something more", || {
            fetch(coracle.address("e"), 2, 10);
            connections += 1;
            (is_saved() > Some(known + round)).then_some(())
        });
        coracle.signal(Signal::KILL);
        coracle.wait();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.ends_with("\nend 1\n"), "{text}");
    }
}

#[test]
fn damaged_file_is_set_aside() {
    let to = backend::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("accounting");
    let text =
        "coracle accounting 1\nsaved 1\nperiod none 0\nothers 0 0 0 0\nclient nonsense\nend 1\n";
    std::fs::write(&file, text).unwrap();
    let coracle = Coracle::start(&with_file(to, &file));
    let line = coracle.logged("the file is damaged");
    assert!(
        line.contains(&format!("{}:5: it is no client", file.display())),
        "{line}"
    );
    let aside = directory.path().join("accounting.damaged");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), text);
    fetch(coracle.address("e"), 2, 10);
    until("a new file", || std::fs::read_to_string(&file).ok());
}

#[test]
fn unreadable_file_is_never_replaced() {
    let to = backend::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("accounting");
    // Root may read everything, but no directory.
    std::fs::create_dir(&file).unwrap();
    let mut coracle = Coracle::start(&with_file(to, &file));
    coracle.logged("what clients use is not saved");
    fetch(coracle.address("e"), 2, 10);
    coracle.signal(Signal::TERM);
    assert!(coracle.wait().success());
    assert!(file.is_dir());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn full_disk_leaves_the_old_file() {
    let setup = "mount -t tmpfs -o size=64k tmpfs /mnt";
    if !namespace::enter("accounting::full_disk_leaves_the_old_file", setup) {
        return;
    }
    let to = backend::start();
    let file = Path::new("/mnt/accounting");
    let coracle = Coracle::start(&with_file(to, file));
    fetch(coracle.address("e"), 2, 10);
    let before = until("the file", || std::fs::read_to_string(file).ok());
    let ballast = Path::new("/mnt/ballast");
    let full = std::fs::write(ballast, vec![1; 1 << 20]);
    assert_eq!(
        full.map_err(|error| error.kind()),
        Err(ErrorKind::StorageFull)
    );
    fetch(coracle.address("e"), 3, 10);
    let line = coracle.logged("accounting: cannot write");
    assert!(line.contains("/mnt/accounting"), "{line}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), before);
    // More of it makes no further line, and space makes it go on.
    fetch(coracle.address("e"), 4, 10);
    std::fs::remove_file(ballast).unwrap();
    until("it is written again", || {
        fetch(coracle.address("e"), 5, 10);
        let text = std::fs::read_to_string(file).unwrap();
        text.contains("client 127.0.0.5 ").then_some(())
    });
    let lines = coracle.log();
    let told = lines.iter().filter(|it| it.contains("cannot write"));
    assert_eq!(told.count(), 1, "{lines:#?}");
}
