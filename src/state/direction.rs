//! The two directions of a connection.

use super::counters::{CounterBy, label};

label! {
    /// The direction in which bytes pass.
    Direction {
        /// From the client to the server.
        ToServer = "to_server",
        /// From the server to the client.
        ToClient = "to_client",
    }
}

impl CounterBy<Direction> {
    /// Returns both counts, to the server and to the client.
    #[must_use]
    pub fn both(&self) -> [u64; 2] {
        [Direction::ToServer, Direction::ToClient].map(|it| self.of(it).value())
    }
}
