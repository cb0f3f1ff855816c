//! Reads the documents' Markdown: their links, headings, tables and fenced blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::sources::root;

pub fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// README.md and the pages: what is written for users.
pub fn manual() -> Vec<PathBuf> {
    let mut files = pages();
    files.push("README.md".into());
    files
}

pub fn pages() -> Vec<PathBuf> {
    let files = markdown_files().into_iter();
    files.filter(|file| file.starts_with("docs")).collect()
}

/// All Markdown files of the repository, relative to its root.
pub fn markdown_files() -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // Those that are made, and git's own; of the hidden ones, only the forge's are documents.
            let is_foreign = matches!(name, "target" | "dist" | ".git");
            if path.is_dir() && !path.is_symlink() && !is_foreign {
                walk(&path, files);
            } else if path.extension().is_some_and(|it| it == "md") {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let mut files = Vec::new();
    walk(root(), &mut files);
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    files
}

/// Why a relative link of a file leads nowhere.
pub fn why_broken(file: &Path, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => file.to_owned(),
        _ => file.parent().unwrap().join(path),
    };
    let target = root().join(target);
    if !target.exists() {
        return Some("there is no such file".to_owned());
    }
    if anchor.is_empty() || target.extension().is_none_or(|it| it != "md") {
        return None;
    }
    let anchors = anchors(&fs::read_to_string(target).unwrap());
    (!anchors.contains(anchor)).then(|| format!("no such heading; there are {anchors:?}"))
}

/// The targets of all links and pictures outside of code.
pub fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let prose = prose(text).join("\n");
    // The odd ones are code.
    let plain: Vec<_> = prose.split('`').step_by(2).collect();
    // Code is a word like any other here: `](` may stand right behind it.
    let plain = plain.join("x");
    for rest in plain.split("](").skip(1) {
        let target = rest.split(')').next().unwrap();
        links.push(target.trim_matches(['<', '>']).to_owned());
    }
    links
}

/// The lines outside of fenced blocks.
pub fn prose(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    };
    text.lines().filter(is_prose).collect()
}

/// The fenced blocks of one language, each line with its end.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(found) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let body = lines
            .by_ref()
            .take_while(|line| line.trim() != "```")
            .fold(String::new(), |body, line| body + line + "\n");
        if found == language {
            blocks.push(body);
        }
    }
    blocks
}

pub fn headings(text: &str) -> Vec<String> {
    let lines = prose(text).into_iter();
    let headings = lines.filter_map(|line| {
        let title = line.trim_start_matches('#');
        let is_heading = title.len() < line.len() && title.starts_with(' ');
        is_heading.then(|| title.trim().to_owned())
    });
    headings.collect()
}

/// The anchors that a forge makes of the headings: in lower case, without punctuation, with `-` for
/// each space; a further one of the same text gets a number.
pub fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for heading in headings(text) {
        // Of a link, the text shows.
        let shown: String = heading
            .split("](")
            .enumerate()
            .map(|(n, part)| match part.split_once(')') {
                Some((_, rest)) if n > 0 => rest,
                _ => part,
            })
            .collect();
        let slug: String = shown
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let n = seen.entry(slug.clone()).or_default();
        anchors.insert(match *n {
            0 => slug,
            n => format!("{slug}-{n}"),
        });
        *n += 1;
    }
    anchors
}

/// What stands below a heading, to the next one.
pub fn section(text: &str, heading: &str) -> String {
    let mut fenced = false;
    let mut inside = false;
    let mut found = false;
    let mut body = String::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == heading;
            found |= inside;
        } else if inside {
            body += line;
            body.push('\n');
        }
    }
    assert!(found, "there is no heading {heading}");
    body
}

/// The rows of all tables, without their heads.
pub fn rows(text: &str) -> Vec<Vec<String>> {
    tables(text)
        .into_iter()
        .flat_map(|(_, rows)| rows)
        .collect()
}

/// The rows of the tables whose first column has this head.
pub fn rows_headed(text: &str, head: &str) -> Vec<Vec<String>> {
    let tables = tables(text).into_iter();
    tables
        .filter(|(heads, _)| heads[0] == head)
        .flat_map(|(_, rows)| rows)
        .collect()
}

/// The tables: their heads and their rows.
fn tables(text: &str) -> Vec<(Vec<String>, Vec<Vec<String>>)> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().replace("\\|", "\0");
        let inner = line.trim_start_matches('|').trim_end_matches('|');
        let cells = inner.split('|');
        cells.map(|cell| cell.trim().replace('\0', "|")).collect()
    };
    let mut tables = Vec::new();
    let mut lines = prose(text).into_iter().peekable();
    while let Some(head) = lines.next() {
        let is_head = head.starts_with('|') && lines.peek().is_some_and(|it| it.starts_with("|--"));
        if is_head {
            let rows = std::iter::from_fn(|| lines.next_if(|line| line.starts_with('|')));
            tables.push((cells(head), rows.skip(1).map(cells).collect()));
        }
    }
    tables
}

/// The code spans of a line.
pub fn codes(text: &str) -> Vec<String> {
    let odd = text.split('`').skip(1).step_by(2);
    odd.map(str::to_owned).collect()
}
