//! Reads typed values from TOML tables and reports values of the wrong type.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{
    Collector, Mistake, did_you_mean, in_header, is_unprintable, nearest, shown,
};
use super::model::defaults;
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
        let advice = instead(key, value.get_ref());
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
                DeValue::Table(table) => match dotted(table) {
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

/// What to write for a string under `key` instead of a value of another type.
fn instead(key: &str, value: &DeValue<'_>) -> String {
    const OFF: &str = "\"off\"";
    let number = match value {
        DeValue::Integer(n) => n.to_string().parse::<u64>().ok(),
        _ => None,
    };
    let port = number.filter(|n| (1..=65535).contains(n));
    let is_false = matches!(value, DeValue::Boolean(false));
    let may_be_off = matches!(key, "idle_timeout" | "half_close_timeout" | "keepalive");
    let write = match key {
        _ if may_be_off && (is_false || number == Some(0)) => OFF.to_owned(),
        "drain_timeout" if number == Some(0) => "\"0s\"".to_owned(),
        _ if key.ends_with("_timeout") || key == "keepalive" => match number {
            Some(n) if n > 0 => format!("\"{n}s\" for seconds"),
            _ if may_be_off => "a duration such as \"60s\", or \"off\"".to_owned(),
            _ => "a duration such as \"10s\"".to_owned(),
        },
        "admin.listen" | "socket" | "level" if is_false => OFF.to_owned(),
        "admin.listen" => {
            let port = port.unwrap_or(defaults::ADMIN.port().into());
            format!("an address such as \"127.0.0.1:{port}\", or \"off\"")
        }
        "socket" => format!(
            "a path such as \"{}\", or \"off\"",
            defaults::CONTROL_SOCKET
        ),
        "socket_mode" | "socket_group" if number.is_some() => "it in quotes".to_owned(),
        "socket_mode" => "a mode such as \"0660\"".to_owned(),
        "socket_group" => "a name such as \"www-data\", or its number in quotes".to_owned(),
        "listen" => format!("an address such as \"127.0.0.1:{}\"", port.unwrap_or(8080)),
        "to" if matches!(value, DeValue::Array(_)) => {
            return "; for several servers write `service = \"NAME\"` and a table [services.NAME]"
                .to_owned();
        }
        "to" | "servers" => format!("an address such as \"192.168.1.10:{}\"", port.unwrap_or(80)),
        "service" => "the name of one service, such as \"web\"".to_owned(),
        "level" => "a level such as \"info\"".to_owned(),
        "on_removed" => "\"keep\", \"drain\" or \"close\"".to_owned(),
        "hosts" => "a name such as \"nas.lan\"".to_owned(),
        "compat" => "\"traefik\"".to_owned(),
        _ => "it in quotes".to_owned(),
    };
    format!("; write {write}")
}

/// What stands behind the first dot of a name, if the table is there only because of that dot.
fn dotted(table: &DeTable<'_>) -> Option<String> {
    let (name, first) = table.iter().next()?;
    let is_dotted = table.values().all(|value| value.get_ref().is_table());
    let rest = first.get_ref().as_table().filter(|_| is_dotted)?;
    let behind = dotted(rest).unwrap_or_default();
    Some(format!(".{}{behind}", name.get_ref()))
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}
