//! A real Prometheus scrapes a real coracle and returns the right number.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::process::Coracle;
use crate::support::prometheus::Prometheus;
use crate::support::until;

const HELD: usize = 7;

#[test]
fn prometheus_scrapes_the_right_number() {
    if !support::has_tool("prometheus") {
        return;
    }
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let prometheus = Prometheus::start(coracle.admin, None);
    let held: Vec<TcpStream> = (0..HELD)
        .map(|_| {
            let mut stream = TcpStream::connect(coracle.address("web")).unwrap();
            stream.write_all(&Script::Hold.request(0)).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    let query = "coracle_open_connections%7Bentrypoint%3D%22web%22%2Cprotocol%3D%22TCP%22%7D";
    let value = format!("\"{HELD}\"]");
    until("Prometheus answers with the number held", || {
        prometheus
            .query(query)
            .filter(|answer| answer.contains(&value))
    });
    drop(held);
    until("Prometheus answers 0", || {
        prometheus
            .query(query)
            .filter(|answer| answer.contains("\"0\"]"))
    });
}
