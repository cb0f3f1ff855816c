//! Reports errors in the TOML syntax in words for people who write configurations.

use std::collections::HashSet;

use toml::de::Error;

use super::diagnostic::{Collector, Span, shown};
use super::value::boolean_for;

/// The keys whose value is true or false.
const BOOLEANS: [&str; 6] = [
    "watch",
    "access",
    "reuse_port",
    "fast_open",
    "only_v6",
    "transparent",
];

/// The lines of a text that syntax errors make unreliable.
#[derive(Default)]
pub(super) struct Damage {
    /// Lines with a syntax error.
    lines: HashSet<usize>,
    /// The first line after which a value may end up in a table other than the intended one.
    torn_from: Option<usize>,
}

/// The kinds of parser errors that are handled separately here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    OpenBasic,
    OpenLiteral,
    OpenMultiline(&'static str),
    OpenHeader,
    Control,
    Unquoted,
    /// A value that may be a string without quotes.
    Bare,
    Twice,
    LongKey,
    Deep,
    NoComma,
    NoValue,
    BadKey,
    Behind,
    Escape,
    /// Any other error: its message is passed on, and the text after it is not trusted.
    Other,
}

/// The prefixes of the parser's messages.
///
/// The wording is not part of the parser's interface and may change in any version. A message
/// without a known prefix is [`Kind::Other`]. A test below reports the prefixes that are gone.
const TEXTS: &[(&str, Kind)] = &[
    ("unclosed array, ", Kind::Open),
    ("unclosed inline table", Kind::Open),
    ("invalid basic string, expected `\"`", Kind::OpenBasic),
    ("invalid literal string, expected `'`", Kind::OpenLiteral),
    ("invalid basic string, expected non-", Kind::Control),
    ("invalid literal string, expected non-", Kind::Control),
    ("invalid multi-line basic", Kind::OpenMultiline("\"\"\"")),
    ("invalid multi-line literal", Kind::OpenMultiline("'''")),
    ("unclosed table, ", Kind::OpenHeader),
    ("string values must", Kind::Unquoted),
    ("invalid float", Kind::Bare),
    ("invalid integer", Kind::Bare),
    ("invalid boolean", Kind::Bare),
    ("invalid date", Kind::Bare),
    ("invalid time", Kind::Bare),
    ("duplicate key", Kind::Twice),
    ("recursion limit", Kind::LongKey),
    ("cannot recurse", Kind::Deep),
    ("missing comma between array", Kind::NoComma),
    ("key with no value", Kind::NoValue),
    ("invalid unquoted key", Kind::BadKey),
    ("invalid key-value pair", Kind::BadKey),
    ("unexpected key or value", Kind::Behind),
    ("missing escaped value", Kind::Escape),
];

impl Kind {
    fn of(message: &str) -> Self {
        let known = TEXTS.iter().find(|(text, _)| message.starts_with(text));
        known.map_or(Self::Other, |(_, kind)| *kind)
    }

    /// Returns whether the value may be a string without quotes.
    fn is_bare(self) -> bool {
        matches!(self, Self::Bare | Self::Unquoted)
    }
}

impl Damage {
    /// Reports the first syntax error in each line; others in the line usually follow from it.
    pub(super) fn report(errors: &[Error], text: &str, out: &mut Collector<'_>) -> Self {
        let errors = errors.iter().map(|error| (error.message(), error.span()));
        Self::report_all(errors, text, out)
    }

    fn report_all<'e>(
        errors: impl Iterator<Item = (&'e str, Option<Span>)>,
        text: &str,
        out: &mut Collector<'_>,
    ) -> Self {
        let mut damage = Self::default();
        let mut errors: Vec<_> = errors
            .map(|(message, span)| (message, place(Kind::of(message), span, text)))
            .collect();
        // An array or table that is never closed swallows the rest of the text, so nothing after
        // it can be trusted.
        let is_open = errors
            .iter()
            .any(|(message, _)| Kind::of(message) == Kind::Open);
        // A string without quotes explains the other errors in its line.
        errors.sort_by_key(|(message, span)| {
            (
                out.line(span.start),
                is_open || !Kind::of(message).is_bare(),
                span.start,
            )
        });
        let mut seen = HashSet::new();
        for (message, span) in errors {
            let line = out.line(span.start);
            if is_open && damage.torn_from.is_some_and(|torn| torn < line) {
                break;
            }
            // A line may have many errors; the first of each kind is enough.
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

    /// Returns whether values read from this line can be trusted.
    pub(super) fn spares(&self, line: usize) -> bool {
        !self.lines.contains(&line) && self.torn_from.is_none_or(|torn| line < torn)
    }
}

fn place(kind: Kind, span: Option<Span>, text: &str) -> Span {
    match (span, kind) {
        // The parser points to the end of the text; the opening quotes are more useful.
        (Some(span), Kind::OpenMultiline(quotes)) => {
            let before = text.get(..span.start).unwrap_or(text);
            let start = before.rfind(quotes).unwrap_or(span.start);
            start..start + quotes.len()
        }
        // Something is missing at the end: point after the last text, not to the empty line that
        // follows.
        (Some(span), _) if span.start >= text.len() => {
            let end = text.trim_end().len();
            end..end
        }
        (Some(span), _) => span,
        // Only a key with too many parts comes without a place.
        (None, _) => {
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

/// A syntax error as it is reported.
struct Told {
    why: String,
    at: Span,
    /// Whether the text that follows may be misread.
    tears: bool,
}

impl Told {
    fn of(message: &str, span: Span, text: &str, line: Span) -> Self {
        let line = trimmed(line, text);
        let is_comment = text[line.clone()].starts_with([';', '/']);
        if !is_comment && let Some(told) = Self::of_value(&span, text, &line) {
            return told;
        }
        if Kind::of(message).is_bare()
            && let Some(told) = Self::of_part(&span, text, &line)
        {
            return told;
        }
        let says = shown(text.get(span.clone()).unwrap_or_default());
        let whole_line = &text[line.clone()];
        let is_header = whole_line.starts_with('[') || whole_line.ends_with(']');
        let is_key_value = whole_line.contains('=') || is_header;
        let kept = |why: String| (why, span.clone(), false);
        let tears = |why: &str| (why.to_owned(), span.clone(), true);
        if whole_line.starts_with(';') || whole_line.starts_with("//") {
            let (why, tears) = ("comments start with `#`".to_owned(), false);
            return Self {
                why,
                at: line,
                tears,
            };
        }
        let (why, at, tears) = match Kind::of(message) {
            Kind::Twice => kept(format!("`{says}` is set twice; keep one of them")),
            Kind::LongKey => tears("this key has too many parts"),
            Kind::OpenBasic => kept("unterminated string; add `\"`".into()),
            Kind::OpenLiteral => kept("unterminated string; add `'`".into()),
            Kind::Control => kept("a control character is not allowed here; remove it".into()),
            Kind::OpenHeader if span.start < line.end => {
                tears("expected `]` before this; names with spaces must be in quotes")
            }
            Kind::OpenHeader => tears("the line has no closing bracket; add `]`"),
            Kind::Escape => kept("unknown escape; write `\\\\` for a backslash".into()),
            Kind::OpenMultiline(_) => {
                tears("unterminated string; add the same three quotes at its end")
            }
            Kind::Deep => tears("arrays or tables are nested too deeply"),
            Kind::NoComma => tears("expected `,` or `]` before this"),
            Kind::NoValue if is_header => {
                let name = shown(whole_line.trim_matches(['[', ']']));
                let why = format!("table names must be in brackets; write [{name}]");
                (why, line, true)
            }
            Kind::NoValue | Kind::BadKey if !is_key_value => {
                ("expected KEY = VALUE".into(), line, false)
            }
            Kind::NoValue => tears("expected `=` before this; keys have no spaces"),
            Kind::Behind => tears("expected the end of the line here; each key needs its own line"),
            Kind::Bare | Kind::Unquoted => kept(message.to_owned()),
            Kind::Open | Kind::BadKey | Kind::Other => tears(message),
        };
        Self { why, at, tears }
    }

    /// Recognizes a value that lacks quotes or is missing, the most common errors.
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
        } else if BOOLEANS.contains(&last_part(key)) {
            let why = format!("expected a boolean; write {}", boolean_for(value));
            (why, start..start + value.len())
        } else if is_open || value.contains(['=', '"', '\'', ',']) {
            return None;
        } else {
            let bare = value.trim_matches(['“', '”', '„', '‘', '’', '«', '»']);
            let with = if bare == value { "" } else { " with `\"`" };
            let why = format!("strings must be quoted{with}; write \"{}\"", shown(bare));
            (why, start..start + value.len())
        };
        let tears = false;
        Some(Self { why, at, tears })
    }

    /// A text without quotes in an array or an inline table.
    fn of_part(span: &Span, text: &str, line: &Span) -> Option<Self> {
        let is_end = |c: char| c.is_ascii_whitespace() || "[]{},=\"'".contains(c);
        let before = text.get(line.start..span.start)?;
        let start = before
            .rfind(is_end)
            .map_or(line.start, |at| line.start + at + 1);
        let behind = text.get(span.start..line.end)?;
        let end = behind.find(is_end).map_or(line.end, |at| span.start + at);
        let part = text.get(start..end).filter(|part| !part.is_empty())?;
        let key = text[line.start..start].trim_end().strip_suffix('=');
        let key = key.map_or("", |before| {
            before.trim_end().rsplit(is_end).next().unwrap_or("")
        });
        let why = match BOOLEANS.contains(&last_part(key)) {
            true => format!("expected a boolean; write {}", boolean_for(part)),
            false => format!("strings must be quoted; write \"{}\"", shown(part)),
        };
        let (at, tears) = (start..end, false);
        Some(Self { why, at, tears })
    }
}

/// `span` without white space at its ends.
fn trimmed(span: Span, text: &str) -> Span {
    let part = &text[span.clone()];
    let start = span.end - part.trim_start().len();
    start..start + part.trim().len()
}

/// The last part of a key with dots.
fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    /// For each prefix in `TEXTS`, a configuration that provokes it.
    const SAMPLES: &[&str] = &[
        "a = [1\n",
        "a = { b = 1\n",
        "a = \"b\n",
        "a = 'b\n",
        "a = \"\u{1}\"\n",
        "a = '\u{1}'\n",
        "a = \"\"\"b\n",
        "a = '''b\n",
        "[a\n",
        "a = b\n",
        "a = 1.5x\n",
        "a = 0d1x\n",
        "a = trux\n",
        "a = 2026-01-01x\n",
        "a = 25:00:00\n",
        "a = 1\na = 2\n",
        LONG_KEY,
        DEEP,
        "a = [\"1\" \"2\"]\n",
        "a\n",
        "a&b = 1\n",
        "{\n",
        "a = \"1\",\n",
        "a = \"\\q\"\n",
    ];
    const LONG_KEY: &str = "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.\
        a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a = 1\n";
    const DEEP: &str = "a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n";

    #[test]
    fn parser_still_uses_every_known_prefix() {
        assert_eq!(SAMPLES.len(), TEXTS.len());
        let mut gone = Vec::new();
        for (sample, (text, _)) in SAMPLES.iter().zip(TEXTS) {
            let (_, errors) = DeTable::parse_recoverable(sample);
            let messages: Vec<_> = errors.iter().map(Error::message).collect();
            if !messages.iter().any(|message| message.starts_with(text)) {
                gone.push(format!("{text:?} is not among {messages:?}, of {sample:?}"));
            }
        }
        assert!(gone.is_empty(), "{gone:#?}");
    }

    /// Simulates a later version of the parser with different wording.
    #[test]
    fn unknown_parser_message_is_passed_on_with_its_place() {
        for sample in SAMPLES {
            let (_, errors) = DeTable::parse_recoverable(sample);
            for error in &errors {
                let message = format!("in other words: {}", error.message());
                let mut out = Collector::new(sample);
                let error = std::iter::once((message.as_str(), error.span()));
                let damage = Damage::report_all(error, sample, &mut out);
                assert!(!damage.is_none(), "{sample:?}");
                let told = out.finish("t").told.remove(0);
                // A value that lacks quotes or is missing is recognized without the message.
                let is_own = ["strings must be quoted", "`a` has no value"];
                let is_own = is_own.iter().any(|own| told.message.starts_with(own));
                assert!(
                    told.message == message || is_own,
                    "{sample:?}: {}",
                    told.message
                );
                assert!(told.location.is_some(), "{sample:?}");
            }
        }
    }
}
