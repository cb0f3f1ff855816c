//! The limits for clients of the admin endpoint and for the data loop's answers.

use std::time::Duration;

/// The endpoint's limits.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// The number of TCP clients served at the same time.
    pub clients: usize,
    /// The number of control socket clients served at the same time. None of them is dropped for a
    /// TCP client.
    pub control_clients: usize,
    /// How long a request may take from its first byte to its last.
    pub request: Duration,
    /// How long a client may be silent between requests.
    pub idle: Duration,
    /// How long a client may take to read one response, and the data loop to supply its contents.
    pub answer: Duration,
    /// How long an order may take.
    pub order: Duration,
    /// How long a client whose request is complete keeps its place while another client waits for
    /// one. (A client that is idle, or whose request is incomplete, is dropped immediately.) This
    /// bounds how long any client waits.
    pub patience: Duration,
    /// How long the data loop may be silent before it counts as hung.
    pub silence: Duration,
    /// How long a client may take to close the connection after the last response.
    pub linger: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            clients: 32,
            control_clients: 8,
            request: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            answer: Duration::from_secs(5),
            order: Duration::from_secs(30),
            patience: Duration::from_millis(400),
            silence: Duration::from_millis(500),
            linger: Duration::from_secs(1),
        }
    }
}
