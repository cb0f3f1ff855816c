//! A proxy that leads back to itself: the log says so, and the set empties again whatever path the
//! loop takes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::metrics::scrape;
use crate::support::process::{Coracle, Start};
use crate::support::rng;
use crate::support::{lasting_address, namespace, until};

fn assert_refused(coracle: &Coracle, text: &str) {
    let line = coracle.logged("coracle's own listener");
    assert!(line.contains(text), "{line}");
    let metrics = scrape(coracle.admin);
    assert_eq!(
        metrics.sum_where("coracle_connect_errors_total", "reason=\"loop\""),
        1.0
    );
    until("the set is empty", || {
        (scrape(coracle.admin).sum("coracle_open_connections") == 0.0).then_some(())
    });
}

fn assert_reset(mut client: impl Read) {
    let error = client.read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// This machine has an address besides loopback, and a name for it.
const BOX_LAN: &str = "ip addr add 10.9.9.9/32 dev lo; hosts=$(mktemp); echo 10.9.9.9 box.lan >$hosts; \
    mount --bind $hosts /etc/hosts; rm $hosts";

#[test]
fn own_address_or_name_behind_a_wildcard_listener_is_refused() {
    let name = "loops::own_address_or_name_behind_a_wildcard_listener_is_refused";
    if !namespace::enter(name, BOX_LAN) {
        return;
    }
    for server in ["10.9.9.9:80", "box.lan:80"] {
        let config = format!("[entrypoints.e]\nlisten = \"*:80\"\nto = \"{server}\"\n");
        let coracle = Coracle::start(&config);
        let client = TcpStream::connect("127.0.0.1:80").unwrap();
        client.set_read_timeout(Some(support::DEADLINE)).unwrap();
        assert_reset(client);
        assert_refused(&coracle, "of entrypoint `e`, which would forward to itself");
        let opened = scrape(coracle.admin).sum("coracle_connections_opened_total");
        assert_eq!(opened, 1.0, "none came back");
    }
}

#[test]
fn a_rule_that_leads_back_is_refused() {
    let name = "loops::a_rule_that_leads_back_is_refused";
    if !namespace::enter(name, BOX_LAN) {
        return;
    }
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"*:80\"\nto = \"{to}\"\n\
         routes = [{{ from = \"127.0.0.0/8\", service = \"s\" }}]\n\
         [services.s]\nservers = [\"box.lan:80\"]\n",
    ));
    let client = TcpStream::connect("127.0.0.1:80").unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    assert_reset(client);
    assert_refused(&coracle, "of entrypoint `e`, which would forward to itself");
}

#[test]
fn loop_of_two_entrypoints_is_refused_and_a_chain_is_served() {
    let name = "loops::loop_of_two_entrypoints_is_refused_and_a_chain_is_served";
    if !namespace::enter(name, BOX_LAN) {
        return;
    }
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.a]\nlisten = \"*:81\"\nto = \"box.lan:82\"\n\
         [entrypoints.b]\nlisten = \"*:82\"\nto = \"box.lan:81\"\n\
         [entrypoints.chain]\nlisten = \"127.0.0.1:0\"\nto = \"box.lan:83\"\n\
         [entrypoints.end]\nlisten = \"*:83\"\nto = \"{to}\"\n",
    ));
    let mut client = TcpStream::connect(coracle.address("chain")).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    let client = TcpStream::connect("127.0.0.1:81").unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    assert_reset(client);
    assert_refused(
        &coracle,
        "of entrypoint `b`, which leads back to entrypoint `a`",
    );
}

#[test]
fn symlink_to_own_unix_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (front, link) = (dir.path().join("front.sock"), dir.path().join("link.sock"));
    std::os::unix::fs::symlink(&front, &link).unwrap();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"unix:{}\"\nto = \"unix:{}\"\n",
        front.display(),
        link.display()
    ));
    let mut client = UnixStream::connect(&front).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    // A Unix socket sends no reset to a peer that has sent nothing.
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_refused(&coracle, "of entrypoint `e`, which would forward to itself");
}

#[test]
fn other_server_on_own_port_is_served() {
    let to = backend::start();
    let listen = SocketAddr::new([127, 0, 0, 2].into(), to.port());
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"{listen}\"\nto = \"{to}\"\n"
    ));
    let mut client = TcpStream::connect(listen).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    let metrics = scrape(coracle.admin);
    assert_eq!(metrics.sum("coracle_connect_errors_total"), 0.0);
}

#[test]
fn two_proxies_in_a_loop_empty_again_after_the_client_finishes() {
    let mut rng = rng::from_env();
    let (a, b) = (lasting_address(&mut rng), lasting_address(&mut rng));
    let start = |listen: SocketAddr, to: SocketAddr| {
        Coracle::start_with(&Start {
            config: &format!(
                "[log]\naccess = true\n[entrypoints.e]\nlisten = \"{listen}\"\nto = \"{to}\"\n"
            ),
            descriptors: Some(64),
        })
    };
    let (first, second) = (start(a, b), start(b, a));
    let mut client = TcpStream::connect(a).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let full = until("one of them is full", || {
        let mut logs = [&first, &second].into_iter();
        logs.find(|it| {
            it.log()
                .iter()
                .any(|line| line.contains("no room for more"))
        })
    });
    let open = |coracle: &Coracle| scrape(coracle.admin).sum("coracle_open_connections");
    assert!(open(full) >= 10.0);
    // The client waits for a response. The first half-closed connection has 30 s before it yields,
    // and its reset travels around the loop.
    client.shutdown(Shutdown::Write).unwrap();
    until("both are empty", || {
        (open(&first) + open(&second) == 0.0).then_some(())
    });
    let error = client.read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let gave_way = |coracle: &Coracle| {
        let metrics = scrape(coracle.admin);
        metrics.sum_where("coracle_connections_closed_total", "reason=\"gave_way\"")
    };
    for coracle in [&first, &second] {
        let count = gave_way(coracle);
        until("each has one access line", || {
            let log = coracle.log();
            let lines = log.iter().filter(|line| line.contains("reason=gave_way"));
            (lines.count() as f64 == count).then_some(())
        });
    }
    let gave_way = gave_way(&first) + gave_way(&second);
    assert!(
        (1.0..=2.0).contains(&gave_way),
        "one should suffice: {gave_way}"
    );
}
