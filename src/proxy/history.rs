//! Records the last hour while there is an admin endpoint to read it.

use std::rc::Rc;
use std::time::Duration;

use crate::net::Reactor;
use crate::state::{History, Shared};
use crate::sys::clock;

/// How long after the end of an interval its sample is taken. The loop's clock is read once per
/// iteration, so a timer could fire before the interval has ended.
const AFTER: Duration = Duration::from_millis(20);

/// Takes the samples until dropped, and then forgets them.
pub(super) async fn record(reactor: Rc<Reactor>, shared: Rc<Shared>) {
    let _recording = Recording(shared.clone());
    loop {
        let now = clock::since_boot();
        shared.sample(now);
        // This clock stands still while the machine is suspended, so the timer is late then.
        reactor.sleep(History::until_due(now) + AFTER).await;
    }
}

struct Recording(Rc<Shared>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.history.take();
    }
}
