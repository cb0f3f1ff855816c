//! Where `coracle audit` connects: by number, by name and over a Unix socket, with a time limit.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use crate::support;
use crate::support::process::{Coracle, binary};

fn audit(admin: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(["audit", "--admin", admin]).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn audit_reaches_a_name_all_interfaces_and_a_unix_socket() {
    let admin = support::lasting_address(&mut support::rng::from_env());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let port = admin.port();
    let coracle = Coracle::start(&format!(
        "[admin]\nlisten = \"*:{port}\"\nopen = true\n[entrypoints.admin]\nlisten = \"unix:{}\"\nto = \"127.0.0.1:{port}\"\n",
        path.display()
    ));
    for admin in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("*:{port}"),
        format!(":{port}"),
        format!("0.0.0.0:{port}"),
        format!("unix:{}", path.display()),
    ] {
        let output = audit(&admin);
        assert!(output.status.success(), "{admin}: {}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("The set and the kernel agree"), "{text}");
    }
    drop(coracle);
}

#[test]
fn unusable_admin_address_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = format!("unix:{}", dir.path().join("none").display());
    for (admin, why) in [
        (
            "off",
            "coracle cannot be queried while its admin endpoint is off",
        ),
        ("2672", "write `127.0.0.1:2672`"),
        ("*:0", "cannot connect to port 0"),
        ("nas.invalid:2672", "the name cannot be resolved"),
        (nowhere.as_str(), "no coracle is running at unix:"),
    ] {
        let output = audit(admin);
        assert_eq!(output.status.code(), Some(1), "{admin}");
        let said = said(&output);
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("panic"), "{said}");
    }
}

#[test]
fn audit_gives_up_on_an_endpoint_that_never_answers() {
    // One accepts no connection, the other never ends its response.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.sock");
    let full = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _fill = UnixStream::connect(&path).unwrap();
    let drips = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = drips.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = drips.accept().unwrap();
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let asked = [format!("unix:{}", path.display()), address.to_string()];
    let asking = asked.map(|admin| thread::spawn(move || audit(&admin)));
    for asking in asking {
        let output = asking.join().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains("does not answer within 15 s"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
