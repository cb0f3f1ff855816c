//! Tests prove what happens, never how fast: none compares a time that has passed, and none waits for a time where it could wait for an
//! event.

use std::path::{Path, PathBuf};

/// Ways to ask how much time has passed, to wait for some, or to give something only so much of it.
const TIME: [&str; 7] = [
    ".elapsed()",
    "duration_since(",
    "Instant::now() <",
    "Instant::now() >",
    "thread::sleep(",
    "recv_timeout(",
    "timeout(Some(Duration::",
];

/// How often a file may do so, and why that depends on no speed.
const ALLOWED: &[(&str, &str, usize, &str)] = &[
    (
        "support/mod.rs",
        "Instant::now() <",
        1,
        "the deadline of all tests, which only ends those that hang",
    ),
    (
        "support/mod.rs",
        "thread::sleep(",
        1,
        "between two looks, in the one place where tests wait",
    ),
    (
        "support/process.rs",
        "recv_timeout(",
        1,
        "the same deadline",
    ),
    (
        "support/process.rs",
        "thread::sleep(",
        1,
        "rest is no event; CPU time is compared, to which load adds none",
    ),
    ("it/reload.rs", "recv_timeout(", 1, "the same deadline"),
    (
        "reload_oracle.rs",
        ".elapsed()",
        1,
        "how fast it was is printed and not looked at",
    ),
    (
        "it/reload.rs",
        "thread::sleep(",
        1,
        "that a file is not watched is no event; a slow machine may let a mistake pass and finds none that is not there",
    ),
    (
        "support/manager.rs",
        "thread::sleep(",
        1,
        "a service manager that is slow on purpose",
    ),
    (
        "support/backend.rs",
        "thread::sleep(",
        1,
        "an answer that is late on purpose",
    ),
    (
        "it/audit_address.rs",
        "thread::sleep(",
        1,
        "a server that drips on purpose, for ever",
    ),
    (
        "it/compat.rs",
        "duration_since(",
        1,
        "the time of day, which the program has to tell",
    ),
    (
        "process.rs",
        "duration_since(",
        1,
        "the time of day, which the program has to tell",
    ),
    (
        "it/descriptors.rs",
        ".elapsed()",
        1,
        "a line may repeat each second: more time allows more of them",
    ),
    (
        "faults.rs",
        ".elapsed()",
        1,
        "a fault that lasts, however much of it a slow machine meets",
    ),
    (
        "faults.rs",
        "thread::sleep(",
        1,
        "between two looks at how long it has lasted",
    ),
    (
        "support/faults/subject.rs",
        "recv_timeout(",
        1,
        "the deadline of all tests",
    ),
    (
        "support/faults/subject.rs",
        "thread::sleep(",
        1,
        "rest is no event; it is looked for in one span after another",
    ),
    (
        "support/faults/traffic.rs",
        "thread::sleep(",
        2,
        "between attempts that fail, so that they do not keep the machine busy",
    ),
    (
        "it/agreement.rs",
        "thread::sleep(",
        1,
        "between two writes that the kernel refuses, until it has refused many in a row",
    ),
    (
        "it/forwarding.rs",
        ".elapsed()",
        3,
        "a cut is right if the silence before it was as long as the timeout",
    ),
    (
        "it/forwarding.rs",
        "thread::sleep(",
        4,
        "a slow reader, and a client that pauses between two messages; pauses of the program that are longer than its timeouts",
    ),
    (
        "it/reactor.rs",
        "thread::sleep(",
        3,
        "a slow reader, a slow sender, and a thread that wakes the loop now or later",
    ),
];

#[test]
fn no_test_depends_on_speed() {
    let mut wrong = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(folder()).unwrap().to_str().unwrap();
        for what in TIME {
            let found = uses(&text, what);
            let allowed = ALLOWED.iter().find(|it| (it.0, it.1) == (name, what));
            let allowed = allowed.map_or(0, |it| it.2);
            if found > allowed {
                wrong.push(format!("{name}: {what} {found} times, {allowed} allowed"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "wait for an event with support::until, or say in {} why there is none: {wrong:#?}",
        file!()
    );
}

#[test]
fn the_scan_finds_what_it_looks_for() {
    let code = "// begun.elapsed() < limit\nassert!(begun.elapsed() < limit);\nx.elapsed() + y.elapsed()\n";
    assert_eq!(uses(code, ".elapsed()"), 3);
    assert_eq!(uses(code, "thread::sleep("), 0);
}

/// How often the code has it, without its comments.
fn uses(text: &str, what: &str) -> usize {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let lines = text.lines().filter(is_code);
    lines.map(|line| line.matches(what).count()).sum()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// All files of tests but this one.
fn files() -> Vec<PathBuf> {
    let folders = ["", "it", "support", "support/faults"].map(|name| folder().join(name));
    let entries = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_test = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name() != Path::new(file!()).file_name()
    };
    let files: Vec<_> = paths.filter(is_test).collect();
    assert!(files.len() > 20, "only {} files found", files.len());
    files
}
