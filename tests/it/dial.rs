//! Dialling over real sockets: every address is tried, a silent one blocks no other, and the
//! deadline holds.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use coracle::net::{Dial, EarlyData, Listener, Meter, Reactor, Side, dial_tcp, relay};

use crate::support;
use crate::support::backend::{Silent, bound_but_not_listening};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn within(reactor: &Rc<Reactor>, timeout: Duration) -> Dial<'static> {
    Dial {
        deadline: reactor.now() + timeout,
        keepalive: None,
        outgoing: None,
        client: None,
    }
}

#[test]
fn silent_address_yields_to_the_other_family() {
    let silent = Silent::start();
    let port = silent.address.port();
    let answering = TcpListener::bind((V6, port)).unwrap();
    let reactor = Reactor::new().unwrap();
    let dial = within(&reactor, support::DEADLINE);
    let ips = [V4, V6];
    reactor
        .block_on(dial_tcp(&reactor, &ips, port, dial, &EarlyData::none()))
        .unwrap();
    answering.accept().unwrap();
}

#[test]
fn refusing_address_yields_immediately() {
    let answering = TcpListener::bind((V4, 0)).unwrap();
    let port = answering.local_addr().unwrap().port();
    let reactor = Reactor::new().unwrap();
    let dial = within(&reactor, support::DEADLINE);
    let ips = [V6, V4];
    reactor
        .block_on(dial_tcp(&reactor, &ips, port, dial, &EarlyData::none()))
        .unwrap();
    answering.accept().unwrap();
}

#[test]
fn early_data_for_a_refusing_server_goes_to_the_next() {
    let answering = TcpListener::bind((V4, 0)).unwrap();
    let port = answering.local_addr().unwrap().port();
    let reactor = Reactor::new().unwrap();
    let any = (V4, 0).into();
    let listener = Listener::bind_tcp(&reactor, any, &coracle::net::TcpOptions::default()).unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.write_all(b"first words").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let (client, _) = reactor.block_on(listener.accept()).unwrap();
    let early_data = EarlyData::of(&client);
    let dial = within(&reactor, support::DEADLINE);
    let server = reactor
        .block_on(dial_tcp(&reactor, &[V6, V4], port, dial, &early_data))
        .unwrap();
    let reading = std::thread::spawn(move || {
        let (mut stream, _) = answering.accept().unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    });
    let passed = Passed::default();
    let relayed = relay(&client, &server, early_data.into_read(), &passed);
    reactor.block_on(relayed).unwrap();
    assert_eq!(reading.join().unwrap(), "first words");
    assert_eq!(passed.0.get(), 11, "counted as well");
}

#[derive(Default)]
struct Passed(Cell<usize>);

impl Meter for Passed {
    fn moved(&self, _: Side, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    fn finished(&self, _: Side) {}
}

#[test]
fn deadline_ends_an_unanswered_dial() {
    let silent = Silent::start();
    let reactor = Reactor::new().unwrap();
    let dial = within(&reactor, Duration::from_millis(100));
    let early_data = EarlyData::none();
    let dialling = dial_tcp(&reactor, &[V4], silent.address.port(), dial, &early_data);
    let error = reactor.block_on(dialling).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn refused_by_all_is_refused_and_no_address_is_an_error() {
    let refusing = bound_but_not_listening();
    let address = refusing.local_addr().unwrap().as_socket().unwrap();
    let port = address.port();
    let reactor = Reactor::new().unwrap();
    for (ips, expected) in [
        (&[V4][..], ErrorKind::ConnectionRefused),
        (&[], ErrorKind::NotFound),
    ] {
        let dial = within(&reactor, support::DEADLINE);
        let error = reactor
            .block_on(dial_tcp(&reactor, ips, port, dial, &EarlyData::none()))
            .unwrap_err();
        assert_eq!(error.kind(), expected);
    }
}
