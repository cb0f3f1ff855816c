//! Limits per client and rates, with clients from the many addresses of loopback.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::support::backend::{self, Script};
use crate::support::clients::{connect_from, is_reset};
use crate::support::metrics::{check, scrape};
use crate::support::process::Coracle;
use crate::support::{lasting_address, rng, until};

/// A coracle with one entrypoint, and what a reload needs.
struct Limited {
    coracle: Coracle,
    admin: SocketAddr,
    listen: SocketAddr,
    backend: SocketAddr,
}

impl Limited {
    fn start(settings: &str) -> Self {
        let mut rng = rng::from_env();
        let [admin, listen] = [(); 2].map(|()| lasting_address(&mut rng));
        let backend = backend::start();
        Self {
            coracle: Coracle::start(&config(admin, listen, backend, settings)),
            admin,
            listen,
            backend,
        }
    }

    fn reload(&self, settings: &str) {
        let config = config(self.admin, self.listen, self.backend, settings);
        assert!(self.coracle.reload(&config));
    }

    /// Connects from 127.1.0.0 and the numbers behind it.
    fn connect(&self, from: u32) -> io::Result<TcpStream> {
        let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + from);
        connect_from(from, self.listen)
    }

    /// Returns the connection if the server holds it, or nothing if it is refused.
    fn tries(&self, from: u32) -> Option<TcpStream> {
        let served = self.connect(from).and_then(|mut client| {
            client.write_all(&Script::Hold.request(0))?;
            client.read_exact(&mut [0])?;
            Ok(client)
        });
        served
            .inspect_err(|error| assert!(is_reset(error), "{error}"))
            .ok()
    }

    fn serves(&self, from: u32) -> TcpStream {
        let client = self.tries(from);
        client.unwrap_or_else(|| panic!("client {from} is refused"))
    }

    fn refuses(&self, from: u32, reason: &str) {
        let before = self.refused(reason);
        assert!(self.tries(from).is_none(), "client {from}");
        assert_eq!(self.refused(reason), before + 1.0, "{reason}");
    }

    fn refused(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        scrape(self.admin).sum_where("coracle_connections_refused_total", &label)
    }

    fn open_are(&self, n: usize) {
        until(&format!("{n} are open"), || {
            let open = scrape(self.admin).sum("coracle_open_connections");
            (open == n as f64).then_some(())
        });
    }
}

fn config(admin: SocketAddr, listen: SocketAddr, backend: SocketAddr, settings: &str) -> String {
    format!(
        "[entrypoints.e]\nlisten = \"{listen}\"\nto = \"{backend}\"\n{settings}\n\
         [admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n"
    )
}

#[test]
fn clients_have_as_many_connections_as_they_may() {
    let it = Limited::start("max_connections_per_client = 2");
    let mut one = vec![it.serves(1), it.serves(1)];
    it.refuses(1, "client_limit");
    let two = [it.serves(2), it.serves(2)];
    it.refuses(2, "client_limit");
    // A connection that ends makes room for its own client alone, whatever ends it.
    one.pop();
    it.open_are(3);
    it.refuses(2, "client_limit");
    one.push(it.serves(1));
    it.refuses(1, "client_limit");
    it.coracle
        .logged("the client is at max_connections_per_client; refused");
    // Connections from before a reload count, as do those from before there was a limit.
    it.reload("max_connections_per_client = 3");
    one.push(it.serves(1));
    it.refuses(1, "client_limit");
    it.reload("");
    one.push(it.serves(1));
    it.reload("max_connections_per_client = 4\nclient_ipv6_prefix = 56");
    it.refuses(1, "client_limit");
    it.reload("max_connections_per_client = 1");
    it.refuses(2, "client_limit");
    it.refuses(1, "client_limit");
    drop((one, two));
    it.open_are(0);
    let _open = [it.serves(1), it.serves(2)];
    let metrics = scrape(it.admin);
    check(&metrics, &metrics);
}

#[test]
fn rates_hold_for_each_client_and_for_all() {
    // No token comes back while the test runs.
    let it = Limited::start(
        "connection_rate_per_client = \"1/h\"\nconnection_burst_per_client = 3\n\
         connection_rate = \"1/h\"\nconnection_burst = 5",
    );
    for _ in 0..3 {
        drop(it.serves(1));
    }
    it.refuses(1, "client_rate");
    drop(it.serves(2));
    // A reload gives nothing back.
    it.reload(
        "connection_rate_per_client = \"1/h\"\nconnection_burst_per_client = 3\n\
         connection_rate = \"1/h\"\nconnection_burst = 5\nidle_timeout = \"1h\"",
    );
    it.refuses(1, "client_rate");
    drop(it.serves(2));
    it.refuses(2, "rate");
    it.refuses(3, "rate");
    it.coracle
        .logged("the client connects more often than connection_rate_per_client; refused");
    it.reload("connection_rate_per_client = \"1/h\"\nconnection_burst_per_client = 3");
    drop(it.serves(2));
    it.refuses(2, "client_rate");
    drop(it.serves(3));
}

#[test]
fn known_clients_are_served_during_a_flood_from_many_addresses() {
    /// More than are remembered.
    const ADDRESSES: u32 = 6_000;
    let it = Limited::start(
        "connection_rate_per_client = \"1/h\"\nconnection_burst_per_client = 4\n\
         max_connections_per_client = 4",
    );
    let mut known = vec![it.serves(ADDRESSES)];
    for from in 0..ADDRESSES {
        drop(it.connect(from));
    }
    until("all of the flood is accepted", || {
        let metrics = scrape(it.admin);
        let opened = metrics.sum("coracle_connections_opened_total");
        let refused = metrics.sum("coracle_connections_refused_total");
        (opened + refused == f64::from(ADDRESSES + 1)).then_some(())
    });
    it.open_are(1);
    let refused = it.refused("client_rate");
    assert!((1.0..1_905.0).contains(&refused), "{refused}");
    it.refuses(ADDRESSES + 1, "client_rate");
    known.extend((0..3).map(|_| it.serves(ADDRESSES)));
    it.refuses(ADDRESSES, "client_limit");
}
