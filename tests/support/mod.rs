//! What the integration tests share: processes, scripted servers, scrapes, the kernel's table, and one deadline helper.

#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

pub mod admin;
pub mod backend;
pub mod http;
pub mod in_process;
pub mod kernel;
pub mod metrics;
pub mod openmetrics;
pub mod process;
pub mod prometheus;
pub mod rng;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// No event that a test waits for takes longer, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `probe` has a value: the one place where tests wait, for what announces itself by no event of its own.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "waited {DEADLINE:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a program that a check needs is installed. Where it is not, the check says so; with CORACLE_REQUIRE_TOOLS set, as in
/// CI, it fails.
pub fn has_tool(name: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "{name} is not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// A free address that the kernel gives to no client in the meantime: its port is below the ephemeral ones.
pub fn lasting_address(rng: &mut rng::Rng) -> SocketAddr {
    until("a free port below the ephemeral ones", || {
        let port = 20_000 + rng.below(10_000) as u16;
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        listener.local_addr().ok()
    })
}
