//! Writes JSON piece by piece. A tree of values would need memory for the whole document.

use std::fmt::{self, Display, Formatter};

/// Displays nothing before the first element of a list, and a comma before each later one.
#[derive(Debug, Default)]
pub(super) struct Separator(bool);

impl Separator {
    /// Marks an element as written.
    pub(super) fn next(&mut self) {
        self.0 = true;
    }
}

impl Display for Separator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "," } else { "" })
    }
}

/// Displays a text as a JSON string.
#[derive(Debug)]
pub(super) struct Json<'a>(pub &'a str);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&json)
    }
}

/// Displays a value, or `null`.
#[derive(Debug)]
pub(super) struct OrNull<T>(pub Option<T>);

impl<T: Display> Display for OrNull<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}
