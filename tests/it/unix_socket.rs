//! Listening on Unix sockets: who may take a path, who may connect, and what is left behind.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};

use coracle::net::{Listener, Reactor, UnixSocket};
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::process::{Coracle, binary};

fn config(path: &Path, more: &str) -> String {
    let to = backend::start();
    format!(
        "[entrypoints.e]\nlisten = \"unix:{}\"\nto = \"{to}\"\n{more}",
        path.display()
    )
}

fn is_served(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.write_all(&Script::SendAndClose.request(77)).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 77);
}

/// Leaves an abandoned socket file at `path`. Nothing ever listened on it: a process that another
/// test forks at this moment would hold such a socket until its exec.
fn abandon(path: &Path) {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
    assert!(path.exists());
}

/// Runs coracle with a configuration that prevents startup.
fn fails(config: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    fs::write(&file, format!("{config}[admin]\nlisten = \"off\"\n")).unwrap();
    let Output { status, stderr, .. } = Command::new(binary())
        .args(["run", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test]
fn second_coracle_reports_address_in_use_and_the_first_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    abandon(&path);
    let config = config(&path, "");
    let mut first = Coracle::start(&config);
    let said = fails(&config);
    assert!(said.contains("address in use"), "{said}");
    is_served(&path);
    // The second's probe did not count as a connection.
    let opened = support::metrics::scrape(first.admin).sum("coracle_connections_opened_total");
    assert_eq!(opened, 1.0);
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn only_an_abandoned_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    // Bound, and about to listen: another program is starting.
    let starting = UnixSocket::bind(&path).unwrap();
    assert!(fails(&config(&path, "")).contains("address in use"));
    drop(starting);
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    assert!(fails(&config(&path, "")).contains("address in use"));
    assert_eq!(fs::read(&path).unwrap(), b"a file");
    fs::remove_file(&path).unwrap();

    // At exit, another program's socket in its place stays.
    let mut coracle = Coracle::start(&config(&path, ""));
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
    assert!(path.exists());
}

#[test]
fn leftovers_of_a_killed_coracle_do_not_stop_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let config = config(&path, "");
    // Dropping it kills it.
    drop(Coracle::start(&config));
    assert!(path.exists());
    let _next = Coracle::start(&config);
    is_served(&path);
}

#[test]
fn locked_directory_is_waited_for_and_then_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let lock = fs::File::open(dir.path()).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let said = fails(&config(&path, ""));
    assert!(said.contains("has locked the directory"), "{said}");
    assert!(!path.exists());
    drop(lock);
    let _coracle = Coracle::start(&config(&path, ""));
    is_served(&path);
}

#[test]
fn missing_directory_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let said = fails(&config(&dir.path().join("none/front.sock"), ""));
    assert!(said.contains("the directory does not exist"), "{said}");
}

#[test]
fn configured_mode_and_group_override_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    // Root may assign any group; other users only one of their own.
    let group = match rustix::process::geteuid().is_root() {
        true => 4242,
        false => rustix::process::getegid().as_raw(),
    };
    for (umask, mode) in [("077", 0o660), ("000", 0o600), ("022", 0o777)] {
        let more = format!("socket_mode = \"0{mode:o}\"\nsocket_group = \"{group}\"\n");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
        shell.arg(binary());
        let mut coracle = Coracle::start_by(shell, &config(&path, &more));
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, mode);
        assert_eq!(meta.gid(), group);
        is_served(&path);
        coracle.signal(Signal::TERM);
        assert_eq!(coracle.wait().code(), Some(0));
        assert!(!path.exists());
    }
    // Without them the umask decides.
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 027; exec \"$0\" \"$@\""]);
    shell.arg(binary());
    let _coracle = Coracle::start_by(shell, &config(&path, ""));
    let meta = fs::symlink_metadata(&path).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o750);
}

#[test]
fn no_client_connects_before_mode_and_group_are_set() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let reactor = Reactor::new().unwrap();
    let bound = UnixSocket::bind(&path).unwrap();
    let early = UnixStream::connect(&path).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::ConnectionRefused);
    bound.path().set_mode(0o600).unwrap();
    let _listener = Listener::listen_unix(&reactor, bound, 16).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn missing_group_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let said = fails(&config(&path, "socket_group = \"no-such-group\"\n"));
    assert!(said.contains("there is no group `no-such-group`"), "{said}");
    assert!(!path.exists());
}
