//! The demo ends on request, with a message.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::process::binary;

#[test]
fn ctrl_c_ends_the_demo_with_a_line_despite_open_connections() {
    let mut demo = Command::new(binary())
        .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut line_with = |what: &str| {
        let line = lines.by_ref().map(Result::unwrap);
        line.into_iter().find(|line| line.contains(what)).unwrap()
    };
    let open = line_with("http://");
    let address = open.split("http://").nth(1).unwrap();
    let mut visitor = TcpStream::connect(address.split('/').next().unwrap()).unwrap();
    visitor.set_read_timeout(Some(support::DEADLINE)).unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    visitor.read_exact(&mut [0]).unwrap();
    line_with("Ctrl-C");

    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    line_with("SIGINT: the demo ends");
    let status = support::until("the demo ends", || demo.try_wait().unwrap());
    assert!(status.success());
    // The visitor receives the rest of the page and then a reset: the demo does not wait for it to
    // leave.
    let end = std::io::copy(&mut visitor, &mut std::io::sink());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
