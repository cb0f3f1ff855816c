//! What the servers' names resolve to, looked up by threads beside the loop and kept fresh, never in a connection's way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use smol::channel::{Receiver, Sender, unbounded};
use smol::future::FutureExt;

use crate::net::reactor::Reactor;
use crate::state::{Lookups, Waiters};
use crate::sys::thread;

/// The most look-ups at the same time, each on a thread that is started with the table and kept.
const THREADS: usize = 4;
/// Enough for getaddrinfo with the modules that glibc loads for it (`nsswitch.conf`). Only what is used of it takes memory.
const STACK_BYTES: usize = 256 * 1024;

/// Asks for a name's addresses, and blocks while it does.
pub type Resolver = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The table of names. [`Names::keep_fresh`] fills it.
pub struct Names {
    table: RefCell<BTreeMap<usize, Rc<Name>>>,
    lookups: RefCell<Lookups>,
    /// [`Names::keep_fresh`], while it waits for somebody to ask.
    wanted: Waiters,
    resolver: Resolver,
    threads: Cell<usize>,
    jobs: (Sender<Job>, Receiver<Job>),
    answers: (Sender<Found>, Receiver<Found>),
}

struct Job {
    number: usize,
    name: String,
}

type Found = (usize, io::Result<Vec<IpAddr>>);

/// A name that is looked up for as long as somebody holds it.
#[derive(Debug)]
pub struct Name {
    name: String,
    number: usize,
    /// The last good answer, used until there is a newer one; or why there has been none; `None` before the first look-up.
    answer: RefCell<Option<Answer>>,
    /// Whether the last look-up failed: that is logged once.
    is_failing: Cell<bool>,
    waiting: Waiters,
}

type Answer = Result<Rc<[IpAddr]>, Rc<str>>;

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.table.borrow().values())
            .finish()
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::resolved_by(Arc::new(system))
    }
}

impl Names {
    /// A table without a name, and with another resolver than the system's.
    #[must_use]
    pub fn resolved_by(resolver: Resolver) -> Self {
        Self {
            table: RefCell::default(),
            lookups: RefCell::new(Lookups::new(0)),
            wanted: Waiters::default(),
            resolver,
            threads: Cell::new(0),
            jobs: unbounded(),
            answers: unbounded(),
        }
    }

    /// A name, to be looked up from now on and until nobody holds it. The first names have threads started for them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn hold(&self, name: &str) -> io::Result<Rc<Name>> {
        let found = self
            .table
            .borrow()
            .values()
            .find(|it| it.name == name)
            .cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        self.forget_unused();
        if self.threads.get() < (self.table.borrow().len() + 1).min(THREADS) {
            self.start_thread()?;
        }
        let number = self.lookups.borrow_mut().add();
        let name = Rc::new(Name::new(name.to_owned(), number));
        self.table.borrow_mut().insert(number, name.clone());
        self.wanted.wake_all();
        Ok(name)
    }

    /// True if there is no name to be looked up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.borrow().is_empty()
    }

    fn start_thread(&self) -> io::Result<()> {
        let n = self.threads.get() + 1;
        let resolver = self.resolver.clone();
        let (to_do, done) = (self.jobs.1.clone(), self.answers.0.clone());
        // It ends with the table.
        thread::spawn(&format!("look-up {n}"), STACK_BYTES, move || {
            while let Ok(Job { number, name }) = to_do.recv_blocking() {
                let _ = done.send_blocking((number, resolver(&name)));
            }
        })?;
        self.threads.set(n);
        self.lookups.borrow_mut().set_places(n);
        Ok(())
    }

    fn forget_unused(&self) {
        let mut lookups = self.lookups.borrow_mut();
        let mut table = self.table.borrow_mut();
        table.retain(|number, name| Rc::strong_count(name) > 1 || !lookups.remove(*number));
    }

    /// The addresses of a name, at once unless its first look-up is still under way.
    ///
    /// # Errors
    /// Why the name could not be resolved, when it never could.
    pub async fn addresses(&self, name: &Name) -> Result<Rc<[IpAddr]>, Rc<str>> {
        let mut waiting = name.waiting.waiting();
        poll_fn(|cx| {
            if let Some(answer) = &*name.answer.borrow() {
                return Poll::Ready(answer.clone());
            }
            waiting.wait(cx.waker());
            if self.lookups.borrow_mut().want(name.number) {
                self.wanted.wake_all();
            }
            Poll::Pending
        })
        .await
    }

    /// The addresses of a name, as far as they are known.
    #[must_use]
    pub fn known(&self, name: &Name) -> Option<Rc<[IpAddr]>> {
        name.answer.borrow().clone()?.ok()
    }

    /// Looks up all names again and again, for ever.
    pub async fn keep_fresh(self: Rc<Self>, reactor: Rc<Reactor>) {
        loop {
            let now = reactor.now();
            self.forget_unused();
            let late = self.lookups.borrow_mut().advance(now);
            for number in late {
                let limit = Lookups::DEADLINE.as_secs();
                if let Some(name) = self.find(number) {
                    name.failed(&format!("no answer within {limit} s"));
                }
            }
            while let Some(number) = self.begin(now) {
                let name = self.find(number).map(|it| it.name.clone());
                let name = name.unwrap_or_default();
                // Its threads last as long as the table.
                let _ = self.jobs.0.try_send(Job { number, name });
            }
            let next_event = self.lookups.borrow().next_event();
            let due = async {
                match next_event {
                    Some(at) => reactor.sleep_until(at).await,
                    None => pending().await,
                }
                None
            };
            let wanted = async {
                self.somebody_asks().await;
                None
            };
            let answer = async { self.answers.1.recv().await.ok() };
            if let Some((number, answer)) = answer.or(due).or(wanted).await {
                self.answered(number, answer, &reactor);
            }
        }
    }

    fn find(&self, number: usize) -> Option<Rc<Name>> {
        self.table.borrow().get(&number).cloned()
    }

    fn begin(&self, now: std::time::Instant) -> Option<usize> {
        self.lookups.borrow_mut().begin(now)
    }

    /// Waits until a name is wanted that was not before.
    async fn somebody_asks(&self) {
        let mut waiting = self.wanted.waiting();
        let mut asked = false;
        poll_fn(|cx| {
            waiting.wait(cx.waker());
            match std::mem::replace(&mut asked, true) {
                false => Poll::Pending,
                true => Poll::Ready(()),
            }
        })
        .await;
    }

    fn answered(&self, number: usize, answer: io::Result<Vec<IpAddr>>, reactor: &Reactor) {
        let is_good = answer.as_ref().is_ok_and(|ips| !ips.is_empty());
        let mut lookups = self.lookups.borrow_mut();
        lookups.finished(number, reactor.now(), is_good);
        drop(lookups);
        let Some(name) = self.find(number) else {
            return;
        };
        match answer {
            Ok(ips) if ips.is_empty() => name.failed("it has no address"),
            Ok(ips) => name.resolved(ips),
            Err(error) => name.failed(&error.to_string()),
        }
    }
}

impl Name {
    fn new(name: String, number: usize) -> Self {
        Self {
            name,
            number,
            answer: RefCell::default(),
            is_failing: Cell::new(false),
            waiting: Waiters::default(),
        }
    }

    fn resolved(&self, ips: Vec<IpAddr>) {
        let name = self.name.as_str();
        log::debug!(name, addresses:? = ips; "resolved");
        if self.is_failing.replace(false) {
            log::info!(name; "the name resolves again");
        }
        self.answer.replace(Some(Ok(ips.into())));
        self.waiting.wake_all();
    }

    /// A failure does not take away what was known.
    fn failed(&self, why: &str) {
        if !self.is_failing.replace(true) {
            log::warn!(name = self.name.as_str(), error = why;
                "cannot resolve the name; trying again until it can be");
        }
        let mut answer = self.answer.borrow_mut();
        if !matches!(*answer, Some(Ok(_))) {
            *answer = Some(Err(why.into()));
        }
        drop(answer);
        self.waiting.wake_all();
    }
}

fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    let addresses = (name, 0).to_socket_addrs()?;
    Ok(addresses.map(|address| address.ip()).collect())
}
