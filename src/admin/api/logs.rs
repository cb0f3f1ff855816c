//! The last log lines: which are asked for, and the answer in JSON.

use std::borrow::Cow;
use std::fmt::{self, Write};

use log::{Level, LevelFilter};

use super::query::{Invalid, each, number, words};
use crate::admin::json::{Json, Separator};
use crate::state::{KeptLines, LogLine};

/// The most lines in one answer.
const LIMIT_MAX: usize = 1000;
/// How many lines an answer has if the request does not say.
const LIMIT: usize = 100;

const LEVELS: [(&str, Level); 4] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
];

/// Which lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogQuery {
    /// The least severe level.
    pub least: Level,
    /// The number after which the lines begin.
    pub after: Option<u64>,
    /// The most lines.
    pub limit: usize,
}

impl LogQuery {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// If one of them is unknown, is there twice, or has a value that it may not have.
    pub(crate) fn parse<'a>(
        parameters: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Self, Invalid> {
        let mut query = Self {
            least: Level::Trace,
            after: None,
            limit: LIMIT,
        };
        each(parameters, |name, value| query.set(name, value))?;
        Ok(query)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "min_level" => self.least = level(value)?,
            "after" => {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
                self.after = value.parse().ok().filter(|_| is_number);
                self.after.ok_or("write the `next` of an answer")?;
            }
            "limit" => {
                let limit = number(value).filter(|n| (1..=LIMIT_MAX).contains(n));
                self.limit = limit.ok_or("write a number from 1 to 1000")?;
            }
            _ => {
                return Err(
                    "unknown parameter; those of this path are min_level, after and limit"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Parses a level.
///
/// # Errors
/// Returns what to write instead.
pub(crate) fn level(text: &str) -> Result<Level, String> {
    let level = LEVELS.iter().find(|(name, _)| *name == text);
    let level = level.map(|(_, level)| *level);
    level.ok_or_else(|| words(LEVELS.iter().map(|(name, _)| *name)))
}

/// Returns a level's name as the configuration has it.
pub(super) fn name(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::Off => "off",
        LevelFilter::Error => "error",
        LevelFilter::Warn => "warn",
        LevelFilter::Info => "info",
        LevelFilter::Debug => "debug",
        LevelFilter::Trace => "trace",
    }
}

/// Writes lines.
///
/// # Errors
/// Never fails: writing to a body cannot fail.
pub(crate) fn write(body: &mut impl Write, kept: &KeptLines) -> fmt::Result {
    let (version, level) = (Json(env!("CARGO_PKG_VERSION")), name(kept.level));
    let (from, next) = (kept.kept_from, kept.next);
    write!(
        body,
        "{{\"coracle\":{version},\"level\":\"{level}\",\"kept_from\":{from},\"next\":{next},\"lines\":["
    )?;
    let mut comma = Separator::default();
    for line in &kept.lines {
        write!(body, "{comma}")?;
        comma.next();
        write_line(body, line)?;
    }
    body.write_str("]}")
}

pub(super) fn write_line(out: &mut impl Write, line: &LogLine) -> fmt::Result {
    let (message, fields) = line.parts();
    let time = humantime::format_rfc3339_millis(line.time);
    let (number, level) = (line.number, name(line.level.to_level_filter()));
    write!(
        out,
        "{{\"number\":{number},\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{},\"fields\":{{",
        Json(&message)
    )?;
    let mut comma = Separator::default();
    for (key, value) in fields {
        write!(out, "{comma}{}:{}", Json(key), Json(&value))?;
        comma.next();
    }
    write!(out, "}},\"text\":{}}}", Json(&line.text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<LogQuery, Invalid> {
        let pairs = parameters.iter();
        LogQuery::parse(pairs.map(|(name, value)| (Cow::from(*name), Cow::from(*value))))
    }

    #[test]
    fn parameters_have_exact_values() {
        for (name, value) in [
            ("limit", "0"),
            ("limit", "1001"),
            ("limit", ""),
            ("after", "-1"),
            ("after", "+1"),
            ("after", "18446744073709551616"),
            ("min_level", "trace"),
            ("min_level", "Warn"),
            ("level", "warn"),
        ] {
            let invalid = parse(&[(name, value)]).unwrap_err();
            assert_eq!(invalid.parameter, name, "{value}");
        }
        for (name, value) in [("limit", "1"), ("after", "1"), ("min_level", "warn")] {
            let twice = parse(&[(name, value), (name, value)]).unwrap_err();
            assert_eq!(twice.why, "it is there twice");
        }
        let query = parse(&[("after", "0"), ("min_level", "warn"), ("limit", "7")]).unwrap();
        let (least, after, limit) = (Level::Warn, Some(0), 7);
        assert_eq!(
            query,
            LogQuery {
                least,
                after,
                limit
            }
        );
    }
}
