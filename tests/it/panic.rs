//! A bug in one connection's task ends only that connection, and the count stays right.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;

use coracle::config::Config;
use coracle::proxy::{Drained, Proxy};
use coracle::state::Hook;

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::metrics::scrape;
use crate::support::until;

#[test]
fn panic_in_one_connection_leaves_count_and_others_intact() {
    let to = backend::start();
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    );
    let (tell, told) = channel();
    let (stop, stops) = smol::channel::bounded(2);
    let running = thread::spawn(move || {
        let config = Config::parse("test.toml", &text, &[]).unwrap();
        let every_third = Hook(Rc::new(|conn| {
            let id: u64 = conn.id.to_string().parse().unwrap();
            assert!(!id.is_multiple_of(3), "deliberate panic");
        }));
        let proxy = Proxy::bind(&config).unwrap().hooked(every_third);
        let addresses = (proxy.addresses("e")[0], proxy.admin_address().unwrap());
        tell.send(addresses).unwrap();
        proxy.run(Box::pin(stops)).unwrap()
    });
    let (address, admin) = told.recv().unwrap();

    let mut held = Vec::new();
    for id in 1..=30 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        // Whichever of the two comes after the reset reports it.
        let asked = stream.write_all(&Script::Hold.request(0));
        let answer = asked.and_then(|()| stream.read(&mut [0]));
        if id % 3 == 0 {
            let error = answer.expect_err("a panic looks like EOF").kind();
            assert!(matches!(
                error,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ));
        } else {
            assert_eq!(answer.unwrap(), 1);
            held.push(stream);
        }
    }
    let metrics = scrape(admin);
    assert_eq!(metrics.sum("coracle_open_connections"), 20.0);
    let panicked = metrics.sum_where("coracle_connections_closed_total", "reason=\"panic\"");
    assert_eq!(panicked, 10.0);

    drop(held);
    until("the gauge is 0", || {
        (scrape(admin).sum("coracle_open_connections") == 0.0).then_some(())
    });
    stop.send_blocking("test").unwrap();
    let drained = running.join().unwrap();
    assert_eq!(drained, Drained { ended: 0, cut: 0 });
}
