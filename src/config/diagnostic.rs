//! Collects errors and warnings by byte span, and prints them with line, column and carets.

use std::fmt;
use std::ops::Range;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// An error in one piece of text: one sentence that says what is wrong and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake(pub(super) String);

/// Returns `message` as an error.
pub(super) fn wrong<T>(message: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake(message.into()))
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// Every error in a configuration, or every warning about it, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// Whether these are errors or warnings.
    pub severity: Severity,
    /// The file's name as given, or `command line`.
    pub file: String,
    /// The diagnostics to print; at least one and at most [`Diagnostics::MAX_TOLD`].
    pub told: Vec<Diagnostic>,
    /// How many more there are.
    pub untold: usize,
}

/// Whether a configuration can be used despite a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Mistake,
    /// The configuration can be used, but is probably not what its author wants.
    Warning,
}

impl Severity {
    /// Returns the prefix of each message.
    fn prefix(self) -> &'static str {
        match self {
            Self::Mistake => "",
            Self::Warning => "warning: ",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Mistake => "error",
            Self::Warning => "warning",
        }
    }
}

impl Diagnostics {
    /// The maximum number of diagnostics that are printed; the rest are only counted.
    pub const MAX_TOLD: usize = 100;
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where it is; `None` if it concerns the whole configuration or the command line.
    pub location: Option<Location>,
    /// What is wrong and how to fix it.
    pub message: String,
}

/// A place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The part of the line around this place, safe to print to a terminal.
    excerpt: String,
    /// The underline's offset in the excerpt and its length, in terminal columns.
    underline: (usize, usize),
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.severity.prefix();
        for diagnostic in &self.told {
            let Diagnostic { location, message } = diagnostic;
            let Some(location) = location else {
                writeln!(f, "{}: {prefix}{message}\n", self.file)?;
                continue;
            };
            let Location { line, column, .. } = location;
            let (indent, length) = location.underline;
            let gutter = line.to_string().len();
            writeln!(f, "{}:{line}:{column}: {prefix}{message}", self.file)?;
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{line} | {}", location.excerpt)?;
            writeln!(f, "{:gutter$} | {:indent$}{:^<length$}\n", "", "", "")?;
        }
        if self.untold > 0 {
            writeln!(f, "and {} more\n", self.untold)?;
        }
        f.write_str(&count(self.told.len() + self.untold, self.severity.noun()))
    }
}

impl std::error::Error for Diagnostics {}

/// Formats a count with its noun: `1 error`, `2 errors`.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A range of bytes in the text.
pub(super) type Span = Range<usize>;

/// Collects errors and warnings while a text is read.
pub(super) struct Collector<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    mistakes: Vec<Found>,
    warnings: Vec<Found>,
}

/// A message and where it belongs.
type Found = (Option<Span>, String);

impl<'t> Collector<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            line_starts: std::iter::once(0).chain(newlines).collect(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Adds an error.
    pub(super) fn report(&mut self, span: Option<Span>, message: impl Into<String>) {
        self.mistakes.push((span, message.into()));
    }

    /// Adds a warning about a setting that is valid but probably unintended.
    pub(super) fn warn(&mut self, span: Option<Span>, message: impl Into<String>) {
        self.warnings.push((span, message.into()));
    }

    /// Returns `true` if there are no errors.
    pub(super) fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Adds the errors and warnings of `other`, a collector of the same text, in lines that `keep`
    /// accepts.
    pub(super) fn append(&mut self, mut other: Self, keep: impl Fn(usize) -> bool) {
        // At 0..0 are the values that the parser made up for missing ones.
        let place = |span: &Span| *span != (0..0) && keep(self.line(span.start));
        let is_kept = |(span, _): &Found| span.as_ref().is_none_or(place);
        other.mistakes.retain(is_kept);
        other.warnings.retain(is_kept);
        self.mistakes.append(&mut other.mistakes);
        self.warnings.append(&mut other.warnings);
    }

    /// Returns the number of the line that contains `at`, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// Returns the span of line number `line`, without its line ending.
    pub(super) fn line_span(&self, line: usize) -> Span {
        let start = self.line_starts[line - 1];
        let end = self
            .line_starts
            .get(line)
            .map_or(self.text.len(), |next| next - 1);
        let line = &self.text[start..end];
        start..start + line.trim_end_matches('\r').len()
    }

    /// Returns the errors in the order of the text, those without a place last.
    pub(super) fn finish(mut self, file: &str) -> Diagnostics {
        let found = std::mem::take(&mut self.mistakes);
        self.diagnostics(Severity::Mistake, file, found)
    }

    /// Returns the warnings in the order of the text, if there are any.
    pub(super) fn into_warnings(mut self, file: &str) -> Option<Diagnostics> {
        let found = std::mem::take(&mut self.warnings);
        (!found.is_empty()).then(|| self.diagnostics(Severity::Warning, file, found))
    }

    fn diagnostics(&self, severity: Severity, file: &str, mut found: Vec<Found>) -> Diagnostics {
        let last = self.text.len() + 1;
        found.sort_by_key(|(span, _)| span.as_ref().map_or(last, |span| span.start));
        let untold = found.len().saturating_sub(Diagnostics::MAX_TOLD);
        found.truncate(Diagnostics::MAX_TOLD);
        let told = found.into_iter().map(|(span, message)| Diagnostic {
            location: span.map(|span| self.location(span)),
            message,
        });
        Diagnostics {
            severity,
            file: shown(file),
            told: told.collect(),
            untold,
        }
    }
}

/// How many characters of a long line are shown before a place. Up to twice as many follow it.
const AROUND: usize = 60;

impl Collector<'_> {
    fn location(&self, span: Span) -> Location {
        let start = char_start(self.text, span.start);
        let line = self.line(start);
        let Span {
            start: line_start,
            end,
        } = self.line_span(line);
        let start = start.min(end);
        let marked_end = char_start(self.text, span.end).clamp(start, end);
        let before = &self.text[line_start..start];
        let column = before.chars().count() + 1;

        let skipped = column.saturating_sub(1 + AROUND);
        let mut excerpt = String::from(if skipped > 0 { "…" } else { "" });
        excerpt.extend(before.chars().skip(skipped).flat_map(visible));
        let marked = self.text[start..marked_end].chars().take(2 * AROUND);
        let marked: String = marked.flat_map(visible).collect();
        // A combining character is in the column of the one before it.
        let combines = marked.chars().next().is_some_and(|c| c.width() == Some(0));
        let indent = excerpt.width().saturating_sub(usize::from(combines));
        let length = marked.width().max(1);
        let mut after = self.text[start..end].chars();
        excerpt.extend(after.by_ref().take(2 * AROUND).flat_map(visible));
        if after.next().is_some() {
            excerpt.push('…');
        }
        Location {
            line,
            column,
            excerpt,
            underline: (indent, length),
        }
    }
}

/// Returns the start of the character at or before byte `at`.
fn char_start(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Makes a character fit to underline: a tab becomes four spaces, an invisible character �.
fn visible(c: char) -> impl Iterator<Item = char> {
    let (c, n) = match c {
        '\t' => (' ', 4),
        // Terminals differ in whether such a character takes up a column.
        c if is_unprintable(c) || (c.width() == Some(0) && is_invisible(c)) => ('\u{fffd}', 1),
        c => (c, 1),
    };
    std::iter::repeat_n(c, n)
}

/// Returns whether a character shows nothing and combines with nothing. U+200D and U+FE0F, which
/// join emoji, do not count.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

/// Returns whether a character is a control character, separates lines or changes the direction
/// of text.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prepares text for quoting in a message: cuts long text and escapes control characters.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => printable(&text[..end]) + "…",
        None => printable(text),
    }
}

/// Escapes control and invisible characters, so that a terminal shows the first instead of obeying
/// them, and a reader sees the others.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_unprintable(c) || is_invisible(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// A name as it stands in a table's header: in quotes if it needs them.
pub(super) fn in_header(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(is_bare) {
        true => shown(name),
        false => format!("\"{}\"", shown(name)),
    }
}

/// Returns `; did you mean ...?` with the nearest of `known`, or an empty string if none is near.
#[must_use]
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    match nearest(word, known) {
        Some(known) => format!("; did you mean `{}`?", shown(known)),
        None => String::new(),
    }
}

/// Returns the nearest of `known`, if at most a third of the word's letters (at least one) differ.
/// Ignores case and `-` in place of `_`.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// Limits beyond what a person writes: longer words and lists would take too long to compare.
    const MAX_BYTES: usize = 256;
    const MAX_KNOWN: usize = 256;
    if word.len() > MAX_BYTES {
        return None;
    }
    let plain = |word: &str| word.to_lowercase().replace('-', "_");
    let wanted = plain(word);
    let most = (wanted.chars().count() / 3).max(1);
    let known = known.into_iter().take(MAX_KNOWN);
    let distances = known.map(|known| (strsim::osa_distance(&wanted, &plain(known)), known));
    let near = distances.filter(|(distance, known)| *distance <= most && *known != word);
    Some(near.min_by_key(|(distance, _)| *distance)?.1)
}
