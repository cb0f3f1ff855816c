//! Resolves the servers' names on background threads and keeps the results fresh, so that
//! connections do not wait for look-ups.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smol::channel::{Receiver, Sender, unbounded};
use smol::future::FutureExt;

use super::name::{Answer, Known, Looked, Name};
use super::offers::{self, Offer, first};
use crate::net::reactor::Reactor;
use crate::state::{Lookups, Sorted, Waiters};
use crate::sys::thread;

/// The most simultaneous look-ups. Each has its own thread, started when needed and then kept.
const THREADS: usize = 4;
/// Enough for getaddrinfo with the modules that glibc loads for it (`nsswitch.conf`). Only the part
/// that is used takes memory.
const STACK_BYTES: usize = 256 * 1024;

/// Resolves a name to its addresses.
///
/// Blocks until the answer arrives.
pub type Resolver = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The table of names.
///
/// [`Names::keep_fresh`] fills it.
pub struct Names {
    table: RefCell<Sorted<usize, Rc<Name>>>,
    lookups: RefCell<Lookups>,
    /// Wakes [`Names::keep_fresh`] when a name is requested.
    wanted: Waiters,
    /// How many answers have differed from the one before.
    changes: Cell<u64>,
    /// Wakes those who wait for another change.
    changed: Waiters,
    resolver: Resolver,
    threads: Cell<usize>,
    jobs: (Sender<Job>, Receiver<Job>),
    answers: (Sender<Found>, Receiver<Found>),
}

struct Job {
    number: usize,
    name: String,
    is_srv: bool,
}

type Found = (usize, Looked);

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
    /// Creates an empty table that uses `resolver` instead of the system's.
    #[must_use]
    pub fn resolved_by(resolver: Resolver) -> Self {
        Self {
            table: RefCell::default(),
            lookups: RefCell::new(Lookups::new(0)),
            wanted: Waiters::default(),
            changes: Cell::default(),
            changed: Waiters::default(),
            resolver,
            threads: Cell::new(0),
            jobs: unbounded(),
            answers: unbounded(),
        }
    }

    /// Returns a name that is resolved from now on until it is no longer held.
    ///
    /// The first names start threads.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn hold(&self, name: &str) -> io::Result<Rc<Name>> {
        self.hold_as(name, false)
    }

    /// As [`Names::hold`], for a name with SRV records.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn hold_srv(&self, name: &str) -> io::Result<Rc<Name>> {
        self.hold_as(name, true)
    }

    fn hold_as(&self, name: &str, is_srv: bool) -> io::Result<Rc<Name>> {
        let is_it = |it: &&Rc<Name>| it.name == name && it.is_srv == is_srv;
        let found = self.table.borrow().values().find(is_it).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        self.forget_unused();
        if self.threads.get() < (self.table.borrow().len() + 1).min(THREADS) {
            self.start_thread()?;
        }
        let number = self.lookups.borrow_mut().add();
        let name = Rc::new(Name::new(name.to_owned(), is_srv, number));
        self.table.borrow_mut().insert(number, name.clone());
        self.wanted.wake_all();
        Ok(name)
    }

    /// Returns true if the table has no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.borrow().is_empty()
    }

    fn start_thread(&self) -> io::Result<()> {
        let n = self.threads.get() + 1;
        let resolver = self.resolver.clone();
        let (to_do, done) = (self.jobs.1.clone(), self.answers.0.clone());
        // The thread ends with the table.
        thread::spawn(&format!("look-up {n}"), STACK_BYTES, move || {
            while let Ok(job) = to_do.recv_blocking() {
                let looked = match job.is_srv {
                    false => Looked::Up(resolver(&job.name)),
                    true => Looked::UpSrv(offers::look_up(&job.name, &*resolver)),
                };
                let _ = done.send_blocking((job.number, looked));
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

    /// Returns the addresses of a name; for a name with SRV records, those of the first target.
    ///
    /// Waits only until its first look-up ends.
    ///
    /// # Errors
    /// Why the name could not be resolved, if it never could.
    pub async fn addresses(&self, name: &Name) -> Result<Rc<[IpAddr]>, Rc<str>> {
        self.endpoint(name, 0).await.map(|(ips, _)| ips)
    }

    /// As [`Names::addresses`], with the port: `port`, or that of the SRV record.
    ///
    /// # Errors
    /// As [`Names::addresses`], and if the domain does not offer the service.
    pub async fn endpoint(&self, name: &Name, port: u16) -> Result<(Rc<[IpAddr]>, u16), Rc<str>> {
        match self.answer(name).await? {
            Known::Addresses(ips) => Ok((ips, port)),
            Known::Offers(offers) => {
                first(&offers).ok_or_else(|| "the domain does not offer this service".into())
            }
        }
    }

    async fn answer(&self, name: &Name) -> Answer {
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

    /// Returns the addresses of a name, if they are known.
    #[must_use]
    pub fn known(&self, name: &Name) -> Option<Rc<[IpAddr]>> {
        match &*name.answer.borrow() {
            Some(Ok(Known::Addresses(ips))) => Some(ips.clone()),
            _ => None,
        }
    }

    /// Returns the servers that a name's SRV records stand for, the ones to use first at the
    /// beginning, if they are known.
    #[must_use]
    pub fn known_offers(&self, name: &Name) -> Option<Rc<[Offer]>> {
        name.offers()
    }

    /// Sets how long an answer for a name is used before the name is looked up again.
    pub fn set_interval(&self, name: &Name, interval: Duration, reactor: &Reactor) {
        let mut lookups = self.lookups.borrow_mut();
        lookups.set_interval(name.number, interval, reactor.now());
        drop(lookups);
        self.wanted.wake_all();
    }

    /// Waits until more than `seen` answers have differed from the one before. Returns how many.
    pub async fn changed(&self, seen: u64) -> u64 {
        let mut waiting = self.changed.waiting();
        poll_fn(|cx| {
            if self.changes.get() != seen {
                return Poll::Ready(self.changes.get());
            }
            waiting.wait(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Looks up all names repeatedly.
    ///
    /// Runs until cancelled.
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
                let name = self.find(number);
                let job = Job {
                    number,
                    is_srv: name.as_ref().is_some_and(|it| it.is_srv),
                    name: name.map(|it| it.name.clone()).unwrap_or_default(),
                };
                // Sending cannot fail: the threads live as long as the table.
                let _ = self.jobs.0.try_send(job);
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

    /// Waits until another name is wanted.
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

    fn answered(&self, number: usize, looked: Looked, reactor: &Reactor) {
        let name = self.find(number);
        let is_new = name.as_ref().map(|it| it.answered(looked));
        let is_good = name.is_some_and(|it| !it.is_failing.get());
        let mut lookups = self.lookups.borrow_mut();
        lookups.finished(number, reactor.now(), is_good);
        drop(lookups);
        if is_new == Some(true) {
            self.changes.set(self.changes.get() + 1);
            self.changed.wake_all();
        }
    }
}

fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    let addresses = (name, 0).to_socket_addrs()?;
    Ok(addresses.map(|address| address.ip()).collect())
}
