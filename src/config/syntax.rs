//! Mistakes in the TOML itself, told in the words of a person who writes configurations.

use std::collections::{BTreeSet, HashSet};

use toml::de::Error;

use super::diagnostic::{Collector, Span, shown};

/// What the mistakes in the syntax leave of a text that can still be read with meaning.
#[derive(Default)]
pub(super) struct Damage {
    /// Lines with a mistake in the syntax.
    lines: BTreeSet<usize>,
    /// The first line after which a value may belong to another table than it was meant for.
    torn_from: Option<usize>,
}

impl Damage {
    /// Reports every mistake in the syntax, the first one of each line: further ones follow from it.
    pub(super) fn report(errors: &[Error], text: &str, out: &mut Collector<'_>) -> Self {
        let mut damage = Self::default();
        let mut errors: Vec<_> = errors
            .iter()
            .map(|error| (error.message(), span_of(error, text)))
            .collect();
        // What never closes takes the rest of the text in, where nothing is as it should be then.
        let never_closes = |(message, _): &(&str, Span)| {
            message.starts_with("unclosed array, ") || message.starts_with("unclosed inline table")
        };
        let is_open = errors.iter().any(never_closes);
        // What needs quotes explains the other mistakes of its line.
        errors.sort_by_key(|(message, span)| {
            (
                out.line(span.start),
                is_open || !is_bare(message),
                span.start,
            )
        });
        let mut seen = HashSet::new();
        for (message, span) in errors {
            let line = out.line(span.start);
            if is_open && damage.torn_from.is_some_and(|torn| torn < line) {
                break;
            }
            // A line may have many, and of each kind the first is enough.
            if !seen.insert((line, message)) {
                continue;
            }
            let told = Told::of(message, span, text, out.line_span(line));
            if told.tears {
                damage.torn_from.get_or_insert(line);
            }
            if damage.lines.insert(line) {
                out.report(Some(told.at), told.why);
            }
        }
        damage
    }

    pub(super) fn is_none(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether what was read from this line means what it says.
    pub(super) fn spares(&self, line: usize) -> bool {
        !self.lines.contains(&line) && self.torn_from.is_none_or(|torn| line < torn)
    }
}

fn span_of(error: &Error, text: &str) -> Span {
    match error.span() {
        // The end of the text is not where it was forgotten, but its start.
        Some(span) if error.message().starts_with("invalid multi-line") => {
            let quotes = if error.message().contains("basic") {
                "\"\"\""
            } else {
                "'''"
            };
            let before = text.get(..span.start).unwrap_or(text);
            let start = before.rfind(quotes).unwrap_or(span.start);
            start..start + quotes.len()
        }
        // Something is missing at the end: point behind the last text, not to the empty line after it.
        Some(span) if span.start >= text.len() => {
            let end = text.trim_end().len();
            end..end
        }
        Some(span) => span,
        // Only a key of too many parts comes without a place.
        None => {
            let dots = |line: &&str| line.matches('.').count() >= 80;
            let line = text.lines().find(dots).unwrap_or_default();
            let start = line.as_ptr() as usize - text.as_ptr() as usize;
            if line.is_empty() {
                0..0
            } else {
                start..start + line.len()
            }
        }
    }
}

/// Whether a value may be bare text that needs quotes.
fn is_bare(message: &str) -> bool {
    const BARE: [&str; 6] = [
        "string values must be quoted",
        "invalid float",
        "invalid integer",
        "invalid boolean",
        "invalid date",
        "invalid time",
    ];
    BARE.iter().any(|bare| message.starts_with(bare))
}

/// A mistake in the words of a person who writes configurations.
struct Told {
    why: String,
    at: Span,
    /// Whether what follows may be read otherwise than it was meant.
    tears: bool,
}

impl Told {
    fn of(message: &str, span: Span, text: &str, line: Span) -> Self {
        if let Some(told) = Self::of_value(&span, text, &line) {
            return told;
        }
        let says = shown(text.get(span.clone()).unwrap_or_default());
        let whole_line = text[line.clone()].trim();
        let is_header = whole_line.starts_with('[') || whole_line.ends_with(']');
        let is_key_value = whole_line.contains('=') || is_header;
        let is_key =
            message.starts_with("key with no") || message.starts_with("invalid unquoted key");
        let kept = |why: String| (why, span.clone(), false);
        let tears = |why: &str| (why.to_owned(), span.clone(), true);
        let (why, at, tears) = match message {
            "duplicate key" => kept(format!("`{says}` is set twice; keep one of them")),
            "recursion limit" => tears("this key has too many parts"),
            "invalid basic string, expected `\"`" => {
                kept("the text is not closed; add `\"`".into())
            }
            "invalid literal string, expected `'`" => {
                kept("the text is not closed; add `'`".into())
            }
            _ if message.starts_with("string values must") => {
                kept(format!("text stands in quotes; write \"{says}\""))
            }
            _ if message.starts_with("invalid multi-line") => {
                tears("the text is not closed; add the same three quotes behind it")
            }
            _ if message.starts_with("cannot recurse") => {
                tears("arrays or tables are nested too deeply")
            }
            _ if message.starts_with("missing comma between array") => {
                tears("expected `,` or `]` before this")
            }
            _ if message.starts_with("key with no value") && is_header => {
                let name = shown(whole_line.trim_matches(['[', ']']));
                let why = format!("the name of a table stands in brackets; write [{name}]");
                (why, line, true)
            }
            _ if is_key && !is_key_value => ("expected KEY = VALUE".into(), line, false),
            _ if is_bare(message) || message.contains("escape") => kept(message.to_owned()),
            _ => tears(message),
        };
        Self { why, at, tears }
    }

    /// A value without quotes, or none at all: the mistakes that are made most.
    fn of_value(span: &Span, text: &str, line: &Span) -> Option<Self> {
        let (key, value) = text[line.clone()].split_once('=')?;
        if span.start <= line.start + key.len() || key.contains('#') {
            return None;
        }
        let start = line.end - value.trim_start().len();
        let value = value.split(" #").next()?.trim();
        let is_address = (value.starts_with("[::") || value.contains("]:")) && !value.contains('"');
        let is_open = value.starts_with(['"', '\'', '[', '{']) && !is_address;
        let (why, at) = if value.is_empty() {
            let why = format!("`{}` has no value", shown(key.trim()));
            (why, line.start..line.start + key.trim_end().len())
        } else if is_open || value.contains(['=', '"', '\'', ',']) {
            return None;
        } else {
            let why = format!("text stands in quotes; write \"{}\"", shown(value));
            (why, start..start + value.len())
        };
        let tears = false;
        Some(Self { why, at, tears })
    }
}
