//! Signals: none ends the program silently, and unused ones end nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::process::Coracle;
use crate::support::until;

/// Sends signals by name or number, including unnamed ones.
fn send(coracle: &Coracle, signals: &str) {
    let script = format!(
        "for s in {signals}; do kill -s \"$s\" {}; done",
        coracle.pid()
    );
    let sent = Command::new("bash").args(["-c", &script]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn closing_terminal_and_unused_signals_end_no_connection() {
    let to = backend::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.sock");
    let mut coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nto = \"{to}\"\n",
        path.display()
    ));
    let mut held = TcpStream::connect(coracle.address("e")).unwrap();
    held.set_read_timeout(Some(support::DEADLINE)).unwrap();
    held.write_all(&Script::Echo.request(0)).unwrap();
    send(
        &coracle,
        "HUP USR1 USR2 ALRM VTALRM PROF IO PWR STKFLT XFSZ PIPE $(seq 34 64)",
    );
    coracle.logged("reloaded: nothing has changed");
    // It lives, and so does the open connection.
    held.write_all(b"!").unwrap();
    let mut byte = [0];
    held.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"!");
    drop(UnixStream::connect(&path).unwrap());
    drop(held);
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
    assert!(!path.exists(), "the Unix socket is left behind");
}

#[test]
fn fatal_signal_is_reported_on_stderr() {
    for name in ["ABRT", "SYS", "ILL", "FPE", "TRAP", "XCPU"] {
        let mut coracle =
            Coracle::start("[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\n");
        send(&coracle, name);
        let status = coracle.wait();
        assert!(status.signal().is_some(), "{name}: {status}");
        coracle.logged(&format!("killed by SIG{name}"));
    }
}

#[test]
fn closing_terminal_ends_the_demo() {
    let mut child = Command::new(support::process::binary())
        .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let guide = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut guide = guide.map_while(Result::ok);
    assert!(guide.any(|line| line.contains("Ctrl-C")));
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let status = until("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn signal_during_startup_leaves_no_unix_socket_behind() {
    if !support::has_tool("strace") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.sock");
    let forward = format!("unix:{}:127.0.0.1:9", path.display());
    // It stays in listen(2) long enough to send the signal. -D: the started process is the program
    // itself.
    let mut child = Command::new("strace")
        .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=listen"])
        .args(["-e", "inject=listen:delay_exit=3000000"])
        .arg(support::process::binary())
        .args(["run", "--admin", "off", "-L", &forward])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the Unix socket is there", || path.exists().then_some(()));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = until("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!path.exists(), "the Unix socket is left behind");
}
