//! The limits of connections, of an entrypoint and of the process: more wait in the backlog or are
//! refused, and a reload changes how many there may be.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::backend::{self, Script, hold};
use crate::support::fleet::{is_turned_away, reloadable};
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::rng;
use crate::support::{DEADLINE, lasting_address, until};

/// A coracle with an entrypoint `e` that listens on two addresses, and what a reload needs.
struct Limited {
    coracle: Coracle,
    admin: SocketAddr,
    listen: [SocketAddr; 2],
    backend: SocketAddr,
}

impl Limited {
    fn start(settings: &str, rest: &str) -> Self {
        let mut rng = rng::from_env();
        let admin = lasting_address(&mut rng);
        let listen = [lasting_address(&mut rng), lasting_address(&mut rng)];
        let backend = backend::start();
        Self {
            coracle: Coracle::start(&config(admin, listen, backend, settings, rest)),
            admin,
            listen,
            backend,
        }
    }

    fn reload(&self, settings: &str, rest: &str) {
        let config = config(self.admin, self.listen, self.backend, settings, rest);
        assert!(self.coracle.reload(&config));
    }

    fn open(&self) -> usize {
        scrape(self.admin).sum("coracle_open_connections") as usize
    }

    fn open_is(&self, n: usize) {
        until(&format!("{n} are open"), || {
            (self.open() == n).then_some(())
        });
    }

    fn refused(&self) -> f64 {
        scrape(self.admin).sum("coracle_connections_refused_total")
    }

    /// Refuses a client, which comes in by the listener `n`.
    fn refuses(&self, n: usize) {
        let before = self.refused();
        is_turned_away(self.listen[n]);
        assert_eq!(self.refused(), before + 1.0);
    }
}

fn config(
    admin: SocketAddr,
    [one, two]: [SocketAddr; 2],
    backend: SocketAddr,
    settings: &str,
    rest: &str,
) -> String {
    let config = format!(
        "[entrypoints.e]\nlisten = [\"{one}\", \"{two}\"]\nto = \"{backend}\"\n{settings}\n{rest}\n"
    );
    reloadable(admin, one, &config)
}

/// Connects and asks the server to hold the connection, which it answers.
fn ask(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client
}

/// Waits until the client is served.
fn is_served(mut client: TcpStream) -> TcpStream {
    client.set_nonblocking(false).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client
}

/// Checks that no answer has come.
fn waits(client: &mut TcpStream) {
    client.set_nonblocking(true).unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn clients_beyond_the_limit_wait_in_the_backlog_of_both_listeners() {
    let it = Limited::start("max_connections = 2", "");
    let mut open = vec![hold(it.listen[0]), hold(it.listen[1])];
    let mut waiting: Vec<_> = (0..6).map(|n| ask(it.listen[n % 2])).collect();
    it.coracle
        .logged("the entrypoint is at its max_connections; new ones wait");
    while !waiting.is_empty() {
        waiting.iter_mut().for_each(waits);
        assert_eq!(it.open(), 2);
        let before = waiting.len();
        open.pop();
        // One of them is served, of whichever listener.
        let served = until("the next one is served", || {
            let ready = |client: &mut TcpStream| client.peek(&mut [0]).is_ok();
            let n = waiting.iter_mut().position(ready)?;
            Some(waiting.remove(n))
        });
        open.push(is_served(served));
        assert_eq!(waiting.len(), before - 1);
    }
    drop(open);
    it.open_is(0);
    assert_eq!(it.refused(), 0.0);
    // Both listeners serve as before.
    let _open = it.listen.map(hold);
}

#[test]
fn clients_beyond_the_limit_are_refused_if_the_configuration_says_so() {
    let it = Limited::start("max_connections = 2\nat_limit = \"refuse\"", "");
    let mut open = vec![hold(it.listen[0]), hold(it.listen[0])];
    for n in [0, 1, 0] {
        it.refuses(n);
    }
    it.coracle
        .logged("the entrypoint is at its max_connections; new ones are refused");
    let metrics = scrape(it.admin);
    let refused = "coracle_connections_refused_total";
    assert_eq!(metrics.sum_where(refused, "reason=\"limit\""), 3.0);
    assert_eq!(metrics.sum("coracle_connections_opened_total"), 2.0);
    open.pop();
    it.open_is(1);
    open.push(hold(it.listen[1]));
    it.refuses(0);
}

#[test]
fn reload_raises_and_lowers_the_limit_of_an_entrypoint() {
    let it = Limited::start("max_connections = 1", "");
    let first = hold(it.listen[0]);
    // A backlog is in order.
    let mut waiting: Vec<_> = (0..4).map(|_| ask(it.listen[0])).collect();
    waiting.iter_mut().for_each(waits);
    it.reload("max_connections = 3", "");
    it.open_is(3);
    it.reload("max_connections = 1", "");
    let mut last = ask(it.listen[0]);
    it.reload("max_connections = 5", "");
    let mut open: Vec<_> = waiting.into_iter().map(is_served).collect();
    waits(&mut last);
    assert_eq!(it.open(), 5);
    // Open ones stay when it is lowered, and the next one waits until few are left.
    it.reload("max_connections = 2", "");
    drop(first);
    open.truncate(2);
    it.open_is(2);
    waits(&mut last);
    // Those who wait are refused once the configuration says so.
    it.reload("max_connections = 2\nat_limit = \"refuse\"", "");
    last.set_nonblocking(false).unwrap();
    let error = last.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(it.refused(), 1.0);
    it.reload("", "");
    open.extend(it.listen.map(hold));
    assert_eq!(it.open(), 4);
}

#[test]
fn limit_of_the_process_is_in_the_ready_line_and_raised_by_reload() {
    let it = Limited::start("", "[limits]\nmax_connections = 2");
    let ready = it.coracle.logged("msg=ready");
    let expected = "connections_at_most=2 by=limits.max_connections";
    assert!(ready.contains(expected), "{ready}");
    let _open = it.listen.map(hold);
    let mut waiting: Vec<_> = (0..3).map(|n| ask(it.listen[n % 2])).collect();
    it.coracle.logged(
        "no room for more connections: the configured limit is reached; raise it (limits.max_connections)",
    );
    waiting.iter_mut().for_each(waits);
    assert_eq!(it.open(), 2);
    it.reload("", "[limits]\nmax_connections = 4");
    it.open_is(4);
    it.reload("", "");
    let _served: Vec<_> = waiting.into_iter().map(is_served).collect();
    assert_eq!(it.open(), 5);
}
