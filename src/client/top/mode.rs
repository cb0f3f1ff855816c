//! What the keys mean at a moment, and the orders that they lead to. No I/O but that of
//! [`Order::give`].

use crate::client::command::{Said, command};
use crate::client::contact::Contact;
use crate::client::request::Failure;

/// What the keys mean now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They move among the connections and servers.
    Browse,
    /// They write a filter.
    Filter(String),
    /// They answer this question about an order.
    Confirm(String, Order),
    /// Any key ends the help.
    Help,
}

/// An order for coracle: the path and the parameters to post it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order(pub(super) String);

impl Order {
    /// Gives the order to the coracle at `contact`. This takes at most 40 seconds. Returns whether
    /// it was obeyed, and the answer.
    ///
    /// # Errors
    /// If nothing answers there, another program does, or coracle does not answer this client.
    pub fn give(&self, contact: &Contact) -> Result<(bool, String), Failure> {
        Ok(match command(contact, &self.0, "")? {
            Said::Done(text) => (true, text),
            Said::Refused(why) => (false, why),
        })
    }
}
