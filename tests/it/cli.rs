//! The program from outside: exit codes and what is printed.
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support;

const GOOD: &str = "[entrypoints.a]\nlisten = \"127.0.0.1:80\"\nto = \"h:1\"\n";

#[test]
fn check_accepts_a_good_file() {
    let dir = TempDir::new().unwrap();
    let text = format!(
        "{GOOD}[entrypoints.b]\nlisten = \":81\"\nservice = \"a2\"\n[services.a2]\nservers = [\"h:2\"]\n"
    );
    fs::write(dir.path().join("c.toml"), text).unwrap();
    let output = coracle(dir.path(), &["check", "c.toml"]);
    assert_eq!(
        told(&output),
        (Some(0), "c.toml: good: 2 entrypoints, 2 services\n", "")
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
         |\n{line} | [services.web]\n  |           ^^^\n\n1 warning\n\nc.toml: good: 1 entrypoint, 2 services\n"
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
fn check_tells_every_mistake() {
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
fn check_says_in_a_line_why_a_file_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("latin1.toml"), b"a = 1\n# \xe9\n").unwrap();
    fs::write(dir.path().join("large.toml"), "#".repeat(1024 * 1024 + 1)).unwrap();
    for (file, line) in [
        ("missing.toml", "missing.toml: there is no such file\n"),
        (".", ".: this is a directory; name the file in it\n"),
        ("latin1.toml", "latin1.toml: line 2 is not UTF-8 text\n"),
        (
            "large.toml",
            "large.toml: the file is larger than 1 MiB, so it is hardly a configuration\n",
        ),
    ] {
        let output = coracle(dir.path(), &["check", file]);
        assert_eq!(told(&output), (Some(1), "", line));
    }
}

#[test]
fn version_needs_no_command() {
    let dir = TempDir::new().unwrap();
    for flag in ["--version", "-V"] {
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
    for command in ["", "run", "check", "audit", "reload", "demo"] {
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
        }
    }
}

#[test]
fn an_answer_that_nobody_reads_is_no_panic() {
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
fn without_arguments_the_useful_commands_are_told() {
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
fn a_bad_forward_is_refused_with_an_example() {
    let dir = TempDir::new().unwrap();
    let output = coracle(dir.path(), &["run", "-L", "80:x"]);
    let (code, _, err) = told(&output);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("the port to connect to is missing") && err.contains("8080:192.168.1.10:80"),
        "{err}"
    );
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
fn run_tells_the_mistakes_of_the_file_it_found() {
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

fn told(output: &Output) -> (Option<i32>, &str, &str) {
    let out = str::from_utf8(&output.stdout).unwrap();
    let err = str::from_utf8(&output.stderr).unwrap();
    (output.status.code(), out, err)
}
