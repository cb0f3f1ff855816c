//! Where a setting was written: in the file, on the command line, or nowhere.

use super::diagnostic::{Collector, Span, shown};

/// Where a setting was written.
#[derive(Clone)]
pub(super) enum Origin {
    /// In the file.
    File(Span),
    /// On the command line, with this flag.
    Flag(String),
    /// Nowhere.
    Default,
}

/// Formats the origin of the other one of two conflicting settings, to follow its name.
pub(super) fn told_place(origin: &Origin, out: &Collector<'_>) -> String {
    match origin {
        Origin::File(span) => format!(" (line {})", out.line(span.start)),
        Origin::Flag(flag) => format!(" ({})", shown(flag)),
        Origin::Default => " (by default)".to_owned(),
    }
}

/// Reports an error at its origin.
pub(super) fn report(out: &mut Collector<'_>, origin: &Origin, why: &str) {
    let (span, why) = at(origin, why);
    out.report(span, why);
}

/// Reports a warning at its origin.
pub(super) fn warn(out: &mut Collector<'_>, origin: &Origin, why: &str) {
    let (span, why) = at(origin, why);
    out.warn(span, why);
}

/// Returns the place in the file, or puts the flag in front of the message.
fn at(origin: &Origin, why: &str) -> (Option<Span>, String) {
    match origin {
        Origin::File(span) => (Some(span.clone()), why.to_owned()),
        Origin::Flag(flag) => (None, format!("{}: {why}", shown(flag))),
        Origin::Default => (None, why.to_owned()),
    }
}
