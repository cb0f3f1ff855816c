//! The words for a choice, such as those of `on_removed`: one table each, to read and to print.

use super::diagnostic::{Mistake, nearest, shown, wrong};
use super::model::{
    AtLimit, AtQuota, Balance, HealthKind, OnDown, OnRemoved, QuotaPeriod, Resolve, SendProxy,
    WhenDown,
};
use crate::state::AtRefuse;

/// A choice between words.
pub(super) trait Keyword: Copy + PartialEq + 'static {
    /// Each word and what it stands for.
    const WORDS: &'static [(&'static str, Self)];
}

impl Keyword for OnRemoved {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep", Self::Keep),
        ("drain", Self::Drain),
        ("close", Self::Close),
    ];
}

impl Keyword for AtLimit {
    const WORDS: &'static [(&'static str, Self)] =
        &[("wait", Self::Wait), ("refuse", Self::Refuse)];
}

impl Keyword for AtQuota {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("log", Self::Log),
        ("slow", Self::Slow),
        ("refuse", Self::Refuse),
    ];
}

impl Keyword for QuotaPeriod {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
    ];
}

impl Keyword for AtRefuse {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("reset", Self::Reset),
        ("drop", Self::Drop),
        ("close", Self::Close),
    ];
}

impl Keyword for Balance {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round_robin", Self::RoundRobin),
        ("least_connections", Self::LeastConnections),
        ("random", Self::Random),
        ("source", Self::Source),
    ];
}

impl Keyword for WhenDown {
    const WORDS: &'static [(&'static str, Self)] = &[("try", Self::Try), ("refuse", Self::Refuse)];
}

impl Keyword for OnDown {
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("close", Self::Close)];
}

impl Keyword for Resolve {
    const WORDS: &'static [(&'static str, Self)] = &[("first", Self::First), ("all", Self::All)];
}

impl Keyword for SendProxy {
    const WORDS: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}

/// The `kind` of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    Tcp,
    Http,
}

impl CheckKind {
    pub(super) fn of(check: &HealthKind) -> Self {
        match check {
            HealthKind::Tcp { .. } => Self::Tcp,
            HealthKind::Http { .. } => Self::Http,
        }
    }
}

impl Keyword for CheckKind {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("http", Self::Http)];
}

/// Parses a word.
pub(super) fn keyword<K: Keyword>(text: &str) -> Result<K, Mistake> {
    if let Some((_, choice)) = K::WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*choice);
    }
    let says = shown(text);
    match nearest(text, K::WORDS.iter().map(|(word, _)| *word)) {
        Some(word) => wrong(format!(
            "`{says}` is not valid here; did you mean \"{word}\"?"
        )),
        None => wrong(format!(
            "`{says}` is not valid here; write {}",
            alternatives::<K>()
        )),
    }
}

/// Returns the word for a choice.
pub(super) fn word<K: Keyword>(choice: &K) -> String {
    let found = K::WORDS.iter().find(|(_, known)| known == choice);
    found.map_or("", |(word, _)| word).to_owned()
}

/// Lists the words as `"A", "B" or "C"`.
pub(super) fn alternatives<K: Keyword>() -> String {
    let words: Vec<_> = K::WORDS.iter().map(|(word, _)| word).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            let rest: Vec<_> = rest.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{} or \"{last}\"", rest.join(", "))
        }
        _ => words.iter().map(|word| format!("\"{word}\"")).collect(),
    }
}
