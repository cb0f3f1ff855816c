//! What the integration tests share: processes, scripted servers, scrapes, the kernel's table, and
//! one deadline helper.

// Each test crate uses only a part of this private module.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used)]

pub mod admin;
pub mod backend;
pub mod clients;
pub mod fleet;
pub mod hello_oracle;
pub mod http;
pub mod in_process;
pub mod kernel;
pub mod machine;
pub mod manager;
pub mod markdown;
pub mod memory_group;
pub mod metrics;
pub mod namespace;
pub mod openmetrics;
pub mod process;
pub mod program;
pub mod prometheus;
pub mod rng;
pub mod screen;
pub mod shell;
pub mod sources;

use std::fmt::Display;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// The one deadline of all tests. It only ends a test that hangs, and leaves time for an emulated
/// program on a slow, busy machine: no result may otherwise depend on it.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Waits until `probe` has a value: the one place where tests poll, for what no event announces.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    until_ok(what, || probe().ok_or(""))
}

/// The same for a probe that can say what is still missing, which a failure shows.
pub fn until_ok<T, E: Display>(what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    // A machine that stalled all that time has not looked often enough.
    const LOOKS: u32 = 100;
    let end = Instant::now() + DEADLINE;
    let mut looks = 0;
    loop {
        let missing = match probe() {
            Ok(value) => return value,
            Err(missing) => missing,
        };
        looks += 1;
        assert!(
            looks < LOOKS || Instant::now() < end,
            "waited {DEADLINE:?} in vain until {what} {missing}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a program that a check needs is installed. If it is not, the check says so; with
/// CORACLE_REQUIRE_TOOLS set, as in CI, it fails.
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

/// Whether strace is installed and may trace, which a container may forbid.
pub fn can_trace() -> bool {
    if !has_tool("strace") {
        return false;
    }
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    let traces = tried.unwrap().status.success();
    if !traces {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "strace may not trace here");
        eprintln!("skipped: strace may not trace here");
    }
    traces
}

/// A free address whose port is below the ephemeral ones, so that the kernel assigns it to no
/// client in the meantime. Each is handed out once, so that tests never share one, in one process or
/// in several, even while nobody listens there: an abstract Unix socket claims it.
///
/// It is bound without listening: a process forked by another test holds the socket until its exec,
/// and would accept the connection of a test that waits for its own program to listen.
pub fn lasting_address(rng: &mut rng::Rng) -> SocketAddr {
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    until("a free port below the ephemeral ones", || {
        let port = 20_000 + rng.u16(..10_000);
        let name = format!("coracle-test-port-{port}");
        let name = unix::SocketAddr::from_abstract_name(name).unwrap();
        let claim = UnixListener::bind_addr(&name).ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).ok()?;
        CLAIMS.lock().unwrap().push(claim);
        Some(address)
    })
}
