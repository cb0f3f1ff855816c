//! Why things end: the closed lists of reasons used in the counters and the access log.

use super::counters::label;

label! {
    /// Why a connection left the set.
    CloseReason {
        /// Both sides finished sending.
        Done = "done",
        /// The client reset the connection; the server's side was reset too.
        ClientReset = "client_reset",
        /// The server reset the connection; the client's side was reset too.
        ServerReset = "server_reset",
        /// The client vanished: keep-alive probes or retransmissions went unanswered, or the
        /// network failed.
        ClientLost = "client_lost",
        /// The server vanished: keep-alive probes or retransmissions went unanswered, or the
        /// network failed.
        ServerLost = "server_lost",
        /// The peer is none of the proxies that the entrypoint trusts.
        Untrusted = "untrusted",
        /// What must come first was not there within `prologue_timeout`: the bytes that decide about
        /// its route, or the PROXY protocol's header, which may also have been malformed or cut off.
        Prologue = "prologue",
        /// A proxy's header named a client that the entrypoint refuses.
        Refused = "refused",
        /// None of the entrypoint's `routes` fitted, and it has no service for the others.
        NoRoute = "no_route",
        /// No server could be reached; the client's side was reset.
        ConnectFailed = "connect_failed",
        /// Every server was down, drained, or had a weight of 0; the client's side was reset.
        NoServer = "no_server",
        /// The server went down, and the configuration says that this ends its connections.
        ServerDown = "server_down",
        /// Every server was at its limit, and so many connections waited already that the queue was
        /// full.
        QueueFull = "queue_full",
        /// No server had room within the service's `queue_timeout`.
        QueueTimeout = "queue_timeout",
        /// The client left while it waited for a server with room.
        LeftQueue = "left_queue",
        /// Nothing passed in either direction for the entrypoint's `idle_timeout`.
        IdleTimeout = "idle_timeout",
        /// One side had finished, the other had not, and nothing passed for the entrypoint's
        /// `half_close_timeout`.
        HalfCloseTimeout = "half_close_timeout",
        /// The set was full and others waited; one side had finished, and nothing had passed for 30
        /// s.
        GaveWay = "gave_way",
        /// The program took more memory than it may, and this connection had been idle the longest.
        Memory = "memory",
        /// Its client had used up its quota, and the configuration says that this ends its
        /// connections.
        Quota = "quota",
        /// The connection was still open `drain_timeout` after the request to stop.
        Drain = "drain",
        /// A reload removed the entrypoint, and the configuration says that this ends its
        /// connections.
        Removed = "removed",
        /// An operator ended it.
        Killed = "killed",
        /// An internal error in coracle ended this connection's task; please report it.
        Panic = "panic",
        /// The task was dropped without a reason.
        Dropped = "dropped",
    }
}

label! {
    /// Why a server could not be reached.
    ConnectError {
        /// The server's host refused the connection: nothing listens there.
        Refused = "refused",
        /// No answer arrived within the service's `connect_timeout`, or what was left of
        /// `dial_timeout`.
        Timeout = "timeout",
        /// There is no route to the host or network, or this machine has no address to reach it
        /// from.
        Unreachable = "unreachable",
        /// The server's name could not be resolved.
        Unresolved = "unresolved",
        /// The address is a listener of this proxy, which would forward to itself.
        Loop = "loop",
        /// The process or the system has run out of descriptors, memory or local ports, or a Unix
        /// socket's backlog is full.
        Exhausted = "exhausted",
        /// Any other error; the log has its text.
        Other = "other",
    }
}

label! {
    /// Why an entrypoint refuses connections.
    RefuseReason {
        /// It has as many as it may have.
        Limit = "limit",
        /// The client has used up its quota.
        Quota = "quota",
        /// Its lists of networks deny the client's address.
        Denied = "denied",
        /// The client has as many connections as one may have.
        ClientLimit = "client_limit",
        /// The client connects too often.
        ClientRate = "client_rate",
        /// All clients together connect too often.
        Rate = "rate",
    }
}
