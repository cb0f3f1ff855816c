//! `coracle server`: drains a server of a running coracle, takes it down, or makes it ready again.

use super::command::{Said, command, percent_encoded};
use super::contact::Contact;
use super::request::Failure;
use crate::state::AdminState;

/// An order for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOrder {
    /// The name of its service.
    pub service: String,
    /// Its name, or its address as written in the configuration.
    pub server: String,
    /// The state to put it into.
    pub state: AdminState,
}

/// Coracle's answer, without a trailing newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// What has changed.
    Done(String),
    /// Why nothing has changed.
    Refused(String),
}

impl ServerOrder {
    /// Gives the order to the coracle at `contact`. This takes at most 40 seconds.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn give(&self, contact: &Contact) -> Result<Ordered, Failure> {
        let [service, server] = [&self.service, &self.server].map(|it| percent_encoded(it));
        let state = self.state;
        let target = format!("/api/v1/server?service={service}&server={server}&state={state}");
        match command(contact, &target, "")? {
            Said::Done(text) => Ok(Ordered::Done(text)),
            Said::Refused(text) => Ok(Ordered::Refused(text)),
        }
    }
}
