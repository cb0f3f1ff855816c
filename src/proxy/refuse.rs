//! Refuses clients that an entrypoint does not admit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::net::Stream;
use crate::state::{AtRefuse, Entrypoint, Peer, RefuseReason, Throttle};

/// What one listener has logged about the clients that it refused.
#[derive(Debug)]
pub(super) struct Refusals {
    limit: Throttle,
    denied: Throttle,
    limited: Throttle,
    loud: Throttle,
}

impl Default for Refusals {
    fn default() -> Self {
        let second = || Throttle::new(Duration::from_secs(1));
        Self {
            limit: second(),
            denied: second(),
            limited: second(),
            loud: Throttle::new(Duration::from_secs(3600)),
        }
    }
}

impl Refusals {
    /// Refuses a client as the configuration says. It never enters the set.
    pub(super) fn refuse(
        &self,
        entrypoint: &Entrypoint,
        reason: RefuseReason,
        (stream, address): (Stream, Option<SocketAddr>),
        now: Instant,
    ) {
        entrypoint.counters.refused.of(reason).increment();
        let name = entrypoint.name();
        let peer = address.map_or(Peer::Unix, Peer::from);
        let throttle = match reason {
            // The log has one line for each such client.
            RefuseReason::Quota => {
                log::debug!(entrypoint = name, peer:% = peer; "refused: the client has used up its quota");
                // Dropping the stream resets it.
                return;
            }
            RefuseReason::Limit => &self.limit,
            RefuseReason::Denied => &self.denied,
            _ => &self.limited,
        };
        if let Some(suppressed) = throttle.admit(now) {
            let open = entrypoint.open.len();
            match reason {
                RefuseReason::Limit => log::warn!(entrypoint = name, open, suppressed;
                    "the entrypoint is at its max_connections; new ones are refused; raise it, or see with `coracle list` who stays"),
                RefuseReason::Denied => log::info!(entrypoint = name, peer:% = peer, suppressed;
                    "the entrypoint's lists deny this address; refused"),
                RefuseReason::Quota => {}
                RefuseReason::ClientLimit => {
                    log::warn!(entrypoint = name, peer:% = peer, suppressed;
                    "the client is at max_connections_per_client; refused; raise it, or see with `coracle list` what it does")
                }
                RefuseReason::ClientRate => {
                    log::warn!(entrypoint = name, peer:% = peer, suppressed;
                    "the client connects more often than connection_rate_per_client; refused; raise it, or connection_burst_per_client")
                }
                RefuseReason::Rate => log::warn!(entrypoint = name, open, suppressed;
                    "clients connect more often than connection_rate; new ones are refused; raise it, or limit each client"),
            }
        }
        match entrypoint.at_refuse.get() {
            // Dropping the stream resets it.
            AtRefuse::Reset => {}
            AtRefuse::Close => stream.finish(),
            AtRefuse::Drop => {
                if let Err(error) = stream.vanish()
                    && let Some(suppressed) = self.loud.admit(now)
                {
                    log::warn!(entrypoint = name, error:% = error, suppressed;
                        "cannot refuse in silence without CAP_NET_ADMIN; resetting instead; grant it, or choose another at_refuse");
                }
            }
        }
    }
}
