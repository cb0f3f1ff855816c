//! The layers hold: imports point down, no import cycles, each library in one place, unsafe only in
//! `sys/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::sources::{root, sources};

/// Each layer with the layers it may import, as in ARCHITECTURE.md. Anything beside them (main,
/// commands, ...) may import all.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "proxy",
        &[
            "admin", "conn", "net", "state", "config", "sys", "wire", "logging",
        ],
    ),
    ("admin", &["state", "sys"]),
    ("conn", &["net", "state", "config", "sys", "wire"]),
    ("net", &["state", "sys"]),
    ("state", &["wire"]),
    ("config", &["state", "wire"]),
    ("sys", &[]),
    ("wire", &[]),
];

/// The floors within layers: each folder with the sibling folders it may import. Files beside them
/// lie below all floors; the layer's `mod.rs` lies above.
const FLOORS: &[(&str, &[&str])] = &[
    (
        "net/probe",
        &["net/dial", "net/socket", "net/reactor", "net/buffers"],
    ),
    ("net/relay", &["net/socket", "net/reactor", "net/buffers"]),
    ("net/dial", &["net/socket", "net/reactor", "net/buffers"]),
    ("net/socket", &["net/reactor", "net/buffers"]),
    ("net/reactor", &["net/buffers"]),
    ("net/buffers", &[]),
    (
        "admin/http",
        &[
            "admin/metrics",
            "admin/agreement",
            "admin/api",
            "admin/page",
        ],
    ),
    ("admin/api", &[]),
    ("admin/page", &[]),
    ("admin/metrics", &["admin/agreement"]),
    ("admin/agreement", &[]),
];

/// Each library with the one place that may use it: a layer, a floor or a file.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("argh", &["cli", "main"]),
    ("serde_json", &["admin/json", "client"]),
    ("async_signal", &["commands/stops"]),
    ("http_types", &["admin/http"]),
    ("httparse", &["admin/http", "net/probe", "wire"]),
    ("libc", &["sys"]),
    ("prometheus", &["admin/metrics"]),
    ("regex_lite", &["config", "net/probe"]),
    ("socket2", &["net/socket", "net/buffers"]),
    ("strsim", &["cli", "config"]),
    ("toml", &["config"]),
    ("unicode_width", &["client/top", "config"]),
];

struct File {
    /// Such as `state/conns`; a layer's `mod.rs` is `state`.
    module: String,
    layer: String,
    /// Whether it is a folder's `mod.rs`.
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
        for path in paths(&file.code, "crate") {
            let target = first_word(&path);
            if target != file.layer && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{} imports {path}", file.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_between_floors_point_down() {
    let sources = Sources::read();
    let layers: BTreeSet<&str> = FLOORS.iter().map(|(floor, _)| parent(floor)).collect();
    let mut wrong = Vec::new();
    for file in &sources.files {
        if !layers.contains(file.layer.as_str()) || file.module == file.layer {
            continue;
        }
        let own = floor(&file.module);
        let allowed = match own {
            Some(own) => FLOORS.iter().find(|(floor, _)| *floor == own),
            // The file lies beside the floors.
            None => Some(&("", [].as_slice())),
        };
        let Some((_, allowed)) = allowed else {
            wrong.push(format!("{} is not on a known floor", file.module));
            continue;
        };
        for target in sources.imports(file) {
            let is_wrong = |to| Some(to) != own && !allowed.contains(&to);
            let goes_up = target == file.layer;
            if goes_up || target.starts_with(&file.layer) && floor(&target).is_some_and(is_wrong) {
                wrong.push(format!("{} imports {target}", file.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_import_cycles() {
    let sources = Sources::read();
    let imports: BTreeMap<&str, BTreeSet<String>> = sources
        .files
        .iter()
        .map(|file| (file.module.as_str(), sources.imports(file)))
        .collect();
    for start in imports.keys() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = imports[start].iter().collect();
        while let Some(module) = next.pop() {
            assert!(module != start, "{start} is in an import cycle");
            if seen.insert(module) {
                next.extend(imports.get(module.as_str()).into_iter().flatten());
            }
        }
    }
}

#[test]
fn each_library_is_used_in_one_place_and_unsafe_only_in_sys() {
    let mut wrong = Vec::new();
    for file in files() {
        for (library, places) in LIBRARIES {
            let used = file.code.contains(&format!("{library}::"));
            let is_in = |place: &&str| Path::new(&file.module).starts_with(place);
            if used && !places.iter().any(is_in) {
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
fn only_backoff_lets_pauses_grow() {
    let mut wrong = Vec::new();
    for file in files().iter().filter(|it| it.module != "state/backoff") {
        let lines = file.code.lines().filter(|line| doubles_a_pause(line));
        wrong.extend(lines.map(|line| format!("{}: {}", file.module, line.trim())));
    }
    assert!(wrong.is_empty(), "use state::Backoff: {wrong:#?}");
    assert!(doubles_a_pause("self.pause = (2 * self.pause).min(MOST);"));
    assert!(doubles_a_pause("pause *= 2;"));
    assert!(!doubles_a_pause(
        "const PAUSE: Duration = Duration::from_secs(2);"
    ));
}

/// Whether a line multiplies a pause.
fn doubles_a_pause(line: &str) -> bool {
    let line = line.to_lowercase();
    let multiplies = line.contains(" * ") || line.contains(" *= ") || line.contains("_mul(");
    line.contains("pause") && multiplies
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
fn tokio_is_not_a_dependency() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(!lock.contains("name = \"tokio\""));
}

#[test]
fn scan_finds_what_it_looks_for() {
    let code = "use crate::state::{A, b::C};\nuse crate::{admin, net::{X, Y}, sys};\ncrate::net::dial();\nnot_crate::x";
    let found: Vec<_> = paths(code, "crate").into_iter().collect();
    let expected = [
        "admin",
        "net/X",
        "net/Y",
        "net/dial",
        "state/A",
        "state/b/C",
        "sys",
    ];
    assert_eq!(found, expected);
    let found: Vec<_> = paths("super::super::dial::dial();", "super")
        .into_iter()
        .collect();
    assert_eq!(found, ["super/dial/dial"]);
}

#[test]
fn import_is_traced_through_re_exports() {
    let sources = Sources::read();
    let own = |path: &str| sources.owner("", path);
    assert_eq!(own("state/Guard/insert"), "state/conns");
    assert_eq!(own("state/Shared"), "state");
    assert_eq!(own("sys/sockets/Table"), "sys/sockets/socket_table");
}

fn files() -> Vec<File> {
    let sources = sources().into_iter();
    sources.map(|(path, code)| file(&path, &code)).collect()
}

fn file(path: &Path, code: &str) -> File {
    let inside = path
        .strip_prefix(root().join("src"))
        .unwrap()
        .with_extension("");
    let module = inside.to_str().unwrap();
    let is_mod = module.ends_with("/mod");
    let module = module.strip_suffix("/mod").unwrap_or(module).to_owned();
    // Unit tests may import anything, and are left out.
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    File {
        layer: module.split('/').next().unwrap().to_owned(),
        module,
        is_mod,
        code: code.lines().filter(is_code).collect::<Vec<_>>().join("\n"),
    }
}

/// All sources, with the re-exports of each folder's `mod.rs`.
struct Sources {
    files: Vec<File>,
    modules: BTreeSet<String>,
    /// Maps a module and a name in it to the path that the name stands for.
    re_exports: BTreeMap<(String, String), String>,
}

impl Sources {
    fn read() -> Self {
        let files = files();
        let modules = files.iter().map(|file| file.module.clone()).collect();
        let mut re_exports = BTreeMap::new();
        for file in files.iter().filter(|file| file.is_mod) {
            for statement in file.code.split(';').filter(|part| is_re_export(part)) {
                let (_, exported) = statement.split_once("use ").unwrap();
                let mut paths = BTreeSet::new();
                tree("", exported, &mut paths);
                for path in paths {
                    let name = path.rsplit('/').next().unwrap().to_owned();
                    re_exports.insert((file.module.clone(), name), path);
                }
            }
        }
        Self {
            files,
            modules,
            re_exports,
        }
    }

    /// The files that `file` imports from, followed through re-exports.
    fn imports(&self, file: &File) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for path in paths(&file.code, "crate") {
            found.insert(self.owner("", &path));
        }
        for path in paths(&file.code, "super") {
            let mut from = parent(&file.module);
            let mut path = path.as_str();
            while let Some(rest) = path.strip_prefix("super/") {
                (from, path) = (parent(from), rest);
            }
            found.insert(self.owner(from, path));
        }
        if file.is_mod {
            // What a `mod.rs` declares and uses lies below it; a mere re-export is not a use.
            let statements = file.code.split(';').filter(|part| !is_re_export(part));
            let code = statements.collect::<Vec<_>>().join(";");
            let children = self.modules.iter().filter(|module| {
                let Some(child) = module.strip_prefix(&format!("{}/", file.module)) else {
                    return false;
                };
                code.contains(&format!("{child}::")) || code.contains(&format!("use {child}"))
            });
            found.extend(children.cloned());
        }
        // The crate root lies above everything. A macro names its own file in full.
        found.remove("");
        found.remove(&file.module);
        found
    }

    /// The file that defines what `path` leads to, seen from the module `from`.
    fn owner(&self, from: &str, path: &str) -> String {
        let mut module = from.to_owned();
        let mut rest = path;
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('/').unwrap_or((rest, ""));
            let child = match module.as_str() {
                "" => name.to_owned(),
                module => format!("{module}/{name}"),
            };
            if self.modules.contains(&child) {
                (module, rest) = (child, behind);
            } else if let Some(path) = self.re_exports.get(&(module.clone(), name.to_owned())) {
                return self.owner(&module, path);
            } else {
                break;
            }
        }
        module
    }
}

/// The floor of a module, such as `net/socket` for `net/socket/stream` and for `net/socket` itself.
fn floor(module: &str) -> Option<&str> {
    let listed = FLOORS.iter().find(|(floor, _)| *floor == module);
    match parent(module) {
        _ if listed.is_some() => Some(module),
        folder if folder.contains('/') => floor(folder).or(Some(folder)),
        _ => None,
    }
}

/// The parent of `module`; the crate root is empty.
fn parent(module: &str) -> &str {
    module.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_re_export(statement: &str) -> bool {
    let statement = statement.trim_start();
    statement.starts_with("pub") && statement.lines().next().unwrap().contains(" use ")
}

/// All paths after `root::`, with slashes, and braces expanded.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        let before = code[..at].chars().next_back();
        // The scope of a `pub(in crate::net)` is not an import.
        let is_reach = code[..at].ends_with("pub(in ");
        if !is_reach && !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            tree("", &code[at + root.len() + 2..], &mut found);
        }
    }
    found
}

/// Adds the paths of a tree such as `a::{b, c::D}` to `found`. Returns the text after it.
fn tree<'a>(path: &str, text: &'a str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(inner) = text.strip_prefix('{') {
        let mut rest = inner.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = tree(path, rest, found).trim_start_matches([',', ' ', '\n']);
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let name = first_word(text);
    let rest = text[name.len()..].trim_start_matches('*');
    let path = [path, &name].map(str::to_owned).join("/");
    let path = path.trim_matches('/');
    match rest.strip_prefix("::") {
        Some(more) => tree(path, more, found),
        None => {
            found.insert(path.to_owned());
            rest
        }
    }
}

fn first_word(text: &str) -> String {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    text[..end.unwrap_or(text.len())].to_owned()
}
