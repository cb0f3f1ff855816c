//! The start: what prevents it is one line with the remedy. Where the machine cannot be made to
//! refuse, a unit test beside the code has the message.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::FlockOperation;
use tempfile::TempDir;

use crate::support;
use crate::support::process::binary;

/// A directory that everyone may read, but only its owner may write to.
fn readable_dir() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// Runs a command line that fails, in `dir`. Returns the one line that it prints, after what it has
/// logged so far.
fn fails_in(dir: &Path, mut command: Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).current_dir(dir).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let lines = said.lines().skip_while(|line| line.starts_with("time="));
    let [line] = lines.collect::<Vec<_>>()[..] else {
        panic!("{arguments:?}: {said}");
    };
    line.to_owned()
}

fn fails(arguments: &[&str]) -> String {
    let dir = TempDir::new().unwrap();
    fails_in(dir.path(), Command::new(binary()), arguments)
}

#[test]
fn run_without_a_configuration_names_both_places_and_both_ways() {
    if Path::new("/etc/coracle.toml").exists() {
        let required = std::env::var_os("CORACLE_REQUIRE_TOOLS").is_some();
        assert!(!required, "/etc/coracle.toml exists");
        eprintln!("skipped: /etc/coracle.toml exists");
        return;
    }
    assert_eq!(
        fails(&["run"]),
        "coracle: nothing to do: neither ./coracle.toml nor /etc/coracle.toml exists; name a file with -c FILE, or forward a port with -L 8080:192.168.1.10:80"
    );
}

#[test]
fn unreadable_file_is_reported_with_the_systems_reason() {
    let said = fails(&["check", "/proc/self/mem"]);
    assert!(
        said.starts_with("/proc/self/mem: cannot be read: "),
        "{said}"
    );
}

#[test]
fn demo_with_one_port_for_two_addresses_names_them() {
    assert_eq!(
        fails(&["demo", "--listen", "0.0.0.0:1", "--admin", "127.0.0.1:1"]),
        "coracle: --listen and --admin take the same port: 0.0.0.0:1 and 127.0.0.1:1; choose another"
    );
}

#[test]
fn admin_address_of_another_machine_points_to_ip_addr() {
    // TEST-NET-1 (RFC 5737) belongs to no machine.
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("open.toml");
    let text = "admin = { listen = \"192.0.2.1:2672\", open = true }\n\
                [entrypoints.a]\nlisten = \"127.0.0.1:0\"\nto = \"h:1\"\n";
    fs::write(&file, text).unwrap();
    let said = fails(&["run", "-c", file.to_str().unwrap()]);
    assert!(
        said.starts_with("coracle: admin: listen on 192.0.2.1:2672: "),
        "{said}"
    );
    assert!(
        said.ends_with(": this machine does not have this address; see `ip addr`"),
        "{said}"
    );
}

#[test]
fn admin_address_that_others_can_reach_needs_consent() {
    for address in [
        "0.0.0.0:2672",
        "[::]:2672",
        "192.0.2.1:2672",
        "[2001:db8::1]:2672",
    ] {
        let mut command = Command::new(binary());
        command.args(["run", "--admin", address, "-L", "127.0.0.1:0:h:1"]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let expected = format!(
            "command line: --admin: other machines can reach `{address}`, and the admin endpoint has no token; \
             listen on `127.0.0.1:2672`, set token_file in [admin] of the configuration, or allow it with open = true there"
        );
        assert_eq!(said.lines().next(), Some(&*expected));
    }
}

#[test]
fn locked_directory_points_to_lslocks() {
    let dir = TempDir::new().unwrap();
    let held = fs::File::open(dir.path()).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    let forward = format!("unix:{}:h:1", dir.path().join("a.sock").display());
    let said = fails(&["run", "--admin", "off", "-L", &forward]);
    assert!(
        said.ends_with(
            ": another program has locked the directory (`lslocks` shows it); stop it or choose another directory"
        ),
        "{said}"
    );
}

#[test]
fn user_without_privileges_learns_what_is_missing() {
    if !support::has_tool("setpriv") {
        return;
    }
    let dir = readable_dir();
    // Wherever the build directory is.
    let copy = dir.path().join("coracle");
    fs::copy(binary(), &copy).unwrap();
    let nobody = || {
        if !rustix::process::getuid().is_root() {
            return Command::new(&copy);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&copy);
        command
    };
    let fails = |arguments: &[&str]| fails_in(Path::new("/"), nobody(), arguments);

    let secret = dir.path().join("secret.toml");
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o0)).unwrap();
    let secret = secret.display().to_string();
    assert_eq!(
        fails(&["check", &secret]),
        format!("{secret}: permission denied")
    );

    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
    let forward = format!("unix:{}:h:1", closed.join("a.sock").display());
    let said = fails(&["run", "--admin", "off", "-L", &forward]);
    assert!(
        said.ends_with(": permission denied: choose a directory that this user can write to"),
        "{said}"
    );

    let own = readable_dir();
    fs::set_permissions(own.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let text = format!(
        "[admin]\nlisten = \"off\"\n[entrypoints.e]\nlisten = \"unix:{}\"\nto = \"h:1\"\nsocket_group = \"0\"\n",
        own.path().join("a.sock").display()
    );
    let file = own.path().join("c.toml");
    fs::write(&file, text).unwrap();
    let said = fails(&["run", "-c", file.to_str().unwrap()]);
    assert!(
        said.contains(": `socket_group`: cannot change the group to `0`: "),
        "{said}"
    );

    if let Ok(first) = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        && first.trim() != "0"
    {
        let said = fails(&["run", "--admin", "off", "-L", "127.0.0.1:1:h:1"]);
        assert_eq!(
            said,
            "coracle: entrypoint 127.0.0.1:1: listen on 127.0.0.1:1: permission denied: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port, or run as root or with the capability"
        );
    }
}
