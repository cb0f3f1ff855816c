//! The configurations in tests/config: beside each stands what `coracle check` prints for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::binary;
use crate::support::sources::root;

const FOLDER: &str = "tests/config";

/// Rewrites the expected outputs instead of comparing them.
const REWRITE: &str = "CORACLE_REWRITE_CASES";

// The comparison is our own because it is exact to the byte. The snapshot crate snapbox takes the
// line ends of Windows for those of Unix, which is a difference that some of these cases are about.
#[test]
fn check_prints_what_stands_beside_each_configuration() {
    let rewrite = std::env::var_os(REWRITE).is_some();
    let mut stale = String::new();
    let mut left_over = files();
    for config in configurations() {
        let (stream, printed) = check(&config);
        let beside = config.with_extension(stream);
        left_over.remove(&config);
        left_over.remove(&beside);
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if printed == expected {
            continue;
        }
        if rewrite {
            fs::write(&beside, &printed).unwrap();
        }
        let name = beside.strip_prefix(root()).unwrap().display();
        stale += &format!("{name}:\n{}", diff(&expected, &printed));
    }
    for path in left_over {
        if rewrite {
            fs::remove_file(&path).unwrap();
        }
        let name = path.strip_prefix(root()).unwrap().display();
        stale += &format!("{name}: check prints nothing for it\n");
    }
    assert!(
        rewrite || stale.is_empty(),
        "{stale}Are the new outputs right? Then run the test with {REWRITE}=1."
    );
}

/// The configurations, sorted by name.
pub(crate) fn configurations() -> Vec<PathBuf> {
    let is_config = |path: &PathBuf| path.extension().is_some_and(|it| it == "toml");
    let configurations: Vec<_> = files().into_iter().filter(is_config).collect();
    assert!(configurations.len() > 200, "{}", configurations.len());
    configurations
}

fn files() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(root().join(FOLDER)).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What `coracle check` prints, and where: errors go to stderr, all else to stdout.
fn check(config: &Path) -> (&'static str, String) {
    let mut command = Command::new(binary());
    let name = config.strip_prefix(root()).unwrap();
    command.current_dir(root()).arg("check").arg(name);
    let output = command.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    match output.status.code() {
        Some(0) if err.is_empty() => ("stdout", out),
        Some(1) if out.is_empty() => ("stderr", err),
        code => panic!("{}: exit code {code:?}\n{out}{err}", name.display()),
    }
}

/// The lines that differ, without those before and behind them that are the same.
fn diff(expected: &str, printed: &str) -> String {
    let [old, new] = [expected, printed].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let before = old.iter().zip(&new).take_while(|(old, new)| old == new);
    let before = before.count();
    let (old, new) = (&old[before..], &new[before..]);
    let behind = old.iter().rev().zip(new.iter().rev());
    let behind = behind.take_while(|(old, new)| old == new).count();
    let mut lines = String::new();
    for (sign, side) in [('-', old), ('+', new)] {
        for line in &side[..side.len() - behind] {
            let line = line.trim_end_matches('\n').replace('\r', "\\r");
            lines += &format!("{sign}{line}\n");
        }
    }
    lines
}
