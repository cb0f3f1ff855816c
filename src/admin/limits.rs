//! What those who ask, and the loop, may take.

use std::time::Duration;

/// The endpoint's limits.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// How many TCP clients are served at once.
    pub clients: usize,
    /// How many clients of the control socket are served at once. None of them gives way to a TCP client.
    pub control_clients: usize,
    /// How long a request may take from its first byte to its last.
    pub request: Duration,
    /// How long a client may be silent between requests.
    pub idle: Duration,
    /// How long a client may take to read one answer, and the loop to give what it is made of.
    pub answer: Duration,
    /// How long an order may take to be answered.
    pub order: Duration,
    /// How long a client whose request is complete may keep its place while another waits for one. (One that is idle or whose
    /// request is not complete gives way at once.) So this bounds how long anybody waits.
    pub patience: Duration,
    /// How long the loop may be silent before it counts as hanging.
    pub silence: Duration,
    /// How long a client may take to close the connection after the last answer.
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
