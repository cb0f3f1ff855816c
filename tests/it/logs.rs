//! The log: access lines on request, and an unread stderr that blocks nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::process::{Coracle, binary};
use crate::support::rng;
use crate::support::until;

#[test]
fn access_line_has_peer_target_reason_bytes_and_duration() {
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
fn unread_stderr_does_not_block_the_proxy() {
    let to = backend::start();
    let listen = support::lasting_address(&mut rng::from_env());
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
    // From now on nothing is read. A pipe takes 64 KiB; a line is longer than 100 bytes.
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
    // More lines than the queue holds, while every connection is served.
    (0..3_000).for_each(|_| visit());
    // The first line read afterwards reports what was dropped.
    let told = stderr.lines().map_while(Result::ok);
    let mut told = told.filter(|line| {
        line.contains("left out") || line.contains("lines dropped") || line.contains("suppressed=")
    });
    assert!(told.next().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn startup_logs_each_listener_once_with_its_target() {
    const ENTRYPOINTS: usize = 40;
    let entrypoint = |n| {
        let to = format!("10.0.0.1:{}", 1000 + n);
        format!("[entrypoints.e{n}]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n")
    };
    let mut config: String = (0..ENTRYPOINTS).map(entrypoint).collect();
    // A name does not hide where a server is.
    let server = |n| format!("{{ address = \"10.0.0.{n}:80\", name = \"server {n}\" }}");
    let servers: Vec<_> = (1..=10).map(server).collect();
    let servers = servers.join(",");
    config += "[entrypoints.long]\nlisten = \"127.0.0.1:0\"\nservice = \"web\"\n";
    config += &format!("[services.web]\nservers = [{servers}]\n");
    let coracle = Coracle::start(&config);
    for n in 0..ENTRYPOINTS {
        let address = coracle.address(&format!("e{n}"));
        let to = format!("entrypoint=e{n} address={address} to=10.0.0.1:{}", 1000 + n);
        coracle.logged(&to);
    }
    let line = coracle.logged("entrypoint=long");
    let to = "service=web to=\"10.0.0.1:80,10.0.0.2:80,10.0.0.3:80,10.0.0.4:80,10.0.0.5:80,10.0.0.6:80,\
        10.0.0.7:80,10.0.0.8:80 and 2 more\"";
    assert!(line.ends_with(to), "{line}");
    let log = coracle.log().join("\n");
    assert!(!log.contains("suppressed") && !log.contains("does not have"));
}

#[test]
fn forward_is_logged_by_its_address_alone() {
    let listen = support::lasting_address(&mut rng::from_env());
    let mut command = Command::new(binary());
    command.args(["run", "--admin", "off", "-L"]);
    let line = first_line(command.arg(format!("{listen}:10.0.0.1:80")));
    let expected = format!(" msg=listening address={listen} to=10.0.0.1:80\n");
    assert!(line.ends_with(&expected), "{line}");
}

#[test]
fn absent_listen_address_is_warned_about() {
    // TEST-NET-1 (RFC 5737): no machine has it.
    let coracle =
        Coracle::start("[entrypoints.e]\nlisten = \"192.0.2.1:0\"\nto = \"10.0.0.1:80\"\n");
    let line = coracle.logged("this machine does not have the address 192.0.2.1 yet");
    assert!(line.contains("level=warn"), "{line}");
}

#[test]
fn ipv4_client_of_a_wildcard_listener_is_shown_as_ipv4() {
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[log]\naccess = true\n[entrypoints.e]\nlisten = \"*:0\"\nto = \"{to}\"\n"
    ));
    let port = coracle.address("e").port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let peer = stream.local_addr().unwrap();
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let admin = coracle.admin.to_string();
    let mut audit = Command::new(binary());
    let audit = audit.args(["audit", "--admin", &admin]).output().unwrap();
    let table = String::from_utf8(audit.stdout).unwrap();
    assert!(table.contains(&format!(" {peer} ")), "{table}");
    drop(stream);
    let line = coracle.logged("msg=closed");
    assert!(line.contains(&format!(" peer={peer} ")), "{line}");
}

#[test]
fn noisy_server_does_not_hide_warnings_about_another() {
    let refusing = [(); 2].map(|()| backend::bound_but_not_listening());
    let [noisy, other] = refusing
        .each_ref()
        .map(|socket| socket.local_addr().unwrap().as_socket().unwrap());
    let coracle = Coracle::start(&format!(
        "[entrypoints.noisy]\nlisten = \"127.0.0.1:0\"\nto = \"{noisy}\"\n\
         [entrypoints.other]\nlisten = \"127.0.0.1:0\"\nto = \"{other}\"\n"
    ));
    let visit = |entrypoint| {
        let mut stream = TcpStream::connect(coracle.address(entrypoint)).unwrap();
        let _ = stream.read(&mut [0]);
    };
    // Far more than are logged in a second; most machines take less than a second for them.
    (0..100).for_each(|_| visit("noisy"));
    visit("other");
    coracle.logged(&format!("entrypoint=other server={other}"));
}

#[test]
fn journald_lines_begin_with_their_priority() {
    let listen = support::lasting_address(&mut rng::from_env());
    // systemd identifies the stream by device and inode; the shell does the same for its pipe.
    let script = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, &binary(), "run", "--admin", "off", "-L"]);
    let line = first_line(command.arg(format!("{listen}:127.0.0.1:9")));
    assert!(line.starts_with("<6>msg="), "{line}");
}

/// The first line that the program logs, which ends it.
fn first_line(command: &mut Command) -> String {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}
