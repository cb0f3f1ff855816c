//! Runs a test in its own network namespace, with private loopback, sysctls, ports, mounts and host
//! name.

use std::process::Command;

/// Set in the namespace.
const INSIDE: &str = "CORACLE_TEST_NAMESPACE";

/// Returns true inside the namespace, which the shell has prepared by `setup`, with loopback up.
/// Outside, runs `test` there in another process of this binary, fails if that fails, and returns
/// false; also false, with a message, if namespaces may not be created.
pub fn enter(test: &str, setup: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !can_make() {
        return false;
    }
    let script =
        format!("set -e; ip link set lo up; {setup}; exec \"$0\" --exact \"$1\" --nocapture");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--uts", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in the namespace: {text}{told}");
    assert!(text.contains("1 passed"), "no such test: {text}");
    false
}

/// Whether namespaces can be made and set up. If not, the check says so; with CORACLE_REQUIRE_TOOLS
/// set, it fails.
pub fn can_make() -> bool {
    super::has_tool("unshare") && super::has_tool("ip") && may_unshare()
}

fn may_unshare() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--uts", "true"])
        .output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "namespaces may not be created");
        eprintln!("skipped: namespaces may not be created");
    }
    may
}

/// Shell commands for [`enter`] that make a second machine: the namespace `peer`, reached by the
/// interface `lan0` with 10.9.0.1 and fd09::1. The peer has 10.9.0.2 and fd09::2 on its `c0`.
pub const PEER: &str = "\
    mkdir -p /run/netns; mount -t tmpfs none /run/netns; ip netns add peer; \
    ip link add lan0 type veth peer name c0 netns peer; \
    ip addr add 10.9.0.1/24 dev lan0; ip addr add fd09::1/64 dev lan0 nodad; ip link set lan0 up; \
    for it in all lan0; do echo 0 > /proc/sys/net/ipv4/conf/$it/rp_filter; done; \
    ip netns exec peer sh -c 'ip link set lo up; ip addr add 10.9.0.2/24 dev c0; \
        ip addr add fd09::2/64 dev c0 nodad; ip link set c0 up'";

/// Runs `act` in the namespace of [`PEER`].
pub fn in_peer<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    in_namespace("peer", act)
}

/// Runs `act` in the namespace of this name, on a thread of its own.
pub fn in_namespace<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> T {
    let run = move || {
        let peer = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&peer), network)
            .unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
