//! Mistakes in the TOML itself, told in the words of a person who writes configurations.

use std::collections::BTreeSet;

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
        errors.sort_by_key(|(message, span)| (out.line(span.start), !is_bare(message), span.start));
        for (message, span) in errors {
            let line = out.line(span.start);
            if is_open && damage.torn_from.is_some_and(|torn| torn < line) {
                break;
            }
            let (told, at) = told(message, span, text, &out.line_span(line));
            if !is_contained(message) && told.as_ref().is_none_or(|told| told == OPEN) {
                damage.torn_from.get_or_insert(line);
            }
            if damage.lines.insert(line) {
                out.report(Some(at), told.unwrap_or_else(|| message.to_owned()));
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

/// Whether a mistake stays in its line: what follows is read as if it were not there.
fn is_contained(message: &str) -> bool {
    let in_string = message.contains("escape") || message.contains("basic string");
    let in_key = message == "duplicate key" || message.starts_with("cannot extend");
    let multi_line = message.contains("multi-line");
    (is_bare(message) || in_string || in_key || message.contains("literal string")) && !multi_line
}

const OPEN: &str = "expected `,` or `]` before this";

/// A better text and place for the mistakes that people make, where there is one.
fn told(message: &str, span: Span, text: &str, line: &Span) -> (Option<String>, Span) {
    let at = text.get(span.clone()).unwrap_or_default();
    let key_value = text[line.clone()].split_once('=');
    if let Some((key, value)) = key_value
        && span.start > line.start + key.len()
        && !key.trim_start().starts_with('#')
    {
        let start = line.end - value.trim_start().len();
        let value = value.split(" #").next().unwrap_or_default().trim();
        let place = start..start + value.len();
        let key = key.trim();
        if value.is_empty() || value.starts_with('#') {
            let told = format!("`{}` has no value", shown(key));
            return (Some(told), line.start..line.start + key.len());
        }
        let is_address = (value.starts_with("[::") || value.contains("]:")) && !value.contains('"');
        let is_open = value.starts_with(['"', '\'', '[', '{']) && !is_address;
        if !is_open && !value.contains(['=', '"', '\'', ',']) {
            let told = format!("text stands in quotes; write \"{}\"", shown(value));
            return (Some(told), place);
        }
    }
    let whole_line = text[line.clone()].trim();
    let is_key = message.starts_with("key with no") || message.starts_with("invalid unquoted key");
    if is_key && key_value.is_none() && !whole_line.starts_with('[') && !whole_line.ends_with(']') {
        let why = "expected KEY = VALUE".to_owned();
        return (Some(why), line.clone());
    }
    let told = match message {
        _ if message.starts_with("missing comma between array") => OPEN.to_owned(),
        "duplicate key" => format!("`{}` is set twice; keep one of them", shown(at)),
        "recursion limit" => "this key has too many parts".to_owned(),
        _ if message.starts_with("cannot recurse") => {
            "arrays or tables are nested too deeply".to_owned()
        }
        _ if message.starts_with("string values must be quoted") => {
            format!("text stands in quotes; write \"{}\"", shown(at))
        }
        "invalid basic string, expected `\"`" => "the text is not closed; add `\"`".to_owned(),
        "invalid literal string, expected `'`" => "the text is not closed; add `'`".to_owned(),
        _ => return (None, span),
    };
    (Some(told), span)
}
