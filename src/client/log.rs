//! `coracle logs` and `coracle log-level`: the last log lines of a running coracle, and its level.

use serde_json::Value;

use super::command::{Said, command};
use super::contact::Contact;
use super::get::get;
use super::request::Failure;
use super::server::Ordered;
use crate::config::printable;

/// Log lines of a running coracle.
#[derive(Debug)]
pub struct LogLines(Value);

impl LogLines {
    /// Asks the coracle at `contact` for lines that are at least as severe as `least`: the last
    /// ones, or those after a number. This takes at most 15 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(
        contact: &Contact,
        least: ::log::Level,
        after: Option<u64>,
    ) -> Result<Self, Failure> {
        let least = least.as_str().to_ascii_lowercase();
        let after = after.map_or(String::new(), |after| format!("&after={after}"));
        let path = format!("/api/v1/logs?min_level={least}&limit=1000{after}");
        get(contact, &path).map(Self)
    }

    /// Returns what to ask for lines after, to get those that follow.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0["next"].as_u64().unwrap_or(0)
    }

    /// Returns the level that is logged.
    #[must_use]
    pub fn level(&self) -> String {
        printable(self.0["level"].as_str().unwrap_or_default())
    }

    /// Returns the lines in JSON, an object on each line.
    #[must_use]
    pub fn json(&self) -> String {
        self.lines(Value::to_string)
    }

    /// Returns the lines as on stderr. Where journald adds the time and the level, these are added
    /// here.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines(|line| {
            let field = |key: &str| line[key].as_str().unwrap_or_default();
            let text = field("text");
            let text = match text.strip_prefix('<').and_then(|it| it.split_once('>')) {
                Some((_, rest)) => {
                    format!("time={} level={} {rest}", field("time"), field("level"))
                }
                None => text.to_owned(),
            };
            printable(&text)
        })
    }

    fn lines(&self, format: impl Fn(&Value) -> String) -> String {
        let lines = self.0["lines"].as_array().map_or(&[][..], Vec::as_slice);
        let lines: Vec<_> = lines.iter().map(format).collect();
        lines.join("\n")
    }
}

/// Makes the coracle at `contact` log from `level` on. This takes at most 40 seconds.
///
/// # Errors
/// If nothing answers there, another program does, or coracle does not answer this client.
pub fn set_log_level(contact: &Contact, level: ::log::Level) -> Result<Ordered, Failure> {
    let level = level.as_str().to_ascii_lowercase();
    let target = format!("/api/v1/log-level?level={level}");
    match command(contact, &target, "")? {
        Said::Done(text) => Ok(Ordered::Done(text)),
        Said::Refused(text) => Ok(Ordered::Refused(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_for_journald_get_their_time_and_level() {
        let line = |text: &str| json!({ "time": "T", "level": "warn", "text": text });
        let lines = [
            line("<4>msg=a b=<c>"),
            line("time=T level=warn msg=a"),
            line("msg=\u{1b}"),
        ];
        let lines = LogLines(json!({ "next": 3, "level": "info", "lines": lines }));
        assert_eq!(
            lines.text(),
            "time=T level=warn msg=a b=<c>\ntime=T level=warn msg=a\nmsg=\\u{1b}"
        );
        assert_eq!((lines.next(), lines.level().as_str()), (3, "info"));
        assert_eq!(lines.json().lines().count(), 3);
    }
}
