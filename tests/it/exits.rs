//! Exit: a documented code and one line, whatever is missing.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::process::binary;
use crate::support::rng;
use crate::support::until;

/// A full pipe. Writing to it blocks.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for piece in [4096, 1] {
        let filled = loop {
            if let Err(error) = writer.write(&vec![b'x'; piece]) {
                break error;
            }
        };
        assert_eq!(filled.kind(), ErrorKind::WouldBlock);
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn exit_code(mut child: Child) -> Option<i32> {
    let status = until("the process ends", || child.try_wait().unwrap());
    assert!(status.code().is_some(), "it was killed: {status}");
    status.code()
}

/// Ways to fail, on a port that is taken.
fn failures(taken: &str) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    vec![
        words(&["run", "--admin", "off", "-L", &format!("{taken}:h:1")]),
        words(&["run", "-L", "nonsense"]),
        words(&["run", "-c", "/nonexistent"]),
        words(&["demo", "--listen", taken, "--admin", "127.0.0.1:0"]),
        words(&["check", "/nonexistent"]),
        words(&["audit", "--admin", "127.0.0.1:1"]),
        words(&["--nonsense"]),
        words(&[]),
    ]
}

#[test]
fn blocked_stderr_neither_delays_exit_nor_changes_its_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = (taken.local_addr().unwrap().to_string(), taken);
    let (_unread, full) = full_pipe();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let device = std::fs::File::create("/dev/full").unwrap();
    for arguments in failures(&taken.0) {
        for stderr in [
            Stdio::from(full.try_clone().unwrap()),
            gone.try_clone().unwrap().into(),
            device.try_clone().unwrap().into(),
        ] {
            let mut command = Command::new(binary());
            let child = command.args(&arguments).stderr(stderr).spawn().unwrap();
            assert_eq!(exit_code(child), Some(1), "{arguments:?}");
        }
        let mut closed = Command::new("sh");
        closed.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).arg(binary());
        let child = closed.args(&arguments).spawn().unwrap();
        assert_eq!(
            exit_code(child),
            Some(1),
            "{arguments:?} with stderr closed"
        );
    }
}

#[test]
fn drain_exits_with_0_while_stderr_is_unread() {
    let (_unread, full) = full_pipe();
    let listen = support::lasting_address(&mut rng::from_env());
    let child = Command::new(binary())
        .args(["run", "--access-log", "--admin", "off", "-L"])
        .arg(format!("{listen}:127.0.0.1:9"))
        .stderr(full)
        .spawn()
        .unwrap();
    // Its server refuses, so that it logs something.
    until("it listens", || TcpStream::connect(listen).ok());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(exit_code(child), Some(0));
}

/// Starts it through `command`. Returns true if it becomes ready; otherwise it must exit with 1 and
/// one line that contains `remedy`.
fn becomes_ready(mut command: Command, remedy: &str) -> bool {
    command.args([
        "run",
        "--admin",
        "127.0.0.1:0",
        "-L",
        "127.0.0.1:0:127.0.0.1:9",
    ]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&told).contains("msg=ready") {
        match stderr.read(&mut piece).unwrap() {
            0 => break,
            n => told.extend_from_slice(&piece[..n]),
        }
    }
    let told = String::from_utf8(told).unwrap();
    if told.contains("msg=ready") {
        child.kill().unwrap();
        child.wait().unwrap();
        return true;
    }
    assert_eq!(exit_code(child), Some(1), "{told}");
    let is_news = |line: &&str| !line.contains("level=info");
    let news: Vec<_> = told.lines().filter(is_news).collect();
    assert_eq!(news.len(), 1, "{told}");
    assert!(
        news[0].starts_with("coracle: ") && news[0].contains(remedy),
        "{told}"
    );
    false
}

#[test]
fn lack_of_descriptors_is_reported_in_one_line_wherever_it_strikes() {
    // With fewer than 5 the program cannot load its libraries.
    let failed = (5..100).take_while(|limit| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
        shell.arg(binary());
        !becomes_ready(shell, "limit of")
    });
    let failed = failed.count();
    assert!((10..95).contains(&failed), "{failed}");
}

#[test]
fn lack_of_threads_is_reported_in_one_line_whichever_is_missing() {
    if !support::has_tool("strace") {
        return;
    }
    let failed = (1..20).take_while(|first| {
        let mut strace = Command::new("strace");
        // -D: the started process is the program itself. From one thread on, every clone fails.
        strace.args([
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=clone,clone3",
        ]);
        strace.arg("-e");
        strace.arg(format!("inject=clone,clone3:error=EAGAIN:when={first}+"));
        strace.arg(binary());
        !becomes_ready(strace, "no thread can be started")
    });
    let failed = failed.count();
    assert!((2..19).contains(&failed), "{failed}");
}
