//! The log: access lines on request, and a stderr that nobody reads stops nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use support::backend::{self, Script};
use support::process::{Coracle, binary};
use support::rng::Rng;
use support::until;

#[test]
fn an_access_line_says_who_where_why_how_much_and_how_long() {
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[log]\nlevel = \"info\"\naccess = true\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let mut stream = TcpStream::connect(coracle.address("e")).unwrap();
    let peer = stream.local_addr().unwrap();
    stream
        .write_all(&Script::SendAndClose.request(1000))
        .unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    drop(stream);
    let line = coracle.logged("msg=closed");
    let expected = format!(
        "msg=closed entrypoint=e peer={peer} service=e server={to} reason=done \
         to_server_bytes=9 to_client_bytes=1000 seconds="
    );
    let (_, seconds) = line.split_once(&expected).expect(&line);
    let seconds: f64 = seconds.parse().expect(&line);
    assert!(seconds >= 0.0, "{line}");
    assert!(
        line.starts_with("time=20") && line.contains(" level=info "),
        "{line}"
    );
}

#[test]
fn a_stderr_that_nobody_reads_does_not_stop_it() {
    let to = backend::start();
    let listen = support::lasting_address(&mut Rng::from_env());
    let mut child = Command::new(binary())
        .args(["run", "--access-log", "--admin", "off", "-L"])
        .arg(format!("{listen}:{to}"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::with_capacity(1, child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("msg=ready") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0);
    }
    // From now on nobody reads. A pipe takes 64 KiB; a line is longer than 100 bytes.
    let visit = || {
        let mut stream = TcpStream::connect(listen).unwrap();
        stream.write_all(&Script::SendAndClose.request(10)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 10);
    };
    until("the pipe is full", || {
        (0..20).for_each(|_| visit());
        let unread = rustix::io::ioctl_fionread(stderr.get_ref()).unwrap();
        (unread > 60_000).then_some(())
    });
    // More lines than the queue holds, and every connection is served.
    (0..3_000).for_each(|_| visit());
    // Whoever reads at last is told that something is missing.
    let told = stderr.lines().map_while(Result::ok);
    let mut told = told.filter(|line| {
        line.contains("left out") || line.contains("were dropped") || line.contains("suppressed=")
    });
    assert!(told.next().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn under_journald_a_line_begins_with_its_priority() {
    let listen = support::lasting_address(&mut Rng::from_env());
    // systemd names the stream by device and inode; the shell does the same for the pipe it writes to.
    let script = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", script, &binary(), "run", "--admin", "off", "-L"])
        .arg(format!("{listen}:127.0.0.1:9"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("<6>msg="), "{line}");
}
