//! Where a setting was written: in the file, on the command line, or nowhere.

use super::diagnostic::{Collector, Span, shown};

/// Where something was written.
#[derive(Clone)]
pub(super) enum Origin {
    /// In the file.
    File(Span),
    /// On the command line, by this flag.
    Flag(String),
    /// Nowhere.
    Default,
}

/// Where the other one of two is, to be put behind its name.
pub(super) fn told_place(origin: &Origin, out: &Collector<'_>) -> String {
    match origin {
        Origin::File(span) => format!(" (line {})", out.line(span.start)),
        Origin::Flag(flag) => format!(" ({})", shown(flag)),
        Origin::Default => " (by default)".to_owned(),
    }
}

/// Reports a mistake at its origin.
pub(super) fn report(out: &mut Collector<'_>, origin: &Origin, why: &str) {
    let (span, why) = at(origin, why);
    out.report(span, why);
}

/// Warns of something at its origin.
pub(super) fn warn(out: &mut Collector<'_>, origin: &Origin, why: &str) {
    let (span, why) = at(origin, why);
    out.warn(span, why);
}

/// The place in the file, or the flag in front of the message.
fn at(origin: &Origin, why: &str) -> (Option<Span>, String) {
    match origin {
        Origin::File(span) => (Some(span.clone()), why.to_owned()),
        Origin::Flag(flag) => (None, format!("{}: {why}", shown(flag))),
        Origin::Default => (None, why.to_owned()),
    }
}
