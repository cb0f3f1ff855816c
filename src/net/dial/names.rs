//! What the servers' names resolve to, looked up by threads beside the loop and kept fresh, never in a connection's way.

use std::cell::{Cell, RefCell};
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
    /// In the order of their names.
    entries: Box<[Entry]>,
    lookups: RefCell<Lookups>,
    /// [`Names::keep_fresh`], while it waits for somebody to ask.
    wanted: Waiters,
    jobs: Sender<Job>,
    answers: Receiver<(usize, io::Result<Vec<IpAddr>>)>,
}

struct Job {
    index: usize,
    name: String,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// The last good answer, used until there is a newer one; or why there has been none; `None` before the first look-up.
    answer: RefCell<Option<Answer>>,
    /// Whether the last look-up failed: that is logged once.
    is_failing: Cell<bool>,
    waiting: Waiters,
}

type Answer = Result<Rc<[IpAddr]>, Rc<str>>;

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.entries).finish()
    }
}

impl Names {
    /// A table of these names, none of them looked up yet, and the threads that will do so; none without a name.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        Self::resolved_by(Arc::new(system), names)
    }

    /// The same with another resolver than the system's.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn resolved_by<'a>(
        resolver: Resolver,
        names: impl IntoIterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        let threads = names.len().min(THREADS);
        let (jobs, to_do) = unbounded::<Job>();
        let (done, answers) = unbounded();
        for n in 1..=threads {
            let (resolver, to_do, done) = (resolver.clone(), to_do.clone(), done.clone());
            // It ends with the table.
            thread::spawn(&format!("look-up {n}"), STACK_BYTES, move || {
                while let Ok(Job { index, name }) = to_do.recv_blocking() {
                    let _ = done.send_blocking((index, resolver(&name)));
                }
            })?;
        }
        Ok(Self {
            lookups: RefCell::new(Lookups::new(names.len(), threads)),
            entries: names.into_iter().map(Entry::new).collect(),
            wanted: Waiters::default(),
            jobs,
            answers,
        })
    }

    /// True if there is no name to be looked up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The addresses of a name, at once unless its first look-up is still under way.
    ///
    /// # Errors
    /// Why the name could not be resolved, when it never could.
    pub async fn addresses(&self, name: &str) -> Result<Rc<[IpAddr]>, Rc<str>> {
        let Ok(index) = self.find(name) else {
            return Err("it is not in the configuration".into());
        };
        let entry = &self.entries[index];
        let mut waiting = entry.waiting.waiting();
        poll_fn(|cx| {
            if let Some(answer) = &*entry.answer.borrow() {
                return Poll::Ready(answer.clone());
            }
            waiting.wait(cx.waker());
            if self.lookups.borrow_mut().want(index) {
                self.wanted.wake_all();
            }
            Poll::Pending
        })
        .await
    }

    /// The addresses of a name, as far as they are known.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<Rc<[IpAddr]>> {
        let entry = &self.entries[self.find(name).ok()?];
        entry.answer.borrow().clone()?.ok()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        let order = |entry: &Entry| entry.name.as_str().cmp(name);
        self.entries.binary_search_by(order)
    }

    /// Looks up all names again and again, for ever.
    pub async fn keep_fresh(self: Rc<Self>, reactor: Rc<Reactor>) {
        loop {
            let now = reactor.now();
            let late = self.lookups.borrow_mut().advance(now);
            for index in late {
                let limit = Lookups::DEADLINE.as_secs();
                self.entries[index].failed(&format!("no answer within {limit} s"));
            }
            while let Some(index) = self.begin(now) {
                let name = self.entries[index].name.clone();
                // Its threads last as long as the table.
                let _ = self.jobs.try_send(Job { index, name });
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
            let answer = async { self.answers.recv().await.ok() };
            if let Some((index, answer)) = answer.or(due).or(wanted).await {
                self.answered(index, answer, &reactor);
            }
        }
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

    fn answered(&self, index: usize, answer: io::Result<Vec<IpAddr>>, reactor: &Reactor) {
        let is_good = answer.as_ref().is_ok_and(|ips| !ips.is_empty());
        let mut lookups = self.lookups.borrow_mut();
        lookups.finished(index, reactor.now(), is_good);
        drop(lookups);
        let entry = &self.entries[index];
        match answer {
            Ok(ips) if ips.is_empty() => entry.failed("it has no address"),
            Ok(ips) => entry.resolved(ips),
            Err(error) => entry.failed(&error.to_string()),
        }
    }
}

impl Entry {
    fn new(name: String) -> Self {
        Self {
            name,
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
