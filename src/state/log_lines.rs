//! The last log lines, in bounded memory. No I/O: lines come in as text, with their time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use log::{Level, LevelFilter};

/// How much memory each of the two kinds of lines may take.
const PART_BYTES: usize = 32 * 1024;
/// What a line takes beside its text.
const OVERHEAD_BYTES: usize = 96;
/// The most that is kept of one line.
const LINE_BYTES: usize = 4096;

/// A log line.
#[derive(Debug)]
pub struct LogLine {
    /// Its number: 1 for the first line since the start, and one more for each.
    pub number: u64,
    /// When it was logged.
    pub time: SystemTime,
    /// Its level.
    pub level: Level,
    /// The line as on stderr, without its end.
    pub text: Box<str>,
}

/// The last lines. Warnings and errors are kept apart from the others, which may be many, so that
/// these do not push them out.
#[derive(Debug)]
pub struct LogLines {
    level: LevelFilter,
    last: u64,
    urgent: Part,
    other: Part,
}

#[derive(Debug, Default)]
struct Part {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    /// The number of the last line that made room.
    lost: u64,
}

/// Some of the lines.
#[derive(Debug)]
pub struct KeptLines {
    /// The level that is logged.
    pub level: LevelFilter,
    /// From this number on, no line of the levels that were asked for has made room for others.
    pub kept_from: u64,
    /// What to ask for lines after, to get those that follow.
    pub next: u64,
    /// The lines, oldest first.
    pub lines: Vec<Arc<LogLine>>,
}

impl Default for LogLines {
    fn default() -> Self {
        Self {
            level: LevelFilter::Off,
            last: 0,
            urgent: Part::default(),
            other: Part::default(),
        }
    }
}

impl LogLines {
    /// Notes the level that is logged from now on.
    pub fn set_level(&mut self, level: LevelFilter) {
        self.level = level;
    }

    /// Returns the level that is logged.
    #[must_use]
    pub fn level(&self) -> LevelFilter {
        self.level
    }

    /// Adds a line.
    pub fn push(&mut self, time: SystemTime, level: Level, text: &str) {
        self.last += 1;
        let part = match level {
            Level::Error | Level::Warn => &mut self.urgent,
            _ => &mut self.other,
        };
        part.push(LogLine {
            number: self.last,
            time,
            level,
            text: start(text).into(),
        });
    }

    /// Returns up to `limit` lines that are at least as severe as `least`: the first ones after the
    /// number `after`, or without one the last ones.
    #[must_use]
    pub fn get(&self, least: Level, after: Option<u64>, limit: usize) -> KeptLines {
        let others = (least > Level::Warn).then_some(&self.other);
        let parts = [Some(&self.urgent), others].into_iter().flatten();
        let lost = parts.clone().map(|part| part.lost).max();
        let lines = parts.flat_map(|part| &part.lines);
        let lines = lines.filter(|line| line.level <= least && line.number > after.unwrap_or(0));
        let mut lines: Vec<_> = lines.cloned().collect();
        lines.sort_unstable_by_key(|line| line.number);
        let mut next = self.last;
        if after.is_none() {
            lines.drain(..lines.len().saturating_sub(limit));
        } else if lines.len() > limit {
            lines.truncate(limit);
            next = lines.last().map_or(next, |line| line.number);
        }
        KeptLines {
            level: self.level,
            kept_from: lost.unwrap_or(0) + 1,
            next,
            lines,
        }
    }
}

impl Part {
    fn push(&mut self, line: LogLine) {
        self.bytes += line.text.len() + OVERHEAD_BYTES;
        self.lines.push_back(Arc::new(line));
        while self.bytes > PART_BYTES
            && let Some(first) = self.lines.pop_front()
        {
            self.bytes -= first.text.len() + OVERHEAD_BYTES;
            self.lost = first.number;
        }
    }
}

impl LogLine {
    /// Returns the message and the fields that follow it: what the text says in logfmt.
    #[must_use]
    pub fn parts(&self) -> (String, Vec<(&str, String)>) {
        let mut rest = &*self.text;
        // For journald the line begins with a priority, otherwise with the time and the level.
        match rest.strip_prefix('<').and_then(|it| it.split_once('>')) {
            Some((_, after)) => rest = after,
            None => drop((pair(&mut rest), pair(&mut rest))),
        }
        let message = pair(&mut rest).map_or_else(String::new, |(_, message)| message);
        let mut fields = Vec::new();
        while let Some(field) = pair(&mut rest) {
            fields.push(field);
        }
        (message, fields)
    }
}

/// Returns as much of the text as is kept.
fn start(text: &str) -> &str {
    let mut end = text.len().min(LINE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Takes `key=value` from the start of `rest`.
fn pair<'t>(rest: &mut &'t str) -> Option<(&'t str, String)> {
    let (key, value) = rest.trim_start().split_once('=')?;
    let Some(quoted) = value.strip_prefix('"') else {
        let (value, after) = value.split_once(' ').unwrap_or((value, ""));
        *rest = after;
        return Some((key, value.to_owned()));
    };
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&digits, 16).ok();
                    text.extend(code.and_then(char::from_u32));
                }
                Some(other) => text.push(other),
                None => {}
            },
            c => text.push(c),
        }
    }
    *rest = chars.as_str();
    Some((key, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lines: &mut LogLines, level: Level, text: &str) {
        lines.push(SystemTime::UNIX_EPOCH, level, text);
    }

    fn numbers(kept: &KeptLines) -> Vec<u64> {
        kept.lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn lines_come_in_order_by_level_and_in_pages() {
        let mut lines = LogLines::default();
        for level in [Level::Info, Level::Warn, Level::Debug, Level::Error] {
            push(&mut lines, level, "a");
        }
        let all = lines.get(Level::Trace, None, 100);
        assert_eq!((numbers(&all), all.kept_from), (vec![1, 2, 3, 4], 1));
        assert_eq!(numbers(&lines.get(Level::Info, None, 100)), [1, 2, 4]);
        assert_eq!(numbers(&lines.get(Level::Error, None, 100)), [4]);
        // The last ones, but the first ones after a number.
        assert_eq!(numbers(&lines.get(Level::Trace, None, 2)), [3, 4]);
        let mut seen = Vec::new();
        let mut after = 0;
        loop {
            let page = lines.get(Level::Warn, Some(after), 1);
            after = page.next;
            if page.lines.is_empty() {
                break;
            }
            seen.extend(numbers(&page));
        }
        assert_eq!((seen, after), (vec![2, 4], 4));
    }

    #[test]
    fn memory_is_bounded_and_a_flood_leaves_the_warnings() {
        let mut lines = LogLines::default();
        push(&mut lines, Level::Warn, "first");
        let text = "x".repeat(100);
        for _ in 0..10_000 {
            push(&mut lines, Level::Info, &text);
        }
        let urgent = lines.get(Level::Warn, None, 10);
        assert_eq!((numbers(&urgent), urgent.kept_from), (vec![1], 1));
        let all = lines.get(Level::Info, None, 10_000);
        let kept = all.lines.len() - 1;
        assert!((100..400).contains(&kept), "{kept}");
        // The warning is older than what is kept without a gap.
        assert_eq!(all.kept_from, all.lines[1].number);
        assert_eq!(all.next, 10_001);
        push(&mut lines, Level::Info, &"\u{e9}".repeat(LINE_BYTES));
        let longest = lines.get(Level::Info, Some(10_001), 1);
        assert_eq!(longest.lines[0].text.len(), LINE_BYTES);
    }

    #[test]
    fn message_and_fields_are_read_from_either_form() {
        let parts = |text: &str| {
            let text = text.into();
            let (number, time, level) = (1, SystemTime::UNIX_EPOCH, Level::Info);
            let line = LogLine {
                number,
                time,
                level,
                text,
            };
            let (message, fields) = line.parts();
            let fields = fields
                .into_iter()
                .map(|(key, value)| format!("{key}:{value}"));
            (message, fields.collect::<Vec<_>>())
        };
        let plain = "time=1970-01-01T00:00:00.000Z level=info msg=closed entrypoint=\"a b\" peer=[::1]:80 \
                     odd=\"x\\\"\\n\\u0007=\\\\\" suppressed=3";
        let fields = [
            "entrypoint:a b",
            "peer:[::1]:80",
            "odd:x\"\n\u{7}=\\",
            "suppressed:3",
        ];
        let expected = ("closed".to_owned(), fields.map(str::to_owned).to_vec());
        assert_eq!(parts(plain), expected);
        let (_, fields) = plain.split_once("msg=").unwrap_or_default();
        assert_eq!(parts(&format!("<6>msg={fields}")), expected);
        assert_eq!(
            parts("<4>msg=\"\" a=<b>"),
            (String::new(), vec!["a:<b>".to_owned()])
        );
        // What a cut leaves.
        for cut in 0..plain.len() {
            let _ = parts(&plain[..cut]);
        }
    }
}
