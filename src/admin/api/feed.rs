//! Those who follow the events. While there are any, looks at the state once a second and passes
//! on what has changed. A reader that does not keep up is cut.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use slab::Slab;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;

use super::events::{self, changes, hello};
use crate::admin::moments::Moments;
use crate::admin::park::Park;
use crate::admin::requests::Followers;
use crate::state::{KeptLines, LogLines};

/// The time from one look at the state to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// After this many looks without an event, readers get a comment, which shows whether they are
/// still there.
const SILENT_LOOKS: u32 = 15;
/// How many looks' events may wait for a reader.
const WAITING: usize = 16;

/// The readers, and the work for them.
#[derive(Debug)]
pub(crate) struct Feed {
    readers: RefCell<Slab<Follower>>,
    /// How many there may be over TCP, and over the control socket.
    limits: [usize; 2],
    joined: Event,
    cut: Cell<u64>,
    log: Arc<Mutex<LogLines>>,
}

#[derive(Debug)]
struct Follower {
    events: Sender<Rc<str>>,
    /// Whether it has not had its first events.
    is_new: bool,
    is_control: bool,
}

impl Feed {
    /// Creates a feed without readers. At most half of the clients of each kind may be readers.
    #[must_use]
    pub(crate) fn new(
        clients: usize,
        control_clients: usize,
        log: Arc<Mutex<LogLines>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            readers: RefCell::default(),
            limits: [clients / 2, control_clients / 2],
            joined: Event::new(),
            cut: Cell::new(0),
            log,
        })
    }

    /// Adds a reader, over the control socket or over TCP. Returns `None` if there are too many.
    pub(crate) fn join(self: &Rc<Self>, is_control: bool) -> Option<Reader> {
        let mut readers = self.readers.borrow_mut();
        let [tcp, control] = self.limits;
        let limit = if is_control { control } else { tcp };
        let same = readers.iter().filter(|(_, it)| it.is_control == is_control);
        if same.count() >= limit {
            return None;
        }
        let (sender, events) = bounded(WAITING);
        let key = readers.insert(Follower {
            events: sender,
            is_new: true,
            is_control,
        });
        self.joined.notify(1);
        Some(Reader {
            feed: self.clone(),
            key,
            events,
        })
    }

    /// Returns the numbers of readers.
    pub(crate) fn numbers(&self) -> Followers {
        Followers {
            now: self.readers.borrow().len() as u64,
            cut: self.cut.get(),
        }
    }

    /// Passes on what changes, while there are readers. Runs until cancelled.
    pub(crate) async fn work(&self, moments: &Moments, park: &Park) {
        loop {
            let joined = self.joined.listen();
            if self.readers.borrow().is_empty() {
                joined.await;
                continue;
            }
            self.follow(moments, park).await;
        }
    }

    /// Works until there are no readers.
    async fn follow(&self, moments: &Moments, park: &Park) {
        let (mut before, mut silent) = (None, 0);
        let mut seen = self.warnings(u64::MAX).next;
        while !self.readers.borrow().is_empty() {
            moments.rested().await;
            let joined = self.joined.listen();
            if let Some(now) = moments.snapshot().await {
                let events = match &before {
                    None => Ok(String::new()),
                    Some(before) => changes(before, &now, Instant::now()).and_then(|mut out| {
                        let new = self.warnings(seen);
                        seen = new.next;
                        events::log(&mut out, &new.lines)?;
                        Ok(out)
                    }),
                };
                silent += 1;
                let events = events.map(|events| match events.is_empty() {
                    true if silent >= SILENT_LOOKS => ":\n\n".to_owned(),
                    _ => events,
                });
                let told = events.and_then(|events| {
                    if !events.is_empty() {
                        silent = 0;
                        self.tell(&events.into(), false);
                    }
                    hello(&now)
                });
                match told {
                    Ok(hello) => self.tell(&hello.into(), true),
                    Err(fmt::Error) => {
                        log::error!("admin: cannot write an event; please report this")
                    }
                }
                before = Some(now);
            }
            or(park.sleep(PAUSE), joined).await;
        }
    }

    /// Returns the warnings and errors after the line with this number.
    fn warnings(&self, after: u64) -> KeptLines {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.get(log::Level::Warn, Some(after), usize::MAX)
    }

    /// Sends events to the new readers or to the others, and cuts those who cannot take them.
    fn tell(&self, events: &Rc<str>, to_new: bool) {
        for (_, reader) in &mut *self.readers.borrow_mut() {
            if reader.is_new == to_new {
                reader.is_new = false;
                if reader.events.try_send(events.clone()).is_err() {
                    self.cut(&reader.events);
                }
            }
        }
    }

    fn cut(&self, reader: &Sender<Rc<str>>) {
        if reader.close() {
            self.cut.set(self.cut.get() + 1);
        }
    }
}

/// One reader. Dropping it leaves the feed.
#[derive(Debug)]
pub(crate) struct Reader {
    feed: Rc<Feed>,
    key: usize,
    events: Receiver<Rc<str>>,
}

impl Reader {
    /// Returns the next events, or `None` if the reader was cut.
    pub(crate) async fn next(&self) -> Option<Rc<str>> {
        self.events.recv().await.ok()
    }

    /// Cuts the reader, because it does not read.
    pub(crate) fn cut(&self) {
        let readers = self.feed.readers.borrow();
        if let Some(reader) = readers.get(self.key) {
            self.feed.cut(&reader.events);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.feed.readers.borrow_mut().remove(self.key);
    }
}
