//! `coracle reload`: makes a running coracle reread its configuration, or report what that would
//! change.

use super::command::{Said, command, percent_encoded};
use super::contact::Contact;
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
    /// Asks the coracle at `contact`. This takes at most 40 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn ask(&self, contact: &Contact) -> Result<Reloaded, Failure> {
        let target = match self {
            Self::Now => "/api/v1/reload".to_owned(),
            Self::DryRun => "/api/v1/reload?dry-run".to_owned(),
            Self::DryRunOf { name, .. } => {
                format!("/api/v1/reload?dry-run&name={}", percent_encoded(name))
            }
        };
        let text = match self {
            Self::DryRunOf { text, .. } => text,
            _ => "",
        };
        match command(contact, &target, text)? {
            Said::Done(text) => Ok(Reloaded::Changes(text)),
            Said::Refused(text) => Ok(Reloaded::Mistakes(text)),
        }
    }
}
