//! What has passed: connections and bytes.

/// What has passed at an object: in all, or in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The connections that were opened.
    pub opened: u64,
    /// The payload bytes relayed to servers and to clients, as [`Direction`](super::Direction) has
    /// them. Those of connections that are still open are included.
    pub bytes: [u64; 2],
}

impl Passed {
    /// Returns the sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let [to_server, to_client] = self.bytes;
        Self {
            opened: self.opened.wrapping_add(other.opened),
            bytes: [
                to_server.wrapping_add(other.bytes[0]),
                to_client.wrapping_add(other.bytes[1]),
            ],
        }
    }

    /// Returns what has passed since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let [to_server, to_client] = self.bytes;
        Self {
            opened: self.opened.wrapping_sub(before.opened),
            bytes: [
                to_server.wrapping_sub(before.bytes[0]),
                to_client.wrapping_sub(before.bytes[1]),
            ],
        }
    }
}
