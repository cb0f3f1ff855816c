//! Tells the service manager (systemd's `NOTIFY_SOCKET`) how the proxy is; without one, nothing is said.

use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::net::Reactor;

/// All listeners are open.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The drain has begun; it may take `drain_timeout`, however short the manager's own patience is.
pub fn stopping(drain_timeout: Duration) {
    /// For cutting what is left and writing the last lines of the log.
    const MARGIN: Duration = Duration::from_secs(5);
    let patience = drain_timeout.saturating_add(MARGIN).as_micros();
    // The longest that fits is 71 minutes.
    let patience = u32::try_from(patience).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(patience),
    ]);
}

/// Gives a sign of life from the loop that moves the data, so that a loop that hangs is noticed; `None` where no manager waits
/// for one (`WATCHDOG_USEC`).
pub fn signs_of_life(reactor: Rc<Reactor>) -> Option<impl Future<Output = ()>> {
    let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())?;
    Some(async move {
        loop {
            notify(&[NotifyState::Watchdog]);
            // A third, so that a sign that could not be given (no descriptor left for a moment) has a second chance.
            reactor.sleep(patience / 3).await;
        }
    })
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("the service manager cannot be told {states:?}: {error}");
    }
}
