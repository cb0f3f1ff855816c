//! The cost of an idle connection: the sizes of its task and entry, bounded so that growth is
//! noticed.

use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use coracle::conn::{self, Destination, Route};
use coracle::net::{Listener, Reactor};
use coracle::state::{Branch, Conn, Guard, Peer, Protocol, Shared};

/// The task, allocated once per connection. The executor adds 64 bytes, and the allocator of the
/// static builds rounds up to powers of two: one more byte costs 256.
const TASK_BYTES: usize = 192;
/// The entry, allocated once per connection, with 16 bytes of reference counts: likewise.
const ENTRY_BYTES: usize = 112;

#[test]
fn connection_task_and_entry_stay_small() {
    let reactor = Reactor::new().unwrap();
    let now = reactor.now();
    let shared = Shared::default();
    let entrypoint = shared.registry.entrypoint("e", Protocol::Tcp, now);
    let branch = Branch::only(&shared.registry.service("s"));
    let route = Rc::new(Route {
        reactor: reactor.clone(),
        conns: shared.conns.clone(),
        names: Rc::default(),
        entrypoint: entrypoint.clone(),
        to: Some(Destination {
            branch: branch.clone(),
            pool: Rc::default(),
            connect_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(10),
            send_proxy: None,
            ranges: None,
            outgoing: None,
        }),
        rules: None,
        topology: Rc::default(),
        accept_proxy: None,
        prologue_timeout: Duration::from_secs(5),
        keepalive: None,
    });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind_tcp(&reactor, any, &coracle::net::TcpOptions::default()).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, peer) = reactor.block_on(listener.accept()).unwrap();
    let peer = Peer::Tcp(peer.unwrap());
    let guard = Guard::insert(&shared.conns, &entrypoint, Some(&branch), peer, now);
    let task = size_of_val(&conn::serve(guard, route, stream));
    let entry = size_of::<Conn>();
    println!("a connection's task: {task} bytes, its entry: {entry} bytes");
    assert!(task <= TASK_BYTES, "the task has grown to {task} bytes");
    assert!(entry <= ENTRY_BYTES, "the entry has grown to {entry} bytes");
}
