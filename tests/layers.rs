//! The layers hold: imports point down, no circle of files inside a layer, each library in its one place, unsafe only in `sys/`.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each layer with those that it may import, as in ARCHITECTURE.md. What stands beside them (main, cli, ...) may import all.
const LAYERS: &[(&str, &[&str])] = &[
    ("proxy", &["admin", "conn", "net", "state", "config", "sys"]),
    ("admin", &["state", "sys"]),
    ("conn", &["net", "state", "config", "sys"]),
    ("net", &["state", "sys"]),
    ("state", &[]),
    ("config", &[]),
    ("sys", &[]),
];

/// Each library with the one place that may use it.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("argh", &["cli", "main"]),
    ("async_net", &["admin"]),
    ("serde_json", &["admin", "audit"]),
    ("async_signal", &["main"]),
    ("http_types", &["admin"]),
    ("httparse", &["admin"]),
    ("libc", &["sys"]),
    ("prometheus", &["admin"]),
    ("socket2", &["net"]),
    ("strsim", &["config"]),
    ("toml", &["config"]),
];

struct File {
    /// Such as `state/conns`; a layer's `mod.rs` is `state`.
    module: String,
    layer: String,
    /// It is a folder's `mod.rs`.
    is_mod: bool,
    code: String,
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for file in files() {
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == file.layer) else {
            continue;
        };
        for target in paths(&file.code, "crate") {
            if target != file.layer && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{} imports {target}", file.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_of_a_layer_import_each_other_in_a_circle() {
    let files = files();
    let modules: BTreeSet<&str> = files.iter().map(|file| file.module.as_str()).collect();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in &files {
        let targets = imports.entry(&file.module).or_default();
        if file.is_mod {
            // What a mod.rs declares and uses lies below it; re-exporting alone is no use.
            let uses = |module: &&&str| {
                let Some(child) = module.strip_prefix(&format!("{}/", file.module)) else {
                    return false;
                };
                let code = without_re_exports(&file.code);
                code.contains(&format!("{child}::")) || code.contains(&format!("use {child}"))
            };
            targets.extend(modules.iter().filter(uses));
        }
        let Some((parent, _)) = file.module.rsplit_once('/') else {
            continue;
        };
        let siblings = paths(&file.code, "super").into_iter();
        let own = paths(&file.code, &format!("crate::{}", file.layer));
        for name in siblings.chain(own) {
            let sibling = format!("{parent}/{name}");
            // Whatever is no sibling stands in the folder's mod.rs.
            let target = modules.get(sibling.as_str()).unwrap_or(&parent).to_owned();
            // A macro names its own file in full.
            if target != file.module {
                targets.insert(modules.get(target).unwrap());
            }
        }
    }
    for start in imports.keys() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&str> = imports[start].iter().copied().collect();
        while let Some(module) = next.pop() {
            assert!(module != *start, "{start} is in a circle of imports");
            if seen.insert(module) {
                next.extend(&imports[module]);
            }
        }
    }
}

#[test]
fn each_library_has_its_one_place_and_unsafe_has_sys() {
    let mut wrong = Vec::new();
    for file in files() {
        for (library, places) in LIBRARIES {
            let used = file.code.contains(&format!("{library}::"));
            if used && !places.contains(&file.layer.as_str()) {
                wrong.push(format!("{} uses {library}", file.module));
            }
        }
        let has_unsafe = file.code.contains("unsafe ") || file.code.contains("allow(unsafe");
        if has_unsafe && file.layer != "sys" {
            wrong.push(format!("{} is unsafe", file.module));
        }
        for banned in ["smol::spawn", "async_std", "tokio"] {
            if file.code.contains(banned) {
                wrong.push(format!("{} uses {banned}", file.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn architecture_names_every_unsafe_block() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let row = text.lines().find(|line| line.starts_with("| `sys/` |"));
    let row = row.unwrap();
    for file in files() {
        let blocks = file.code.matches("unsafe {").count();
        if blocks > 0 {
            let name = file.module.strip_prefix("sys/").unwrap();
            let named = [
                format!("`{name}.rs` ({blocks})"),
                format!("`{name}.rs` ({blocks} block)"),
            ];
            assert!(
                named.iter().any(|named| row.contains(named)),
                "{}: {blocks}",
                file.module
            );
        }
    }
    let said: usize = row
        .split('(')
        .filter_map(|part| part.split([' ', ')']).next()?.parse::<usize>().ok())
        .sum();
    let code: String = files().into_iter().map(|file| file.code).collect();
    assert_eq!(said, code.matches("unsafe {").count(), "{row}");
}

#[test]
fn tokio_is_not_in_the_tree() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(!lock.contains("name = \"tokio\""));
}

#[test]
fn the_scan_finds_what_it_looks_for() {
    let code =
        "use crate::state::{A, b::C};\nuse crate::{admin, net::{X, Y}, sys};\nsuper::dial::dial();";
    let found: Vec<_> = paths(code, "crate").into_iter().collect();
    assert_eq!(found, ["admin", "net", "state", "sys"]);
    let found: Vec<_> = paths(code, "super").into_iter().collect();
    assert_eq!(found, ["dial"]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(file(&path));
            }
        }
    }
    assert!(files.len() > 20, "only {} files found", files.len());
    files
}

fn file(path: &Path) -> File {
    let inside = path
        .strip_prefix(root().join("src"))
        .unwrap()
        .with_extension("");
    let module = inside.to_str().unwrap();
    let is_mod = module.ends_with("/mod");
    let module = module.strip_suffix("/mod").unwrap_or(module).to_owned();
    let text = std::fs::read_to_string(path).unwrap();
    // Unit tests stand last in a file, and may import what they like.
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    File {
        layer: module.split('/').next().unwrap().to_owned(),
        module,
        is_mod,
        code: code.lines().filter(is_code).collect::<Vec<_>>().join("\n"),
    }
}

/// The first segments of all paths after `root::`, those in braces too.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + root.len() + 2..];
        let Some(braced) = rest.strip_prefix('{') else {
            found.insert(first_word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in braced.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.insert(first_word(&braced[start..i]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(first_word(&braced[start..i]));
                    start = i + 1;
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

fn first_word(text: &str) -> String {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    text[..end.unwrap_or(text.len())].to_owned()
}

fn without_re_exports(code: &str) -> String {
    let statements = code
        .split(';')
        .filter(|part| !part.trim_start().starts_with("pub use"));
    statements.collect::<Vec<_>>().join(";")
}
