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
