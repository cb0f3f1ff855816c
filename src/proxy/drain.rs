//! The end of a running proxy: it stops accepting, gives open connections time to end, and cuts the
//! rest.

use smol::future::FutureExt;
use smol::stream::{Stream, StreamExt};

use super::commands::Command;
use super::supervisor::Supervisor;
use crate::state::CloseReason;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended by themselves after the request to stop.
    pub ended: usize,
    /// Connections that were cut.
    pub cut: usize,
}

impl Supervisor {
    /// Stops accepting, lets open connections end, and cuts the rest after `drain_timeout` or when
    /// `stops` yields again.
    pub(super) async fn drain(
        mut self,
        signal: Option<&'static str>,
        mut stops: impl Stream<Item = &'static str> + Unpin,
    ) -> Drained {
        let signal = signal.unwrap_or("end of signals");
        let (shared, reactor) = (&self.ground.shared, &self.ground.reactor);
        let drain_timeout = self.running.config.drain_timeout;
        shared.start_draining();
        // This replaces notifications that were not sent yet: they are outdated.
        let stopping = self.ground.manager.stopping(reactor, drain_timeout);
        self.tasks.telling = stopping.map(|rest| self.ground.spawn(rest));
        self.running.listeners.retain(&Default::default()).await;
        let open = shared.conns.len();
        let limit = humantime::format_duration(drain_timeout);
        log::info!(signal, open, drain_timeout:% = limit; "draining; a second signal stops immediately");
        let all_ended = shared.conns.below(1);
        let timed_out = reactor.sleep(drain_timeout);
        let told_again = async {
            if stops.next().await.is_none() {
                // The end of the stream is not a second request.
                std::future::pending().await
            }
        };
        let refusing = async {
            while let Ok(command) = self.commands.recv().await {
                refuse(command);
            }
            std::future::pending().await
        };
        all_ended.or(timed_out).or(told_again).or(refusing).await;
        let cut = shared.conns.kill_all(CloseReason::Drain, reactor.now());
        shared.conns.below(1).await;
        let ended = open - cut;
        log::info!(ended, cut; "drained");
        Drained { ended, cut }
    }
}

/// Rejects a command, because a draining proxy takes none.
fn refuse(command: Command) {
    let mut why = "coracle: the proxy is draining and accepts no new configuration";
    let answer = match command {
        Command::Reload { by, answer } => {
            log::warn!(target: "setup", by; "not reloaded: the proxy is draining and accepts no new configuration");
            answer
        }
        Command::DryRun { answer, .. } => Some(answer),
        Command::Server { answer, .. } => {
            why = "coracle: the proxy is draining and takes no orders for servers";
            Some(answer)
        }
    };
    if let Some(answer) = answer {
        let _ = answer.try_send(Err(why.to_owned()));
    }
}
