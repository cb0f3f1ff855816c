//! The end of a running proxy: it stops accepting, gives open connections time to end, and cuts the
//! rest.

use std::time::Duration;

use smol::future::FutureExt;

use super::commands::{Command, End};
use super::supervisor::Supervisor;
use super::{kill, log_level};
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
        self.running.listeners.retain(&[]).await;
        let open = shared.conns.len();
        let limit = humantime::format_duration(drain_timeout);
        let mut was_ordered = answer.is_some();
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
            let deadline = reactor.now() + drain_timeout;
            loop {
                let ended = async {
                    shared.conns.below(1).await;
                    None
                };
                let late = async {
                    reactor.sleep_until(deadline).await;
                    None
                };
                let command = async { Some(self.next_command().await) };
                match ended.or(late).or(command).await {
                    None => break,
                    Some(Command::Stop { by, answer }) => {
                        log::info!(by; "stopping");
                        stop = answer;
                        break;
                    }
                    Some(command) => was_ordered |= self.obey_draining(command).await,
                }
            }
        }
        let cut = shared.conns.kill_all(CloseReason::Drain, reactor.now());
        shared.conns.below(1).await;
        self.accounting.finish(&self.ground).await;
        let ended = open - cut;
        log::info!(ended, cut; "drained");
        if let Some(answer) = stop {
            was_ordered = true;
            let _ = answer.try_send(Ok(format!("stopped: {} reset", count(cut, "connection"))));
        }
        if was_ordered {
            let late = reactor.sleep(FAREWELL);
            self.admin.retire().or(late).await;
        }
        Drained { ended, cut }
    }

    /// Ends connections on command, and rejects what a draining proxy does not do. Returns whether
    /// somebody waits for the answer.
    async fn obey_draining(&self, command: Command) -> bool {
        const NO_RELOAD: &str = "coracle: the proxy is draining and accepts no new configuration";
        const NO_ORDER: &str = "coracle: the proxy is draining and takes no orders for servers";
        let (answer, told) = match command {
            Command::Reload { by, answer } => {
                log::warn!(target: "setup", by; "not reloaded: the proxy is draining and accepts no new configuration");
                (answer, Err(NO_RELOAD.to_owned()))
            }
            Command::DryRun { answer, .. } => (Some(answer), Err(NO_RELOAD.to_owned())),
            Command::Server { answer, .. } => (Some(answer), Err(NO_ORDER.to_owned())),
            Command::Kill {
                which,
                is_dry_run,
                by,
                answer,
            } => {
                let killed = kill::obey(&self.ground, &which, is_dry_run, by).await;
                (Some(answer), killed)
            }
            Command::LogLevel { level, by, answer } => {
                let changed = log_level::obey(&self.ground, &self.running, level, by);
                (Some(answer), Ok(changed))
            }
            Command::Drain { by, answer } | Command::Stop { by, answer } => {
                let open = count(self.ground.shared.conns.len(), "connection");
                log::info!(by; "draining already");
                (answer, Ok(format!("draining already: {open} left")))
            }
        };
        // The receiver may be gone.
        answer.is_some_and(|answer| answer.try_send(told).is_ok())
    }
}
