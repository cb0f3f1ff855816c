//! The clients of the endpoint: the tasks that serve them, bounded in number, and who of them gives way to the next.
//!
//! As with the connections that are proxied, how many there are is the size of the set.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener};
use slab::Slab;
use smol::future::{FutureExt, or};
use smol::{LocalExecutor, Task};

use crate::admin::park::Park;

/// The tick while a client waits for something.
const BUSY_TICK: Duration = Duration::from_millis(500);
/// The tick while all of them are idle.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// What a client is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has sent nothing since its last answer.
    Idle,
    /// Its request is not complete; a new client's has not begun.
    Requesting,
    /// Its answer is made or sent.
    Answering,
}

/// The set of clients.
#[derive(Debug)]
pub(crate) struct Clients {
    limit: usize,
    patience: Duration,
    list: RefCell<Slab<Client>>,
    left: Event,
    is_wanted: Cell<bool>,
}

#[derive(Debug)]
struct Client {
    /// `None` once it is being ended.
    task: Option<Task<()>>,
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// Whether it has the reserve descriptor.
    has_reserve: bool,
}

impl Clients {
    /// No clients yet, and at most `limit` at once. [`ClientLimits`](crate::admin::ClientLimits) says what `patience` is.
    #[must_use]
    pub(crate) fn new(limit: usize, patience: Duration) -> Self {
        Self {
            limit,
            patience,
            list: RefCell::default(),
            left: Event::new(),
            is_wanted: Cell::new(false),
        }
    }

    /// Serves one more client in a task of its own, for as long as it keeps its [`Seat`].
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        executor: &LocalExecutor<'static>,
        has_reserve: bool,
        serve: impl FnOnce(Seat) -> F,
    ) {
        let key = self.list.borrow_mut().insert(Client {
            task: None,
            phase: Phase::Requesting,
            since: Instant::now(),
            has_reserve,
        });
        let clients = self.clone();
        let task = executor.spawn(serve(Seat { clients, key }).boxed_local());
        self.list.borrow_mut()[key].task = Some(task);
    }

    /// Ends every client by dropping its task.
    pub(crate) fn end_all(&self) {
        // Taken in a statement of its own: dropping a task may drop its seat, which borrows the set.
        let clients = std::mem::take(&mut *self.list.borrow_mut());
        drop(clients);
    }

    /// Waits until a seat is free. While none is and `backlog` has resolved, that is while somebody waits for one, others give way.
    pub(crate) async fn room(&self, park: &Park, backlog: impl Future<Output = ()>) {
        if !self.is_full() {
            return;
        }
        or(backlog, self.left.listen()).await;
        self.make_room(park, || !self.is_full(), |_| true).await;
    }

    /// Waits until the client with the reserve descriptor has given way.
    pub(crate) async fn room_for_reserve(&self, park: &Park) {
        self.make_room(park, || !self.has_reserve(), |client| client.has_reserve)
            .await;
    }

    /// Whether one of these clients has the reserve descriptor.
    pub(crate) fn has_reserve(&self) -> bool {
        let list = self.list.borrow();
        list.iter().any(|(_, client)| client.has_reserve)
    }

    /// Ends one client after the other until `is_done`: first the one that has been idle for the longest, then the one whose request has been
    /// incomplete for the longest, both at once; and then whoever has waited for its answer or read it for longer than the patience.
    async fn make_room(
        &self,
        park: &Park,
        is_done: impl Fn() -> bool,
        may_end: impl Fn(&Client) -> bool,
    ) {
        self.is_wanted.set(true);
        while !is_done() {
            let left = self.left.listen();
            if self.end_longest(|client| may_end(client) && client.phase == Phase::Idle)
                || self.end_longest(|client| may_end(client) && client.phase == Phase::Requesting)
            {
                left.await;
                continue;
            }
            let patience = async {
                park.sleep(self.patience).await;
                self.end_longest(|client| {
                    may_end(client) && client.since.elapsed() >= self.patience
                });
            };
            or(left, patience).await;
        }
        self.is_wanted.set(false);
    }

    /// Ends the client that is in its phase for the longest, among those that `may_end`. False if there is none.
    fn end_longest(&self, may_end: impl Fn(&Client) -> bool) -> bool {
        let mut list = self.list.borrow_mut();
        let those = list
            .iter_mut()
            .filter(|(_, client)| client.task.is_some() && may_end(client));
        let longest = those.min_by_key(|(_, client)| client.since);
        let task = longest.and_then(|(_, client)| client.task.take());
        // Before the task is dropped, and perhaps its seat with it, which borrows the set.
        drop(list);
        task.is_some()
    }

    /// Serves no request beyond those that have begun: ends all idle clients now, and the others once they have their answer.
    /// Resolves when all have gone.
    pub(crate) async fn retire(&self) {
        self.is_wanted.set(true);
        while self.end_longest(|client| client.phase == Phase::Idle) {}
        loop {
            let left = self.left.listen();
            if self.list.borrow().is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Resolves when the next client has left.
    pub(crate) fn left(&self) -> EventListener {
        self.left.listen()
    }

    /// True while somebody waits for a seat: whoever keeps one without need shall go.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    /// How often those who wait are to look again by themselves; `None` while there is nobody.
    pub(crate) fn tick(&self) -> Option<Duration> {
        let list = self.list.borrow();
        let is_busy = list.iter().any(|(_, client)| client.phase != Phase::Idle);
        let tick = if is_busy { BUSY_TICK } else { IDLE_TICK };
        (!list.is_empty()).then_some(tick)
    }

    fn is_full(&self) -> bool {
        self.list.borrow().len() >= self.limit
    }
}

/// A client's seat in the set, which it leaves by dropping this.
#[derive(Debug)]
pub(crate) struct Seat {
    clients: Rc<Clients>,
    key: usize,
}

impl Seat {
    /// Notes what the client is about from now on.
    pub(crate) fn enters(&self, phase: Phase) {
        if let Some(client) = self.clients.list.borrow_mut().get_mut(self.key) {
            client.phase = phase;
            client.since = Instant::now();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let client = self.clients.list.borrow_mut().try_remove(self.key);
        // A task that ends by itself drops its seat while it runs: it is let go, not cancelled.
        if let Some(task) = client.and_then(|client| client.task) {
            task.detach();
        }
        self.clients.left.notify(usize::MAX);
    }
}
