//! Without privileges, in its own network namespace, the kernel's count is present and right.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support;

/// Runs coracle with its own admin endpoint as the server, holds one connection, and audits. $0 is
/// the binary.
const SCRIPT: &str = r#"
exec 4< <(exec "$0" run --admin 127.0.0.1:2672 -L 127.0.0.1:8080:127.0.0.1:2672 2>&1)
pid=$!
while read -t 180 -r line <&4; do
    echo "$line" >&2
    case $line in *msg=ready*) break;; esac
done
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n' >&3
while read -t 180 -r line <&3; do
    case $line in coracle_kernel_connections*|coracle_connection_mismatch*) echo "$line";; esac
    case $line in coracle_service_open_connections*) break;; esac
done
"$0" audit && echo "audit: good"
exec 3>&-
kill "$pid"
wait "$pid"
"#;

#[test]
fn kernel_count_works_unprivileged_in_a_network_namespace() {
    if !["unshare", "setpriv", "ip", "bash"]
        .iter()
        .all(|tool| support::has_tool(tool))
    {
        return;
    }
    let may_unshare = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        let command = command.args(flags).arg("true").stderr(Stdio::null());
        command.status().unwrap().success()
    };
    // Root makes the namespace itself and then drops its privileges; other users are root only in a
    // user namespace.
    let (flags, drop_privileges): (&[&str], _) = match may_unshare(&["--net"]) {
        true => (
            &["--net"],
            "setpriv --reuid 65534 --regid 65534 --clear-groups",
        ),
        false => (&["--user", "--map-root-user", "--net"], ""),
    };
    if !may_unshare(flags) {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "namespaces cannot be made here");
        eprintln!("skipped: namespaces cannot be made here");
        return;
    }
    // Readable by everyone, wherever the build directory is.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("coracle");
    std::fs::copy(support::process::binary(), &copy).unwrap();
    let shell = format!("ip link set lo up && exec {drop_privileges} bash -c \"$1\" \"$0\"");
    let output = Command::new("unshare")
        .args(flags)
        .args(["bash", "-c", &shell])
        .arg(&copy)
        .arg(SCRIPT)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "coracle_kernel_connections{entrypoint=\"127.0.0.1:8080\"} 1",
        "coracle_connection_mismatch{entrypoint=\"127.0.0.1:8080\"} 0",
        "The set and the kernel agree: 1 open (sock_diag).",
        "audit: good",
    ] {
        assert!(
            said.contains(expected),
            "{expected}\nis not in: {said}\n{log}"
        );
    }
}
