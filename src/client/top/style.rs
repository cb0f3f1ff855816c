//! Lines of a screen in parts with a look, and how a terminal is told of it. No I/O.

use unicode_width::UnicodeWidthChar;

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// Ordinary text.
    #[default]
    Plain,
    /// A heading.
    Title,
    /// What works.
    Good,
    /// What does not.
    Bad,
    /// What is neither.
    Warn,
    /// The row that keys apply to.
    Chosen,
}

impl Look {
    /// Returns what turns it on. Without colors, only what the terminals of the 1970s have.
    fn code(self, has_colors: bool) -> &'static str {
        match (self, has_colors) {
            (Self::Title | Self::Bad, false) => "\x1b[1m",
            (Self::Plain | Self::Good | Self::Warn, false) | (Self::Plain, true) => "",
            (Self::Title, true) => "\x1b[1m",
            (Self::Good, true) => "\x1b[32m",
            (Self::Bad, true) => "\x1b[1;31m",
            (Self::Warn, true) => "\x1b[33m",
            (Self::Chosen, _) => "\x1b[7m",
        }
    }
}

/// A line of the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Look, String)>);

impl Line {
    /// Returns a line that looks the same throughout.
    pub(super) fn of(look: Look, text: impl Into<String>) -> Self {
        Self(vec![(look, text.into())])
    }

    /// Adds a part.
    pub(super) fn push(&mut self, look: Look, text: impl Into<String>) {
        self.0.push((look, text.into()));
    }

    /// Cuts it so that it takes `width` columns at most.
    pub(super) fn cut(mut self, width: usize) -> Self {
        let mut left = width;
        for (_, text) in &mut self.0 {
            let taken = columns(text);
            if taken > left {
                *text = cut(text, left);
                left = 0;
            } else {
                left -= taken;
            }
        }
        self
    }

    /// Returns its text alone.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// Returns its text with the codes that ANSI terminals understand.
    #[must_use]
    pub fn ansi(&self, has_colors: bool) -> String {
        let mut line = String::new();
        for (look, text) in &self.0 {
            let code = look.code(has_colors);
            line += code;
            line += text;
            if !code.is_empty() {
                line += "\x1b[0m";
            }
        }
        line
    }
}

/// Returns how many columns a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Cuts a text to `width` columns. `~` stands for the rest.
pub(super) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let (mut cut, mut taken) = (String::new(), 0);
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken + 1 > width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('~');
    }
    cut
}

/// Returns a text in exactly `width` columns.
pub(super) fn fill(text: &str, width: usize, is_right: bool) -> String {
    let text = cut(text, width);
    let space = " ".repeat(width - columns(&text).min(width));
    match is_right {
        true => space + &text,
        false => text + &space,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(columns("web"), 3);
        assert_eq!(columns("網頁"), 4);
        assert_eq!(cut("網頁", 4), "網頁");
        assert_eq!(cut("網頁", 3), "網~");
        assert_eq!(cut("網頁", 2), "~");
        assert_eq!(cut("網頁", 0), "");
        assert_eq!(fill("網頁", 3, true), "網~");
        assert_eq!(fill("網頁", 2, false), "~ ");
        assert_eq!(fill("ab", 4, true), "  ab");
        assert_eq!(fill("ab", 4, false), "ab  ");
    }

    #[test]
    fn cut_line_keeps_its_looks() {
        let mut line = Line::of(Look::Title, "abc");
        line.push(Look::Bad, "def");
        assert_eq!(line.clone().cut(6), line);
        assert_eq!(line.clone().cut(5).text(), "abcd~");
        assert_eq!(line.clone().cut(3).text(), "abc");
        assert_eq!(line.clone().cut(2).text(), "a~");
        let ansi = line.ansi(true);
        assert_eq!(ansi, "\x1b[1mabc\x1b[0m\x1b[1;31mdef\x1b[0m");
        assert!(!line.ansi(false).contains("31m"));
    }
}
