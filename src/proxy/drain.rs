//! The end of a running proxy: it stops accepting, gives open connections time to end, and cuts the
//! rest.

use std::time::Duration;

use smol::future::FutureExt;

use super::commands::{Answer, Command, End};
use super::supervisor::Supervisor;
use crate::config::count;
use crate::state::CloseReason;

/// How long the answer to the order to end may take to reach its client.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended by themselves after the request to stop.
    pub ended: usize,
    /// Connections that were cut.
    pub cut: usize,
}

impl Supervisor {
    /// Stops accepting, lets open connections end, and cuts the rest after `drain_timeout` or at a
    /// command to stop.
    pub(super) async fn drain(mut self, End { by, is_now, answer }: End) -> Drained {
        let (shared, reactor) = (&self.ground.shared, &self.ground.reactor);
        let drain_timeout = match is_now {
            true => Duration::ZERO,
            false => self.running.config.drain_timeout,
        };
        shared.start_draining();
        // This replaces notifications that were not sent yet: they are outdated.
        let stopping = self.ground.manager.stopping(reactor, drain_timeout);
        self.tasks.telling = stopping.map(|rest| self.ground.spawn(rest));
        self.running.listeners.retain(&Default::default()).await;
        let open = shared.conns.len();
        let limit = humantime::format_duration(drain_timeout);
        let was_ordered = answer.is_some();
        let mut stop = None;
        if is_now {
            log::info!(by, open; "stopping");
            stop = answer;
        } else {
            log::info!(by, open, drain_timeout:% = limit; "draining; a second signal stops immediately");
            if let Some(answer) = answer {
                let open = count(open, "connection");
                let _ = answer.try_send(Ok(format!("draining: {open} may continue for {limit}")));
            }
            let all_ended = async {
                shared.conns.below(1).await;
                None
            };
            let timed_out = async {
                reactor.sleep(drain_timeout).await;
                None
            };
            let stopped = all_ended.or(timed_out).or(self.obey_draining()).await;
            if let Some((by, answer)) = stopped {
                log::info!(by; "stopping");
                stop = answer;
            }
        }
        let cut = shared.conns.kill_all(CloseReason::Drain, reactor.now());
        shared.conns.below(1).await;
        let ended = open - cut;
        log::info!(ended, cut; "drained");
        let was_stopped = stop.is_some();
        if let Some(answer) = stop {
            let _ = answer.try_send(Ok(format!("stopped: {} reset", count(cut, "connection"))));
        }
        if was_ordered || was_stopped {
            let late = reactor.sleep(FAREWELL);
            self.admin.retire().or(late).await;
        }
        Drained { ended, cut }
    }

    /// Obeys commands while the proxy drains, until one says to stop. Returns who sent it and who
    /// wants to know the result.
    async fn obey_draining(&self) -> Option<(&'static str, Option<Answer>)> {
        while let Ok(command) = self.commands.recv().await {
            match command {
                Command::Stop { by, answer } => return Some((by, answer)),
                other => self.refuse(other),
            }
        }
        // Impossible: this task has a sender itself.
        std::future::pending().await
    }

    /// Rejects a command, because a draining proxy takes none but to stop.
    fn refuse(&self, command: Command) {
        let mut told =
            Err("coracle: the proxy is draining and accepts no new configuration".to_owned());
        let answer = match command {
            Command::Reload { by, answer } => {
                log::warn!(target: "setup", by; "not reloaded: the proxy is draining and accepts no new configuration");
                answer
            }
            Command::DryRun { answer, .. } => Some(answer),
            Command::Server { answer, .. } => {
                told = Err(
                    "coracle: the proxy is draining and takes no orders for servers".to_owned(),
                );
                Some(answer)
            }
            Command::Drain { by, answer } | Command::Stop { by, answer } => {
                let open = count(self.ground.shared.conns.len(), "connection");
                log::info!(by; "draining already");
                told = Ok(format!("draining already: {open} left"));
                answer
            }
        };
        if let Some(answer) = answer {
            let _ = answer.try_send(told);
        }
    }
}
