//! Reads typed values from TOML tables and reports values of the wrong type.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::advice::advice;
use super::diagnostic::{
    Collector, Mistake, Span, did_you_mean, in_header, is_unprintable, nearest, shown,
};
use super::value::boolean_for;

pub(super) type Key<'v> = &'v Spanned<Cow<'v, str>>;
pub(super) type Value<'v> = Spanned<DeValue<'v>>;

pub(super) struct Reader<'o, 't> {
    /// Whether the syntax is free of errors, so a missing key was not written.
    pub(super) whole: bool,
    pub(super) out: &'o mut Collector<'t>,
}

impl Reader<'_, '_> {
    /// Reports that the table `name` has none of the `wanted` keys, unless a syntax error or a
    /// misspelled key, which is reported anyway, may be the reason.
    pub(super) fn missing(
        &mut self,
        name: Key<'_>,
        table: &DeTable<'_>,
        wanted: &[&str],
        message: String,
    ) {
        self.missing_in(name.span(), table, wanted, message);
    }

    /// Does the same for the table at `span`.
    pub(super) fn missing_in(
        &mut self,
        span: Span,
        table: &DeTable<'_>,
        wanted: &[&str],
        message: String,
    ) {
        let is_near = |key: Key<'_>| nearest(key.get_ref(), wanted.iter().copied()).is_some();
        if self.whole && !table.keys().any(is_near) {
            self.out.report(Some(span), message);
        }
    }

    /// Reports keys that are not in `known`.
    pub(super) fn known(&mut self, table: &DeTable<'_>, known: &[&str]) {
        self.known_here(table, known, (&[], ""));
    }

    /// Reports keys that are not in `known`, and where those go that belong elsewhere.
    pub(super) fn known_here(
        &mut self,
        table: &DeTable<'_>,
        known: &[&str],
        (elsewhere, place): (&[&str], &str),
    ) {
        for key in table.keys() {
            let word: &str = key.get_ref();
            if known.contains(&word) {
                continue;
            }
            if elsewhere.contains(&word) {
                self.out
                    .report(Some(key.span()), format!("`{word}` {place}"));
                continue;
            }
            let mut advice = did_you_mean(word, known.iter().copied());
            if advice.is_empty() {
                advice = format!("; expected one of {}", list(known));
            }
            let why = format!("unknown key `{}`{advice}", shown(word));
            self.out.report(Some(key.span()), why);
        }
    }

    /// Parses the string under `key` with `parse`.
    pub(super) fn parsed<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Mistake>,
    ) -> Option<T> {
        let value = table.get(key)?;
        let text = self.string(value, key)?;
        self.ok(value, parse(text))
    }

    pub(super) fn string<'v>(&mut self, value: &'v Value<'_>, key: &str) -> Option<&'v str> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(text);
        }
        let advice = advice(key, value.get_ref());
        self.wrong_type(value, "a string", &advice);
        None
    }

    pub(super) fn boolean(&mut self, table: &DeTable<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        if let DeValue::Boolean(value) = value.get_ref() {
            return Some(*value);
        }
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(n) => n.to_string(),
            _ => String::new(),
        };
        let advice = format!("; write {}", boolean_for(&text));
        self.wrong_type(value, "a boolean", &advice);
        None
    }

    /// Reads an integer within `range`. `hint` says what to write instead
    /// of less, or to switch it off.
    pub(super) fn integer(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        range: RangeInclusive<u32>,
        hint: &str,
    ) -> Option<u32> {
        let value = table.get(key)?;
        let bounds = match (*range.start(), *range.end()) {
            (least, u32::MAX) => format!("at least {least}"),
            (least, most) => format!("from {least} to {most}"),
        };
        let DeValue::Integer(integer) = value.get_ref() else {
            let text = value.get_ref().as_str().unwrap_or_default();
            let is_off = text == "off" || value.get_ref().as_bool() == Some(false);
            let advice = match text.parse::<u32>() {
                Ok(number) => format!("; write {number} without quotes"),
                Err(_) if is_off => format!("; {hint}"),
                Err(_) => format!("; write a number, {bounds}"),
            };
            self.wrong_type(value, "an integer", &advice);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let small = number.and_then(|it| u32::try_from(it).ok());
        let good = small.filter(|it| range.contains(it));
        if good.is_none() {
            let is_low = number.is_some_and(|it| it < (*range.start()).into());
            let hint = if is_low {
                format!("; {hint}")
            } else {
                String::new()
            };
            let says = shown(&integer.to_string());
            let why = format!("{says} is out of range; `{key}` is {bounds}{hint}");
            self.out.report(Some(value.span()), why);
        }
        good
    }

    pub(super) fn table<'v>(
        &mut self,
        table: &'v DeTable<'v>,
        key: &str,
    ) -> Option<&'v DeTable<'v>> {
        let value = table.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        let advice = format!("; write [{key}] on a line of its own");
        self.wrong_type(value, "a table", &advice);
        None
    }

    /// Returns the tables under `key` with their names, in the order of the text. `parts` are keys
    /// of such a table that may be tables themselves.
    pub(super) fn named_tables<'v>(
        &mut self,
        table: &'v DeTable<'v>,
        key: &str,
        parts: &[&str],
    ) -> Vec<(Key<'v>, &'v DeTable<'v>)> {
        let tables = match table.get(key).map(|value| (value, value.get_ref())) {
            None => return Vec::new(),
            Some((_, DeValue::Table(tables))) => tables,
            Some((value, _)) => {
                let advice = format!("; write [{key}.NAME] on a line of its own for each");
                self.wrong_type(value, "a table", &advice);
                return Vec::new();
            }
        };
        let mut named = Vec::new();
        for (name, value) in tables {
            if let Some(why) = name_mistake(name.get_ref()) {
                self.out.report(Some(name.span()), why);
            }
            match value.get_ref() {
                DeValue::Table(table) => match dotted(table, parts) {
                    Some(rest) => {
                        let whole = in_header(&format!("{}{rest}", name.get_ref()));
                        let why =
                            format!("names with dots must be in quotes; write [{key}.{whole}]");
                        self.out.report(Some(name.span()), why);
                    }
                    None => named.push((name, table)),
                },
                _ => {
                    let name = in_header(name.get_ref());
                    let advice = format!("; write [{key}.{name}] on a line of its own");
                    self.wrong_type(value, "a table", &advice);
                }
            }
        }
        named.sort_by_key(|(name, _)| name.span().start);
        named
    }

    pub(super) fn ok<T>(&mut self, value: &Value<'_>, result: Result<T, Mistake>) -> Option<T> {
        result
            .map_err(|Mistake(why)| self.out.report(Some(value.span()), why))
            .ok()
    }

    pub(super) fn wrong_type(&mut self, value: &Value<'_>, expected: &str, advice: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let why = format!("expected {expected}, found {found}{advice}");
        self.out.report(Some(value.span()), why);
    }
}

/// Says what is wrong with the name of an entrypoint, a service or a server.
pub(super) fn name_mistake(name: &str) -> Option<String> {
    const MAX_CHARS: usize = 64;
    let n = name.chars().count();
    match name {
        "" => Some("the name is empty".to_owned()),
        _ if n > MAX_CHARS => Some(format!(
            "the name has {n} characters; the limit is {MAX_CHARS}"
        )),
        _ if name.contains(is_unprintable) => Some(format!(
            "name `{}` contains a control character",
            shown(name)
        )),
        _ => None,
    }
}

/// What stands behind the first dot of a name, if the table is there only because of that dot and
/// not because of its `parts`.
fn dotted(table: &DeTable<'_>, parts: &[&str]) -> Option<String> {
    let is_part = |key: Key<'_>| parts.contains(&key.get_ref().as_ref());
    let (name, first) = table.iter().find(|(key, _)| !is_part(key))?;
    let is_dotted = table.values().all(|value| value.get_ref().is_table());
    let rest = first.get_ref().as_table().filter(|_| is_dotted)?;
    let behind = dotted(rest, parts).unwrap_or_default();
    Some(format!(".{}{behind}", name.get_ref()))
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}
