//! Wakes the connections that wait because their bandwidth is limited: one task and one timer for
//! all of them.

use smol::Task;

use super::ground::Ground;
use super::running;
use crate::config::{AtQuota, Config};

/// The task, once a configuration has limited the bandwidth.
///
/// It stays when a later one does not, because connections of a removed entrypoint keep their
/// limits. While nothing waits, it does nothing.
#[derive(Debug, Default)]
pub(super) struct Pacing(Option<Task<()>>);

impl Pacing {
    /// Starts the task if `config`, which has come into force, needs it, and gives open connections
    /// their limits.
    pub(super) fn adopt(&mut self, ground: &Ground, config: &Config) {
        if self.0.is_none() && limits_bandwidth(config) {
            self.0 = Some(ground.spawn(pace(ground.clone())));
        }
        if self.0.is_some() {
            ground.shared.limit_all(ground.reactor.now());
        }
    }
}

fn limits_bandwidth(config: &Config) -> bool {
    let entrypoints = config.entrypoints.iter();
    let mut entrypoints = entrypoints.map(|it| running::bandwidth(it).is_unlimited());
    let services = config.services.iter();
    let mut services = services.map(|it| it.bandwidth.is_unlimited());
    let accounting = config.accounting.as_ref();
    let slows = accounting.is_some_and(|it| it.at_quota == AtQuota::Slow);
    slows || !entrypoints.all(|it| it) || !services.all(|it| it)
}

async fn pace(ground: Ground) {
    let conns = &ground.shared.conns;
    loop {
        let now = ground.reactor.now();
        match conns.resume(now) {
            None => conns.resumes_before(None).await,
            // Those that were woken run first.
            Some(at) if at <= now => ground.reactor.next_iteration().await,
            Some(at) => {
                let sooner = conns.resumes_before(Some(at));
                smol::future::or(ground.reactor.sleep_until(at), sooner).await;
            }
        }
    }
}
