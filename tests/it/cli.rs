//! The command line: exit codes and output.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support;
use crate::support::process::Coracle;

const GOOD: &str = "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n";

#[test]
fn check_accepts_a_valid_file() {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "{GOOD}[entrypoints.b]\nlisten = \":81\"\nservice = \"a2\"\n[services.a2]\nservers = [\"h:2\"]\n"
    );
    fs::write(dir.path().join("c.toml"), text).unwrap();
    let output = coracle(dir.path(), &["check", "c.toml"]);
    assert_eq!(
        told(&output),
        (Some(0), "c.toml: OK: 2 entrypoints, 2 services\n", "")
    );
}

#[test]
fn check_warns_and_succeeds() {
    let dir = TempDir::new().unwrap();
    let text = format!("{GOOD}[services.web]\nservers = [\"h:2\"]\n");
    let line = 1 + GOOD.lines().count();
    fs::write(dir.path().join("c.toml"), text).unwrap();
    let output = coracle(dir.path(), &["check", "c.toml"]);
    let expected = format!(
        "c.toml:{line}:11: warning: no entrypoint uses service `web`; remove it, or write service = \"web\" in an entrypoint\n  \
         |\n{line} | [services.web]\n  |           ^^^\n\n1 warning\n\nc.toml: OK: 1 entrypoint, 2 services\n"
    );
    assert_eq!(told(&output), (Some(0), expected.as_str(), ""));
}

#[test]
fn check_refuses_an_entrypoint_that_leads_to_itself() {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("c.toml"),
        "[entrypoints.a]\nlisten = \"*:8080\"\nto = \"localhost:8080\"\n",
    )
    .unwrap();
    let output = coracle(dir.path(), &["check", "c.toml"]);
    let (code, out, err) = told(&output);
    assert_eq!((code, out), (Some(1), ""));
    assert!(
        err.starts_with("c.toml:3:6: entrypoint `a` listens on `localhost:8080` itself"),
        "{err}"
    );
}

#[test]
fn check_reports_every_error() {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("c.toml"),
        format!("foo = 1\n{GOOD}bar = 2\n"),
    )
    .unwrap();
    let output = coracle(dir.path(), &["check", "c.toml"]);
    let (code, out, err) = told(&output);
    assert_eq!((code, out), (Some(1), ""));
    assert!(err.starts_with("c.toml:1:1: unknown key `foo`"), "{err}");
    assert!(
        err.contains("\n5 | bar = 2\n  | ^^^\n\n2 errors\n"),
        "{err}"
    );
}

#[test]
fn check_reports_an_unreadable_file_in_one_line() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("latin1.toml"), b"a = 1\n# \xe9\n").unwrap();
    fs::write(dir.path().join("large.toml"), "#".repeat(1024 * 1024 + 1)).unwrap();
    for (file, line) in [
        ("missing.toml", "missing.toml: no such file\n"),
        (".", ".: this is a directory; name a file in it\n"),
        (
            "latin1.toml",
            "latin1.toml:2:3: this is not UTF-8 text; save the file as UTF-8\n",
        ),
        ("", "coracle: the configuration's file name is empty\n"),
        (
            "large.toml",
            "large.toml: larger than 1 MiB, so it is probably not a configuration\n",
        ),
    ] {
        let output = coracle(dir.path(), &["check", file]);
        assert_eq!(told(&output), (Some(1), "", line));
    }
}

#[test]
fn check_reads_standard_input() {
    let dir = TempDir::new().unwrap();
    for (name, text) in [("valid", GOOD), ("invalid", "foo = 1\n"), ("latin1", "")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    fs::write(dir.path().join("latin1"), b"\xe9").unwrap();
    for (name, code, start) in [
        ("valid", 0, "<stdin>: OK: 1 entrypoint, 1 service\n"),
        ("invalid", 1, "<stdin>:1:1: unknown key `foo`"),
        ("latin1", 1, "<stdin>:1:1: this is not UTF-8 text"),
    ] {
        let mut command = Command::new(support::process::binary());
        command.stdin(fs::File::open(dir.path().join(name)).unwrap());
        let output = command.args(["check", "-"]).output().unwrap();
        let (status, out, err) = told(&output);
        assert_eq!(status, Some(code), "{out}{err}");
        assert!(format!("{out}{err}").starts_with(start), "{out}{err}");
    }
}

#[test]
fn version_needs_no_command() {
    let dir = TempDir::new().unwrap();
    for flag in ["--version", "-V", "version"] {
        let output = coracle(dir.path(), &[flag]);
        let (code, out, err) = told(&output);
        assert_eq!((code, err), (Some(0), ""));
        let start = concat!("coracle ", env!("CARGO_PKG_VERSION"), " (");
        assert!(out.starts_with(start) && out.contains("-linux-"), "{out}");
    }
}

#[test]
fn help_ends_with_an_example() {
    let dir = TempDir::new().unwrap();
    for command in [
        "", "run", "check", "list", "audit", "reload", "demo", "version",
    ] {
        for flag in ["-h", "--help"] {
            let arguments: Vec<_> = [command, flag]
                .into_iter()
                .filter(|it| !it.is_empty())
                .collect();
            let output = coracle(dir.path(), &arguments);
            let (code, out, _) = told(&output);
            assert_eq!(code, Some(0));
            let (_, examples) = out.split_once("Examples:\n").unwrap();
            assert!(examples.contains(&format!("coracle {command}")), "{out}");
            let by_help = coracle(dir.path(), &["help", command][..arguments.len()]);
            assert_eq!(by_help.stdout, output.stdout);
        }
    }
}

#[test]
fn closed_stdout_does_not_panic() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["--nonsense"], 1),
    ] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(support::process::binary());
        let output = command.args(arguments).stdout(closed).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!said.contains("panic"), "{said}");
    }
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut command = Command::new(support::process::binary());
    let output = command.arg("--help").stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("coracle: stdout: No space left on device"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn without_arguments_the_most_useful_commands_are_shown() {
    let dir = TempDir::new().unwrap();
    let output = coracle(dir.path(), &[]);
    let (code, out, err) = told(&output);
    assert_eq!((code, out), (Some(1), ""));
    assert!(
        err.contains("coracle demo") && err.contains("coracle run -L"),
        "{err}"
    );
}

#[test]
fn a_bad_forward_is_rejected_with_an_example() {
    let dir = TempDir::new().unwrap();
    let output = coracle(dir.path(), &["run", "-L", "80:x"]);
    let (code, _, err) = told(&output);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("coracle: -L 80:x: "), "{err}");
    assert!(err.contains("the port to connect to is missing"), "{err}");
    assert!(err.contains("8080:192.168.1.10:80"), "{err}");
}

#[test]
fn misuse_is_reported_with_a_suggestion_and_the_help_of_the_command() {
    let dir = TempDir::new().unwrap();
    for (arguments, expected) in [
        (
            &["rnu"][..],
            "coracle: there is no command `rnu`; did you mean `run`?\nRun `coracle --help` for help.\n",
        ),
        (
            &["run", "--acces-log"],
            "coracle: there is no option `--acces-log`; did you mean `--access-log`?\nRun `coracle run --help` for help.\n",
        ),
        (
            &["help", "lst"],
            "coracle: there is no command `lst`; did you mean `list`?\nRun `coracle --help` for help.\n",
        ),
        (
            &["check"],
            "coracle: an argument is missing: coracle check FILE\nRun `coracle check --help` for help.\n",
        ),
        (
            &["demo", "--listen=80"],
            "coracle: --listen 80: not an IP address and a port; write one such as 127.0.0.1:8080\nRun `coracle demo --help` for help.\n",
        ),
    ] {
        let output = coracle(dir.path(), arguments);
        assert_eq!(told(&output), (Some(1), "", expected));
    }
}

#[test]
fn values_may_be_attached_to_options() {
    let dir = TempDir::new().unwrap();
    // Nothing listens there, and the message shows which address was asked.
    for arguments in [
        &["audit", "--admin=127.0.0.1:1"][..],
        &["list", "--admin", "127.0.0.1:1"],
    ] {
        let (code, _, err) = owned(&coracle(dir.path(), arguments));
        assert_eq!(code, Some(1));
        assert!(
            err.starts_with("coracle: no coracle is running at 127.0.0.1:1"),
            "{err}"
        );
    }
    let (_, _, err) = owned(&coracle(dir.path(), &["run", "-L80:x"]));
    assert!(err.starts_with("coracle: -L 80:x: "), "{err}");
}

#[test]
fn demo_needs_two_addresses() {
    let dir = TempDir::new().unwrap();
    let arguments = ["demo", "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:1"];
    let expected = "coracle: --listen and --admin are the same address; choose another\n";
    assert_eq!(
        told(&coracle(dir.path(), &arguments)),
        (Some(1), "", expected)
    );
}

#[test]
fn list_shows_who_is_connected_and_how_much_has_passed() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let mut client = TcpStream::connect(coracle.address("web")).unwrap();
    client.write_all(&[0; 2048]).unwrap();
    let (mut served, _) = server.accept().unwrap();
    served.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    served.read_exact(&mut [0; 2048]).unwrap();
    served.write_all(b"seven b").unwrap();
    client.read_exact(&mut [0; 7]).unwrap();

    let admin = coracle.admin.to_string();
    let dir = TempDir::new().unwrap();
    let list = |flag: &[&str]| {
        let output = self::coracle(dir.path(), &[&["list", "--admin", &admin], flag].concat());
        let (code, out, err) = owned(&output);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        out
    };
    let table = list(&[]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines[0].starts_with("ID") && lines[0].ends_with("TO SERVER  TO CLIENT  STATE"),
        "{table}"
    );
    let peer = client.local_addr().unwrap().to_string();
    for cell in [&peer, "web", &to.to_string(), "relaying", "2.0 KiB", "7 B"] {
        assert!(lines[1].contains(&format!(" {cell}")), "{cell}: {table}");
    }
    let json = list(&["--json"]);
    for field in [
        format!("\"peer\":\"{peer}\""),
        "\"entrypoint\":\"web\"".to_owned(),
        "\"service\":\"web\"".to_owned(),
        "\"to_server_bytes\":2048".to_owned(),
        "\"to_client_bytes\":7".to_owned(),
    ] {
        assert!(json.contains(&field), "{field}: {json}");
    }
    drop((client, served));
    support::until("it has left the list", || {
        (list(&[]).lines().count() == 1).then_some(())
    });
}

#[test]
fn control_characters_on_the_command_line_do_not_reach_the_terminal() {
    let dir = TempDir::new().unwrap();
    let esc = "8\u{1b}[31m\n:h:1";
    for arguments in [
        &["run", "-L", esc][..],
        &["run", "--admin", esc],
        &["run", "-c", esc],
        &["run", esc],
        &["check", esc],
        &["audit", "--admin", esc],
        &["list", "--admin", esc],
        &["help", esc],
        &["reload", "--socket", esc],
        &["reload", esc],
        &["reload", "--dry-run", esc],
        &["demo", "--listen", esc],
        &["demo", "--admin", esc],
        &[esc],
    ] {
        let output = coracle(dir.path(), arguments);
        let (code, out, err) = told(&output);
        assert_eq!((code, out), (Some(1), ""));
        assert!(err.contains("8\\u{1b}[31m\\n:h:1"), "{err:?}");
        assert!(!err.contains('\u{1b}'), "{err:?}");
    }
}

#[test]
fn run_reports_the_errors_of_the_file_it_found() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("coracle.toml"), "foo = 1\n").unwrap();
    let output = coracle(dir.path(), &["run"]);
    let (code, _, err) = told(&output);
    assert_eq!(code, Some(1));
    assert!(
        err.starts_with("./coracle.toml:1:1: unknown key `foo`"),
        "{err}"
    );
}

fn coracle(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(support::process::binary());
    command.current_dir(directory).args(arguments);
    command.output().unwrap()
}

fn owned(output: &Output) -> (Option<i32>, String, String) {
    let (code, out, err) = told(output);
    (code, out.to_owned(), err.to_owned())
}

fn told(output: &Output) -> (Option<i32>, &str, &str) {
    let out = str::from_utf8(&output.stdout).unwrap();
    let err = str::from_utf8(&output.stderr).unwrap();
    (output.status.code(), out, err)
}
