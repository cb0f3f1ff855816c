//! Reads typed values from TOML tables and reports values of the wrong type.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Collector, Mistake, did_you_mean, is_unprintable, nearest, shown};

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
        let is_near = |key: Key<'_>| nearest(key.get_ref(), wanted.iter().copied()).is_some();
        if self.whole && !table.keys().any(is_near) {
            self.out.report(Some(name.span()), message);
        }
    }

    /// Reports keys that are not in `known`.
    pub(super) fn known(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            let word: &str = key.get_ref();
            if known.contains(&word) {
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
        let advice = match value.get_ref() {
            DeValue::Integer(n) if key.ends_with("_timeout") || key == "keepalive" => {
                format!("; write \"{}s\" for seconds", shown(&n.to_string()))
            }
            DeValue::Boolean(false) if key == "socket" => "; write \"off\"".to_owned(),
            DeValue::Integer(_) if key == "socket_mode" => "; write it in quotes".to_owned(),
            DeValue::Boolean(false) if key.ends_with("_timeout") || key == "keepalive" => {
                "; write \"off\"".to_owned()
            }
            DeValue::Boolean(true) if key == "keepalive" => {
                "; write a duration such as \"60s\", or \"off\"".to_owned()
            }
            _ if key.ends_with("_timeout") || key == "keepalive" => {
                "; write a duration such as \"10s\"".to_owned()
            }
            DeValue::Integer(n) if key == "listen" && n.to_string().parse::<u16>().is_ok() => {
                format!("; write an address such as \"127.0.0.1:{n}\"")
            }
            DeValue::Array(_) if key == "to" => {
                "; for several servers write `service = \"NAME\"` and a table [services.NAME]"
                    .to_owned()
            }
            _ if key == "listen" => "; write an address such as \"127.0.0.1:8080\"".to_owned(),
            _ if key == "to" || key == "servers" => {
                "; write an address such as \"192.168.1.10:80\"".to_owned()
            }
            _ => String::new(),
        };
        self.wrong_type(value, "a string", &advice);
        None
    }

    pub(super) fn boolean(&mut self, table: &DeTable<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        if let DeValue::Boolean(value) = value.get_ref() {
            return Some(*value);
        }
        self.wrong_type(value, "true or false", "");
        None
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

    /// Returns the tables under `key` with their names, in the order of the text.
    pub(super) fn named_tables<'v>(
        &mut self,
        table: &'v DeTable<'v>,
        key: &str,
    ) -> Vec<(Key<'v>, &'v DeTable<'v>)> {
        const MAX_NAME_CHARS: usize = 64;
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
            let why = match name.get_ref() {
                text if text.is_empty() => Some("the name is empty".to_owned()),
                text if text.chars().count() > MAX_NAME_CHARS => Some(format!(
                    "the name has {} characters; the limit is {MAX_NAME_CHARS}",
                    text.chars().count()
                )),
                text if text.contains(is_unprintable) => Some(format!(
                    "name `{}` contains a control character",
                    shown(text)
                )),
                _ => None,
            };
            if let Some(why) = why {
                self.out.report(Some(name.span()), why);
            }
            match value.get_ref() {
                DeValue::Table(table) => named.push((name, table)),
                _ => {
                    let name = shown(name.get_ref());
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

fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}
