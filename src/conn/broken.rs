//! Why a connection has broken.

use std::io;

use crate::state::CloseReason;

/// Returns the reason for a client's connection that has failed.
pub(super) fn lost_client(error: &io::Error) -> CloseReason {
    if is_reset(error) {
        CloseReason::ClientReset
    } else {
        CloseReason::ClientLost
    }
}

/// Returns true if the peer reset the connection, rather than going silent or the network failing.
///
/// EPIPE means that a half-closed connection was reset.
pub(super) fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected
    )
}
