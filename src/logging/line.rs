//! The text of one log line: logfmt, prefixed for people or for journald.

use std::fmt::Write as _;
use std::time::SystemTime;

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// With the time and the level as fields.
    Plain,
    /// With the priority that journald reads (sd-daemon(3)); journald records the time itself.
    Journal,
}

impl Style {
    /// Returns the style for stderr. systemd puts the device and inode of the stream that it reads
    /// into JOURNAL_STREAM (systemd.exec(5)).
    pub(super) fn of_stderr() -> Self {
        let named = std::env::var("JOURNAL_STREAM").ok();
        let stderr = rustix::fs::fstat(rustix::stdio::stderr()).ok();
        let is_journal = named
            .zip(stderr)
            .is_some_and(|(named, stderr)| named == format!("{}:{}", stderr.st_dev, stderr.st_ino));
        if is_journal {
            Self::Journal
        } else {
            Self::Plain
        }
    }

    /// Formats a record. `suppressed` is how many similar lines were left out before.
    pub(super) fn line(self, record: &Record<'_>, suppressed: u64, time: SystemTime) -> String {
        let mut line = Line::begin(self, record.level(), time);
        line.field("msg", &record.args().to_string());
        // Writing to a string cannot fail.
        let _ = record.key_values().visit(&mut line);
        line.end(suppressed)
    }

    /// Formats a line of the logger itself. `fields` are already in logfmt.
    pub(super) fn own_line(self, text: &str, fields: &str, count: u64) -> String {
        let mut line = Line::begin(self, Level::Warn, SystemTime::now());
        line.field("msg", text);
        line.text.push_str(fields);
        line.end(count)
    }
}

/// Returns the fields of a record that say what it is about, in logfmt with a space before each.
pub(super) fn object(record: &Record<'_>) -> String {
    let mut object = Object(Line {
        text: String::new(),
        has_fields: true,
    });
    let _ = record.key_values().visit(&mut object);
    object.0.text
}

struct Object(Line);

impl<'kvs> VisitSource<'kvs> for Object {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        match key.as_str() {
            "entrypoint" | "service" | "server" => self.0.visit_pair(key, value),
            _ => Ok(()),
        }
    }
}

struct Line {
    text: String,
    has_fields: bool,
}

impl Line {
    fn begin(style: Style, level: Level, time: SystemTime) -> Self {
        let mut line = Self {
            text: String::with_capacity(160),
            has_fields: false,
        };
        match style {
            Style::Plain => {
                let time = humantime::format_rfc3339_millis(time).to_string();
                line.field("time", &time);
                line.field("level", &level.as_str().to_ascii_lowercase());
            }
            Style::Journal => {
                let priority = match level {
                    Level::Error => 3,
                    Level::Warn => 4,
                    Level::Info => 6,
                    Level::Debug | Level::Trace => 7,
                };
                let _ = write!(line.text, "<{priority}>");
            }
        }
        line
    }

    /// Appends `key=value`, with the value in quotes if it needs them.
    fn field(&mut self, key: &str, value: &str) {
        let line = &mut self.text;
        if std::mem::replace(&mut self.has_fields, true) {
            line.push(' ');
        }
        line.push_str(key);
        line.push('=');
        let is_bare = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
        if !value.is_empty() && value.chars().all(is_bare) {
            line.push_str(value);
            return;
        }
        line.push('"');
        for c in value.chars() {
            match c {
                '"' => line.push_str("\\\""),
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                c if c.is_control() => {
                    let _ = write!(line, "\\u{:04x}", u32::from(c));
                }
                c => line.push(c),
            }
        }
        line.push('"');
    }

    fn end(mut self, suppressed: u64) -> String {
        if suppressed > 0 {
            self.field("suppressed", &suppressed.to_string());
        }
        self.text.push('\n');
        self.text
    }
}

impl<'kvs> VisitSource<'kvs> for Line {
    /// Skips fields without a value, and `suppressed` when it is 0.
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let is_nothing = key.as_str() == "suppressed" && value.to_u64() == Some(0);
        if !is_nothing && !is_null(&value) {
            self.field(key.as_str(), &value.to_string());
        }
        Ok(())
    }
}

fn is_null(value: &Value<'_>) -> bool {
    struct IsNull(bool);
    impl<'v> VisitValue<'v> for IsNull {
        fn visit_any(&mut self, _: Value<'_>) -> Result<(), kv::Error> {
            Ok(())
        }
        fn visit_null(&mut self) -> Result<(), kv::Error> {
            self.0 = true;
            Ok(())
        }
    }
    let mut found = IsNull(false);
    let _ = value.visit(&mut found);
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(style: Style, pairs: &[(&str, Value<'_>)], suppressed: u64) -> String {
        let args = format_args!("closed");
        let record = Record::builder()
            .args(args)
            .level(Level::Info)
            .key_values(&pairs)
            .build();
        style.line(&record, suppressed, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn line_is_logfmt_and_escapes_its_values() {
        let pairs = [
            ("entrypoint", "a b".into()),
            ("peer", "[::1]:80".into()),
            ("odd", "x\"\n\u{7}=".into()),
        ];
        assert_eq!(
            line_of(Style::Plain, &pairs, 3),
            "time=1970-01-01T00:00:00.000Z level=info msg=closed entrypoint=\"a b\" peer=[::1]:80 \
             odd=\"x\\\"\\n\\u0007=\" suppressed=3\n"
        );
        let line = line_of(Style::Journal, &pairs, 0);
        assert!(line.starts_with("<6>msg=closed entrypoint="), "{line}");
    }

    #[test]
    fn value_ending_in_an_angle_bracket_keeps_the_following_space() {
        let pairs = [("entrypoint", "<web>".into()), ("peer", "unix".into())];
        let line = line_of(Style::Journal, &pairs, 0);
        assert_eq!(line, "<6>msg=closed entrypoint=<web> peer=unix\n");
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let pairs = [
            ("address", Value::null()),
            ("suppressed", 0_u64.into()),
            ("open", 0_u64.into()),
        ];
        let line = line_of(Style::Journal, &pairs, 0);
        assert_eq!(line, "<6>msg=closed open=0\n");
    }
}
