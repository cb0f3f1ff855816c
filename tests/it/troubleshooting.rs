//! docs/troubleshooting.md quotes messages as the sources have them, and has every warning and error
//! that is logged, and every misuse of the command line.

use crate::support::sources::{root, sources};

/// The words that stand for a format argument on the page.
const PLACEHOLDERS: &[&str] = &[
    "ADDRESS", "CAUSE", "ERROR", "FILE", "HOW", "IP", "KEY", "LIMIT", "N", "NAME", "PORT", "TEXT",
];

/// Stands for any argument, in messages of both sides.
const ARGUMENT: char = '\u{0}';

#[test]
fn every_quoted_message_is_in_the_sources() {
    let literals: Vec<_> = sources()
        .iter()
        .flat_map(|(_, code)| literals(code))
        .map(|literal| pattern(&literal.text))
        .collect();
    let unknown: Vec<_> = quoted()
        .into_iter()
        .filter(|message| {
            !literals
                .iter()
                .any(|literal| is_in(&pattern(message), literal))
        })
        .collect();
    assert!(
        unknown.is_empty(),
        "docs/troubleshooting.md quotes what no source says: {unknown:#?}"
    );
}

#[test]
fn every_logged_warning_and_error_is_quoted() {
    let quoted: Vec<_> = quoted().iter().map(|message| pattern(message)).collect();
    let mut missing = Vec::new();
    let mut found = 0;
    for (path, code) in sources() {
        for literal in literals(&code) {
            // Without words of its own, or one word: a target or the text of somebody else.
            let is_message = literal.text.contains(' ') && letters(&pattern(&literal.text)) >= 4;
            if literal.is_logged && is_message {
                found += 1;
                let literal_pattern = pattern(&literal.text);
                if !quoted.iter().any(|it| is_in(it, &literal_pattern)) {
                    missing.push(format!("{}: {}", path.display(), literal.text));
                }
            }
        }
    }
    assert!(found > 20, "only {found} found");
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md does not explain: {missing:#?}"
    );
}

#[test]
fn every_misuse_of_the_command_line_is_quoted() {
    /// What follows a message.
    const ADVICE: [&str; 2] = ["did you mean", "the commands are"];
    let quoted: Vec<_> = quoted().iter().map(|message| pattern(message)).collect();
    let sources = sources();
    let words = sources
        .iter()
        .find(|(path, _)| path.ends_with("cli/words.rs"));
    let literals = literals(&words.unwrap().1).into_iter();
    let messages = literals
        .map(|literal| pattern(&literal.text))
        .filter(|message| message.contains(' ') && letters(message) >= 9)
        .filter(|message| {
            let text = message.trim_start_matches("; ");
            !ADVICE.iter().any(|advice| text.starts_with(advice))
        });
    let messages: Vec<_> = messages.collect();
    assert_eq!(messages.len(), 6, "{messages:?}");
    for message in messages {
        assert!(
            quoted.iter().any(|it| is_in(it, &message)),
            "docs/troubleshooting.md does not explain: {message}"
        );
    }
}

#[test]
fn a_made_up_message_is_found_out() {
    let known = pattern("dial: no server reached within {limit} (dial_timeout)");
    assert!(is_in(
        &pattern("dial: no server reached within LIMIT"),
        &known
    ));
    assert!(!is_in(
        &pattern("dial: no server found within LIMIT"),
        &known
    ));
    assert!(!is_in(&pattern("TEXT"), &known));
    let code = "// \"comment\"\nlog::warn!(a; \"one \\\n    {two}\"); f('\"', b\"{{three\");";
    let found = literals(code);
    let texts: Vec<_> = found.iter().map(|literal| literal.text.as_str()).collect();
    assert_eq!(texts, ["one {two}", "{{three"]);
    assert!(found[0].is_logged && !found[1].is_logged);
    assert_eq!(pattern("{{three {x:?}"), "{three \u{0}");
}

/// Whether a message is a part of a literal. A short one has to be all of it.
fn is_in(message: &str, literal: &str) -> bool {
    match letters(message) {
        0 => false,
        1..9 => message == literal,
        _ => literal.contains(message),
    }
}

fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphabetic()).count()
}

/// A message with its placeholders and format arguments replaced by [`ARGUMENT`].
fn pattern(text: &str) -> String {
    let mut pattern = String::new();
    // Two that follow each other read as one.
    let argument = |pattern: &mut String| {
        if !pattern.ends_with(ARGUMENT) {
            pattern.push(ARGUMENT);
        }
    };
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let word_end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let taken = if rest.starts_with("{{") || rest.starts_with("}}") {
            pattern.push(first);
            2
        } else if first == '{' {
            argument(&mut pattern);
            rest.find('}').map_or(rest.len(), |at| at + 1)
        } else if word_end == 0 {
            pattern.push(first);
            first.len_utf8()
        } else {
            match &rest[..word_end] {
                word if PLACEHOLDERS.contains(&word) => argument(&mut pattern),
                word => pattern.push_str(word),
            }
            word_end
        };
        rest = &rest[taken..];
    }
    pattern
}

/// The messages in the first column of the tables that have one of that name.
fn quoted() -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let mut messages = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        inside = line.starts_with("| message |") || (inside && line.starts_with('|'));
        let Some(cell) = line.strip_prefix("| `").filter(|_| inside) else {
            continue;
        };
        let message = match cell.strip_prefix("` ") {
            Some(cell) => cell.split_once(" ``"),
            None => cell.split_once('`'),
        };
        messages.push(message.expect("the end of the message").0.to_owned());
    }
    assert!(messages.len() > 100, "only {} found", messages.len());
    messages
}

struct Literal {
    text: String,
    /// It stands in `log::warn!` or `log::error!`.
    is_logged: bool,
}

/// The string literals of a source, comments left out.
fn literals(code: &str) -> Vec<Literal> {
    let mut literals = Vec::new();
    let mut rest = code;
    let mut depth = 0_usize;
    // The depth of brackets at which the call began that logs.
    let mut logs_at = None;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            '/' if rest.starts_with("//") => taken = rest.find('\n').unwrap_or(rest.len()),
            'l' if rest.starts_with("log::warn!(") || rest.starts_with("log::error!(") => {
                logs_at = logs_at.or(Some(depth));
            }
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                logs_at = logs_at.filter(|at| depth > *at);
            }
            '\'' => taken = char_end(rest),
            '"' => {
                let (text, end) = string(&rest[1..]);
                taken = end + 1;
                let is_logged = logs_at.is_some();
                literals.push(Literal { text, is_logged });
            }
            _ => {}
        }
        rest = &rest[taken..];
    }
    literals
}

/// The length of a character literal, or of the quote of a lifetime.
fn char_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped)), _) => {
            let from = at + escaped.len_utf8();
            text[from..]
                .find('\'')
                .map_or(text.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\'')), _) => at + 1,
        _ => 1,
    }
}

/// A literal from behind its first quote, and where what follows it begins.
fn string(text: &str) -> (String, usize) {
    let mut literal = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (literal, at + 1),
            '\\' => match chars.next() {
                // A line that goes on: the break and the indentation are no part of it.
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, 'n')) => literal.push('\n'),
                Some((_, escaped)) => literal.push(escaped),
                None => {}
            },
            c => literal.push(c),
        }
    }
    panic!("a string has no end: {text:.80}")
}
