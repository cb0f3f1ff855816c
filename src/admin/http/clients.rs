//! The endpoint's clients: the tasks that serve them, a limit on their number, and the choice of
//! which client makes room for the next.
//!
//! As for proxied connections, the number of clients is the size of the set.

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
/// The tick while all clients are idle.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has sent nothing since its last response.
    Idle,
    /// Its request is incomplete. For a new client, it has not begun.
    Requesting,
    /// Its response is being made or sent.
    Answering,
    /// It reads events. It does not make room for others: there are limits on how many read them.
    Following,
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
    /// Whether it uses the reserve descriptor.
    has_reserve: bool,
}

impl Clients {
    /// Creates an empty set of at most `limit` clients. See
    /// [`ClientLimits`](crate::admin::ClientLimits) for `patience`.
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

    /// Serves one more client in its own task, for as long as the task keeps its [`Seat`].
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
        // Taken in a separate statement: dropping a task may drop its seat, which borrows the set.
        let clients = std::mem::take(&mut *self.list.borrow_mut());
        drop(clients);
    }

    /// Waits until a seat is free. If none is, and `backlog` has resolved because a client waits
    /// for one, other clients are ended.
    pub(crate) async fn room(&self, park: &Park, backlog: impl Future<Output = ()>) {
        if !self.is_full() {
            return;
        }
        or(backlog, self.left.listen()).await;
        self.make_room(park, || !self.is_full(), |_| true).await;
    }

    /// Waits until the client with the reserve descriptor has left.
    pub(crate) async fn room_for_reserve(&self, park: &Park) {
        self.make_room(park, || !self.has_reserve(), |client| client.has_reserve)
            .await;
    }

    /// Returns `true` if one of these clients uses the reserve descriptor.
    pub(crate) fn has_reserve(&self) -> bool {
        let list = self.list.borrow();
        list.iter().any(|(_, client)| client.has_reserve)
    }

    /// Ends one client after another until `is_done`. Clients that have been idle longest go first,
    /// then those whose request has been incomplete longest, both without delay. After that go the
    /// clients that have waited for their response, or taken to read it, longer than the patience.
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
                    may_end(client)
                        && client.phase != Phase::Following
                        && client.since.elapsed() >= self.patience
                });
            };
            or(left, patience).await;
        }
        self.is_wanted.set(false);
    }

    /// Ends the client that has been in its phase longest, among those that `may_end`. Returns
    /// false if there is none.
    fn end_longest(&self, may_end: impl Fn(&Client) -> bool) -> bool {
        let mut list = self.list.borrow_mut();
        let those = list
            .iter_mut()
            .filter(|(_, client)| client.task.is_some() && may_end(client));
        let longest = those.min_by_key(|(_, client)| client.since);
        let task = longest.and_then(|(_, client)| client.task.take());
        // Released before the task is dropped: its seat may be dropped with it, which borrows the
        // set.
        drop(list);
        task.is_some()
    }

    /// Serves only the requests that have begun: ends all idle clients now, and the others once
    /// they have their response. Resolves when all are gone.
    pub(crate) async fn retire(&self) {
        self.is_wanted.set(true);
        let is_done = |client: &Client| matches!(client.phase, Phase::Idle | Phase::Following);
        while self.end_longest(is_done) {}
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

    /// Returns `true` while a client waits for a seat. Clients that no longer need theirs should
    /// leave.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    /// Returns how often waiting tasks must check again by themselves, or `None` while there is no
    /// client.
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

/// A client's seat in the set. Dropping this leaves the set.
#[derive(Debug)]
pub(crate) struct Seat {
    clients: Rc<Clients>,
    key: usize,
}

impl Seat {
    /// Records what the client does from now on.
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
        // A task that ends by itself drops its seat while it runs, so it is detached, not
        // cancelled.
        if let Some(task) = client.and_then(|client| client.task) {
            task.detach();
        }
        self.clients.left.notify(usize::MAX);
    }
}
