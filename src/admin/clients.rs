//! The clients of the endpoint: the tasks that serve them, bounded in number.
//!
//! As with the connections that are proxied, how many there are is the size of the set. When all places are taken, whoever
//! comes waits in the listener's backlog, and idle clients are asked to make room.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use event_listener::{Event, EventListener};
use slab::Slab;
use smol::future::or;
use smol::{LocalExecutor, Task};

/// The set of clients.
#[derive(Debug)]
pub struct Clients {
    limit: usize,
    tasks: RefCell<Slab<Option<Task<()>>>>,
    left: Event,
    wanted: Cell<bool>,
    idle: Event,
}

impl Clients {
    /// No clients yet, and at most `limit` at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            tasks: RefCell::default(),
            left: Event::new(),
            wanted: Cell::new(false),
            idle: Event::new(),
        }
    }

    /// Serves one more client in a task of its own, for as long as it keeps its [`Place`].
    pub fn spawn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        executor: &LocalExecutor<'static>,
        serve: impl FnOnce(Place) -> F,
    ) {
        let key = self.tasks.borrow_mut().insert(None);
        let task = executor.spawn(serve(Place {
            clients: self.clone(),
            key,
        }));
        self.tasks.borrow_mut()[key] = Some(task);
    }

    /// Ends every client by dropping its task.
    pub fn end_all(&self) {
        // Taken in a statement of its own: dropping a task may drop its place, which borrows the set.
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
    }

    /// Waits until a place is free. While none is and `backlog` has resolved, that is while somebody waits for one, idle
    /// clients are asked to go, one for each place.
    pub async fn room(&self, backlog: impl Future<Output = ()>) {
        if !self.is_full() {
            return;
        }
        or(backlog, self.left.listen()).await;
        self.wanted.set(true);
        while self.is_full() {
            let left = self.left.listen();
            self.idle.notify(1);
            left.await;
        }
        self.wanted.set(false);
    }

    /// Resolves when the next client has left.
    pub fn left(&self) -> EventListener {
        self.left.listen()
    }

    /// True while somebody waits for a place: whoever keeps one without need shall go.
    pub fn is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Resolves when the idle client that awaits this shall make room.
    pub async fn asked_to_go(&self) {
        if !self.is_wanted() {
            self.idle.listen().await;
        }
    }

    fn is_full(&self) -> bool {
        self.tasks.borrow().len() >= self.limit
    }
}

/// A client's place in the set, which it leaves by dropping this.
#[derive(Debug)]
pub struct Place {
    clients: Rc<Clients>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let task = self.clients.tasks.borrow_mut().try_remove(self.key);
        // A task that ends by itself drops its place while it runs: it is let go, not cancelled.
        if let Some(task) = task.flatten() {
            task.detach();
        }
        self.clients.left.notify(1);
    }
}
