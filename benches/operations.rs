//! Measures what single operations cost: `cargo bench`. `comparison/` compares the whole program
//! with other proxies.

#![allow(clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use coracle::net::{EarlyData, Listener, Meter, Reactor, Side, Stream, TcpOptions, relay};
use coracle::state::{Branch, Guard, Peer, Protocol, Shared};
use divan::Bencher;
use smol::LocalExecutor;

use support::admin::{Admin, PATIENT};
use support::http::Client;

/// Connections that are open in addition to the one measured.
const OPEN: usize = 1_000;
const MESSAGE: [u8; 64] = [b'm'; 64];

fn main() {
    divan::main();
}

/// Wakes the bench once bytes have passed.
#[derive(Clone, Default)]
struct Passed(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Passed {
    async fn wait(&self) {
        poll_fn(|cx| {
            if self.0.0.take() {
                return Poll::Ready(());
            }
            *self.0.1.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Meter for Passed {
    fn moved(&self, _: Side, _: usize) {
        self.0.0.set(true);
        if let Some(waker) = self.0.1.take() {
            waker.wake();
        }
    }

    fn finished(&self, _: Side) {}
}

fn pair(reactor: &Rc<Reactor>) -> (Stream, TcpStream) {
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind_tcp(reactor, any, &TcpOptions::default()).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_nodelay(true).unwrap();
    let (stream, _) = reactor.block_on(listener.accept()).unwrap();
    (stream, peer)
}

/// Sends a message through the relay and its echo back. Includes the system calls of both ends.
#[divan::bench]
fn relay_round_trip(bencher: Bencher) {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new();
    let (client, mut client_peer) = pair(&reactor);
    let (server, mut server_peer) = pair(&reactor);
    let passed = Passed::default();
    let meter = passed.clone();
    let task = executor.spawn(async move {
        let early_data = EarlyData::of(&client).into_read();
        let _ = relay(&client, &server, early_data, &meter).await;
    });
    bencher.bench_local(|| {
        let mut received = MESSAGE;
        client_peer.write_all(&MESSAGE).unwrap();
        reactor.block_on(executor.run(passed.wait()));
        server_peer.read_exact(&mut received).unwrap();
        server_peer.write_all(&received).unwrap();
        reactor.block_on(executor.run(passed.wait()));
        client_peer.read_exact(&mut received).unwrap();
    });
    drop(task);
}

/// Adds a connection to its sets, assigns it a server, and removes it.
#[divan::bench]
fn set_insert_and_drop(bencher: Bencher) {
    let shared = Shared::default();
    let now = Instant::now();
    let entrypoint = shared.registry.entrypoint("e", Protocol::Tcp, now);
    let service = shared.registry.service("s");
    let branch = Branch::only(&service);
    let server = shared.registry.server(&service, "10.0.0.1:80");
    let connect = || {
        let guard = Guard::insert(&shared.conns, &entrypoint, Some(&branch), Peer::Unix, now);
        let place = server.place(guard.conn().id);
        guard.conn().relaying(place, now);
        guard
    };
    let _open: Vec<_> = (0..OPEN).map(|_| connect()).collect();
    bencher.bench_local(|| drop(connect()));
}

/// Scrapes once over HTTP: copies the state, renders it, and passes it through the kernel.
#[divan::bench]
fn scrape(bencher: Bencher) {
    let admin = Admin::start(PATIENT);
    admin.with(|world| {
        for _ in 0..OPEN {
            world.insert(0);
        }
    });
    let mut client = Client::connect(admin.address);
    bencher.bench_local(|| assert_eq!(client.get("/metrics").status, 200));
}
