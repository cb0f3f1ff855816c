//! `reuse_port`: two processes listen on one address and share its clients; without it the second
//! cannot start.

use std::net::SocketAddr;
use std::process::Command;

use crate::support;
use crate::support::backend::{self, hold};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, binary};
use crate::support::rng;
use crate::support::until;

/// The kernel assigns this many clients to one of two listeners with a probability of 1 in 2^63.
const CLIENTS: usize = 64;

fn config(address: SocketAddr, to: SocketAddr, reuse_port: bool) -> String {
    format!("[entrypoints.e]\nlisten = \"{address}\"\nto = \"{to}\"\nreuse_port = {reuse_port}\n")
}

fn open(coracle: &Coracle) -> usize {
    scrape(coracle.admin).sum("coracle_open_connections") as usize
}

/// The shipped example, with these addresses.
fn example(address: SocketAddr, to: SocketAddr) -> String {
    let text = include_str!("../../examples/hand-over.toml");
    let addresses = [("*:8080", address), ("192.168.1.10:80", to)];
    addresses
        .iter()
        .fold(text.to_owned(), |text, (shown, own)| {
            assert!(text.contains(shown), "{text}");
            text.replace(shown, &own.to_string())
        })
}

#[test]
fn two_processes_share_an_address_and_either_may_leave() {
    let to = backend::start();
    let address = support::lasting_address(&mut rng::from_env());
    let config = example(address, to);
    let first = Coracle::start(&config);
    let second = Coracle::start(&config);
    let held: Vec<_> = (0..CLIENTS).map(|_| hold(address)).collect();
    let counts = [open(&first), open(&second)];
    assert_eq!(counts[0] + counts[1], CLIENTS, "{counts:?}");
    assert!(!counts.contains(&0), "{counts:?}");
    drop(held);
    until("all have left", || {
        (open(&first) + open(&second) == 0).then_some(())
    });
    drop(first);
    let _held: Vec<_> = (0..CLIENTS).map(|_| hold(address)).collect();
    assert_eq!(open(&second), CLIENTS);
}

#[test]
fn second_process_cannot_start_unless_both_set_reuse_port() {
    let to = backend::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    for (first, second, remedy) in [
        (false, false, "in use: another program listens there; stop"),
        (true, false, "in use: another program listens there; stop"),
        (false, true, "that belongs to another user or does"),
    ] {
        let address = support::lasting_address(&mut rng::from_env());
        let _first = Coracle::start(&config(address, to, first));
        let text = config(address, to, second) + "[admin]\nlisten = \"off\"\n";
        std::fs::write(&file, text).unwrap();
        let output = Command::new(binary())
            .args(["run", "-c"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(remedy), "{said}");
    }
}
