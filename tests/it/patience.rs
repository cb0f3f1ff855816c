//! Tests prove what happens, not how fast: none compares elapsed time, and none sleeps when it
//! could wait for an event.

use std::path::{Path, PathBuf};

/// Ways to measure elapsed time, to sleep, or to limit how long something may take.
const TIME: [&str; 7] = [
    ".elapsed()",
    "duration_since(",
    "Instant::now() <",
    "Instant::now() >",
    "thread::sleep(",
    "recv_timeout(",
    "timeout(Some(Duration::",
];

/// How often a file may use one, and why the test still does not depend on speed.
const ALLOWED: &[(&str, &str, usize, &str)] = &[
    (
        "support/mod.rs",
        "Instant::now() <",
        1,
        "the deadline of all tests, which only ends tests that hang",
    ),
    (
        "support/mod.rs",
        "thread::sleep(",
        1,
        "between two probes, in the one place where tests poll",
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
        "rest is no event; the test compares CPU time, which load does not add to",
    ),
    ("it/health.rs", "recv_timeout(", 1, "the same deadline"),
    ("it/reload.rs", "recv_timeout(", 1, "the same deadline"),
    (
        "reload_oracle/main.rs",
        ".elapsed()",
        1,
        "the speed is only printed",
    ),
    (
        "it/reload.rs",
        "thread::sleep(",
        2,
        "an unwatched file and half a write that is ignored are no events; a slow machine may miss a fault but reports no false one",
    ),
    (
        "it/reload.rs",
        ".elapsed()",
        1,
        "a write that takes longer than the program waits for it is tried again",
    ),
    (
        "support/manager.rs",
        "thread::sleep(",
        1,
        "a deliberately slow service manager",
    ),
    (
        "support/backend.rs",
        "thread::sleep(",
        1,
        "a deliberately late response",
    ),
    (
        "it/audit_address.rs",
        "thread::sleep(",
        1,
        "a server that drips forever, deliberately",
    ),
    (
        "it/compat.rs",
        "duration_since(",
        1,
        "the time of day, which the program reports",
    ),
    (
        "process.rs",
        "duration_since(",
        1,
        "the time of day, which the program reports",
    ),
    (
        "it/descriptors.rs",
        ".elapsed()",
        1,
        "a line may repeat each second: more time allows more lines",
    ),
    (
        "faults.rs",
        ".elapsed()",
        1,
        "a fault that lasts, however much of it a slow machine sees",
    ),
    (
        "faults.rs",
        "thread::sleep(",
        1,
        "between two checks of how long it has lasted",
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
        "rest is no event; one span after another is checked for it",
    ),
    (
        "support/faults/traffic.rs",
        "thread::sleep(",
        2,
        "between failing attempts, to spare the machine",
    ),
    (
        "it/agreement.rs",
        "thread::sleep(",
        1,
        "between two refused writes, until many in a row were refused",
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
        "a slow reader, a client that pauses between messages, and suspensions of the process beyond its timeouts",
    ),
    (
        "it/reactor.rs",
        "thread::sleep(",
        3,
        "a slow reader, a slow sender, and a thread that wakes the loop early or late",
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
        "wait for an event with support::until, or explain in {} why none exists: {wrong:#?}",
        file!()
    );
}

#[test]
fn scan_finds_what_it_looks_for() {
    let code = "// begun.elapsed() < limit\nassert!(begun.elapsed() < limit);\nx.elapsed() + y.elapsed()\n";
    assert_eq!(uses(code, ".elapsed()"), 3);
    assert_eq!(uses(code, "thread::sleep("), 0);
}

/// How often the code contains `what`, comments excluded.
fn uses(text: &str, what: &str) -> usize {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let lines = text.lines().filter(is_code);
    lines.map(|line| line.matches(what).count()).sum()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// All test files except this one.
fn files() -> Vec<PathBuf> {
    let folders =
        ["", "it", "reload_oracle", "support", "support/faults"].map(|name| folder().join(name));
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
