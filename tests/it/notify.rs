//! What a service manager is told: ready, watchdog, stopping. One that does not read blocks
//! nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::process::{Coracle, binary};

fn told(manager: &UnixDatagram) -> String {
    let mut message = [0; 512];
    let length = manager.recv(&mut message).unwrap();
    String::from_utf8(message[..length].to_vec()).unwrap()
}

/// Fills its socket without reading.
fn fill(path: &Path) {
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = sender.send_to(b"FILLER=1\n", path) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
}

#[test]
fn service_manager_is_notified_of_ready_watchdog_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let abstract_name = format!("coracle-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    for (manager, name) in [
        (
            UnixDatagram::bind(&path).unwrap(),
            path.to_str().unwrap().to_owned(),
        ),
        (
            UnixDatagram::bind_addr(&address).unwrap(),
            format!("@{abstract_name}"),
        ),
    ] {
        manager.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let mut coracle = Command::new(binary())
            .args(["run", "--admin", "off", "-L", "127.0.0.1:0:127.0.0.1:9"])
            .env("NOTIFY_SOCKET", &name)
            .env("WATCHDOG_USEC", "300000")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();

        assert_eq!(told(&manager), "READY=1\n", "{name}");
        for _ in 0..5 {
            assert_eq!(told(&manager), "WATCHDOG=1\n");
        }
        kill_process(Pid::from_child(&coracle), Signal::TERM).unwrap();
        let last = loop {
            let said = told(&manager);
            if said != "WATCHDOG=1\n" {
                break said;
            }
        };
        assert_eq!(last, "STOPPING=1\nEXTEND_TIMEOUT_USEC=14000000\n");
        let status = support::until("the process ends", || coracle.try_wait().unwrap());
        assert!(status.success());
    }
}

#[test]
fn unread_notify_socket_blocks_neither_data_nor_admin_nor_signals() {
    let to = backend::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(support::DEADLINE)).unwrap();
    fill(&path);
    let mut command = Command::new(binary());
    command.env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "30000");
    let config = format!(
        "drain_timeout = \"1h\"\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    );
    let mut coracle = Coracle::start_by(command, &config);
    coracle.logged("cannot send READY=1 to the service manager: it is not reading");
    let mut stream = TcpStream::connect(coracle.address("e")).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let (status, _, _) = support::http::get(coracle.admin, "/healthz");
    assert_eq!(status, 200);

    // As soon as it is read, notifications arrive: READY first, although that could not be sent at
    // once.
    let next = || {
        loop {
            let said = told(&manager);
            if said != "FILLER=1\n" && said != "WATCHDOG=1\n" {
                return said;
            }
        }
    };
    assert_eq!(next(), "READY=1\n");
    fill(&path);
    coracle.signal(Signal::TERM);
    coracle.logged("draining");
    let said = next();
    assert!(said.starts_with("STOPPING=1\n"), "{said}");
    fill(&path);
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
    let complaints = coracle.log().into_iter();
    let complaints: Vec<_> = complaints
        .filter(|line| line.contains("service manager"))
        .collect();
    // One for each time that reading stopped, not one per message.
    assert!((1..=4).contains(&complaints.len()), "{complaints:#?}");
}
