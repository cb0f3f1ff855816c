//! The demo does what it prints, and ends on request, with a message.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::metrics::scrape;
use crate::support::process::binary;

struct Demo {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    /// What it prints at the start.
    guide: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(binary())
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut guide = Vec::new();
        while !guide
            .last()
            .is_some_and(|it: &String| it.contains("Ctrl-C"))
        {
            guide.push(lines.next().unwrap().unwrap());
        }
        Self {
            process,
            lines,
            guide,
        }
    }

    /// What follows a word of the guide.
    fn after(&self, word: &str) -> &str {
        let rest = |line: &'_ str| -> Option<usize> {
            let rest = line.trim_start().strip_prefix(word)?;
            Some(line.len() - rest.trim_start().len())
        };
        let mut lines = self.guide.iter();
        lines
            .find_map(|line| Some(&line[rest(line)?..]))
            .unwrap_or_else(|| panic!("{word}: {:#?}", self.guide))
    }

    fn address(&self, word: &str) -> SocketAddr {
        let address = self.after(word).strip_prefix("http://").unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    }

    fn interrupt(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::INT).unwrap();
        let mut rest = self.lines.map(Result::unwrap);
        assert!(rest.any(|line| line == "SIGINT: the demo ends"));
        let status = support::until("the demo ends", || self.process.try_wait().unwrap());
        assert!(status.success());
    }
}

#[test]
fn ctrl_c_ends_the_demo_with_a_line_despite_open_connections() {
    let demo = Demo::start();
    let mut visitor = TcpStream::connect(demo.address("open")).unwrap();
    visitor.set_read_timeout(Some(support::DEADLINE)).unwrap();
    visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    visitor.read_exact(&mut [0]).unwrap();

    demo.interrupt();
    // The visitor receives the rest of the page and then a reset: the demo does not wait for it to
    // leave.
    let end = std::io::copy(&mut visitor, &mut std::io::sink());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn the_demo_has_a_download_to_kill_and_leaves_no_file() {
    let demo = Demo::start();
    assert!(demo.guide.len() <= 10, "{:#?}", demo.guide);
    assert!(demo.guide[2].contains("page"), "{:#?}", demo.guide);
    let (_, socket) = demo.after("top").split_once("unix:").unwrap();
    let socket = Path::new(socket).to_owned();
    assert!(socket.exists());
    let directory = socket.parent().unwrap();
    let mode = std::fs::metadata(directory).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&mode);
    assert_eq!(mode & 0o777, 0o700);

    let kill = demo.after("kill");
    support::until("the download is killed", || {
        let output = Command::new("sh").args(["-c", kill]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (output.stdout == b"1 connection ended\n").then_some(())
    });
    let killed = scrape(demo.address("page"))
        .sum_where("coracle_connections_closed_total", "reason=\"killed\"");
    assert_eq!(killed, 1.0);
    demo.interrupt();
    assert!(!directory.exists());
}

#[test]
fn a_server_of_the_demo_fails_and_recovers() {
    let demo = Demo::start();
    let admin = demo.address("page");
    let changes = |to: &str| {
        let labels = ["server=\"shaky\"", &format!("to=\"{to}\"")];
        scrape(admin).sum_of("coracle_server_state_changes_total", &labels)
    };
    support::until("it has failed and recovered", || {
        (changes("down") >= 1.0 && changes("up") >= 1.0).then_some(())
    });
    demo.interrupt();
}
