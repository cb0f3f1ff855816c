//! `coracle kill`: ends connections of a running coracle, or lists those that it would end.

use super::command::{Said, command, percent_encoded};
use super::contact::Contact;
use super::request::Failure;
use super::server::Ordered;
use crate::state::Which;

/// An order to end connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillOrder {
    /// Which connections.
    pub which: Which,
    /// Whether only to list them.
    pub is_dry_run: bool,
}

impl KillOrder {
    /// Gives the order to the coracle at `contact`. This takes at most 40 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn give(&self, contact: &Contact) -> Result<Ordered, Failure> {
        let target = format!("/api/v1/kill?{}", self.query());
        match command(contact, &target, "")? {
            Said::Done(text) => Ok(Ordered::Done(text)),
            Said::Refused(text) => Ok(Ordered::Refused(text)),
        }
    }

    fn query(&self) -> String {
        let mut pairs = Vec::new();
        match &self.which {
            Which::Id(id) => pairs.push(format!("id={id}")),
            Which::Fitting(filter) => {
                let peer = filter.peer.map(|network| network.to_string());
                for (key, value) in [
                    ("peer", &peer),
                    ("entrypoint", &filter.entrypoint),
                    ("service", &filter.service),
                    ("server", &filter.server),
                ] {
                    let pair = value
                        .as_deref()
                        .map(|it| format!("{key}={}", percent_encoded(it)));
                    pairs.extend(pair);
                }
            }
        }
        if self.is_dry_run {
            pairs.push("dry-run".to_owned());
        }
        pairs.join("&")
    }
}
