//! What a service manager is told: ready, signs of life, stopping.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use support::process::binary;

#[test]
fn a_service_manager_is_told_of_readiness_life_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let told = || {
        let mut message = [0; 512];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let mut coracle = Command::new(binary())
        .args(["run", "--admin", "off", "-L", "127.0.0.1:0:127.0.0.1:9"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    assert_eq!(told(), "READY=1\n");
    for _ in 0..5 {
        assert_eq!(told(), "WATCHDOG=1\n");
    }
    kill_process(Pid::from_child(&coracle), Signal::TERM).unwrap();
    let last = loop {
        let said = told();
        if said != "WATCHDOG=1\n" {
            break said;
        }
    };
    assert_eq!(last, "STOPPING=1\nEXTEND_TIMEOUT_USEC=14000000\n");
    let status = support::until("the process ends", || coracle.try_wait().unwrap());
    assert!(status.success());
}
