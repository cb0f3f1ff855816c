//! `coracle reload`: makes a running coracle reread its configuration, or report what that would
//! change.

use std::path::Path;

use super::command::{Said, command, percent_encoded};
use super::request::Failure;

/// The configuration to apply, or only to compare with the one in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Applies the file that coracle was started with.
    Now,
    /// Compares the same file.
    DryRun,
    /// Compares a text that stands for a file of this name.
    DryRunOf {
        /// The name, as diagnostics show it.
        name: String,
        /// The configuration.
        text: String,
    },
}

/// Coracle's answer, without a trailing newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The changes, one on each line.
    Changes(String),
    /// Why the configuration in force stays: the text that `coracle check` prints.
    Mistakes(String),
}

impl Reload {
    /// Asks the coracle whose control socket is at `socket`. This takes at most 40 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this user.
    pub fn ask(&self, socket: &Path) -> Result<Reloaded, Failure> {
        match command(socket, self.request())? {
            Said::Done(text) => Ok(Reloaded::Changes(text)),
            Said::Refused(text) => Ok(Reloaded::Mistakes(text)),
        }
    }

    fn request(&self) -> Vec<u8> {
        let (query, text) = match self {
            Self::Now => (String::new(), ""),
            Self::DryRun => ("?dry-run".to_owned(), ""),
            Self::DryRunOf { name, text } => (
                format!("?dry-run&name={}", percent_encoded(name)),
                text.as_str(),
            ),
        };
        let length = text.len();
        format!(
            "POST /reload{query} HTTP/1.0\r\nContent-Type: application/toml\r\nContent-Length: {length}\r\n\r\n{text}"
        )
        .into_bytes()
    }
}
