//! The readiness loop: one edge-triggered epoll, the timers, and the waker that ends its sleep.
//!
//! A descriptor is registered once, for both directions. What epoll reports is remembered per source until the kernel says
//! EAGAIN (or a short read says as much), so that no event is lost and none has to be asked for again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use slab::Slab;

use super::ready::Ready;

/// Events taken from the kernel at once. More wait for the next turn, after the tasks that these have woken.
const EVENTS_PER_TURN: usize = 256;

/// The bytes lent to one read. On the machines measured 32 KiB cost the least CPU per byte among the sizes below 1 MiB.
const SCRATCH_BYTES: usize = 32 * 1024;

/// The event that means "look at what other threads have woken".
const WAKE_EVENT: u64 = u64::MAX;

/// One thread's readiness loop. Sources hold it by `Rc`; it drives one future with [`Reactor::block_on`].
pub struct Reactor {
    epoll: OwnedFd,
    wake: Arc<WakeUp>,
    sources: RefCell<Slab<Entry>>,
    generation: Cell<u32>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    last_timer: Cell<u64>,
    now: Cell<Instant>,
    scratch: RefCell<Box<[u8]>>,
    events: RefCell<Vec<epoll::Event>>,
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// A loop with no sources.
    ///
    /// # Errors
    /// When the kernel has no descriptors or memory left.
    pub fn new() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Arc::new(WakeUp {
            state: AtomicU8::new(RUNNING),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        // Edge-triggered: each write is an edge, so the number in the eventfd never has to be read.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &wake.eventfd, EventData::new_u64(WAKE_EVENT), flags)?;
        Ok(Rc::new(Self {
            epoll,
            wake,
            sources: RefCell::default(),
            generation: Cell::new(0),
            timers: RefCell::default(),
            last_timer: Cell::new(0),
            now: Cell::new(Instant::now()),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            events: RefCell::new(Vec::with_capacity(EVENTS_PER_TURN)),
        }))
    }

    /// The time at which this turn of the loop began: one clock reading serves all that happens in it.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// A future that ends at `deadline`.
    pub fn sleep_until(self: &Rc<Self>, deadline: Instant) -> Sleep {
        Sleep {
            reactor: self.clone(),
            deadline,
            key: None,
        }
    }

    /// A future that ends after `duration`.
    pub fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Drives `future`, and with it the executor that it runs, to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let waker = Waker::from(self.wake.clone());
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        self.now.set(Instant::now());
        // A future is polled once before anybody can wake it.
        self.wake.state.store(NOTIFIED, Ordering::Release);
        loop {
            if self.wake.state.swap(RUNNING, Ordering::AcqRel) == NOTIFIED
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return output;
            }
            self.turn();
        }
    }

    /// Waits for events, not at all if somebody has been woken meanwhile, and wakes the tasks that they concern.
    fn turn(&self) {
        let sleeps = self
            .wake
            .state
            .compare_exchange(RUNNING, SLEEPING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        let timeout = if sleeps {
            self.until_next_timer()
        } else {
            Some(Duration::ZERO)
        };
        let mut events = self.events.take();
        events.clear();
        // Whole milliseconds, rounded up, so that a timer is due when the wait for it ends.
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: (i64::from(timeout.subsec_nanos()) + 999_999) / 1_000_000 * 1_000_000,
        });
        let timeout = timeout.map(normalized);
        let waited = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        );
        if sleeps {
            // Whoever has notified us meanwhile stays noted.
            let _ = self.wake.state.compare_exchange(
                SLEEPING,
                RUNNING,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        self.now.set(Instant::now());
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            // EBADF, EFAULT and EINVAL would each be a bug here, and going on would spin.
            Err(error) => panic!("epoll_wait: {error}"),
        }
        for event in &events {
            self.dispatch(event.data.u64(), event.flags);
        }
        *self.events.borrow_mut() = events;
        self.fire_timers();
    }

    fn dispatch(&self, data: u64, flags: EventFlags) {
        if data == WAKE_EVENT {
            return;
        }
        let key = SourceKey::unpack(data);
        let waker = match self.sources.borrow_mut().get_mut(key.index as usize) {
            // Otherwise the source was dropped, and perhaps its place taken, after the kernel had reported this.
            Some(entry) if entry.generation == key.generation => {
                entry.ready |= Ready::from_epoll(flags);
                entry.waker.take()
            }
            _ => None,
        };
        // Outside the borrow: waking may drop a task, and with it a source.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn until_next_timer(&self) -> Option<Duration> {
        let timers = self.timers.borrow();
        let (key, _) = timers.first_key_value()?;
        Some(key.deadline.saturating_duration_since(Instant::now()))
    }

    fn fire_timers(&self) {
        loop {
            let due = {
                let mut timers = self.timers.borrow_mut();
                match timers.first_entry() {
                    Some(first) if first.key().deadline <= self.now() => first.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }

    /// Lends the shared buffer. `f` must not lend it again.
    pub(super) fn with_scratch<T>(&self, f: impl FnOnce(&mut [u8]) -> T) -> T {
        f(&mut self.scratch.borrow_mut())
    }

    pub(super) fn register(
        &self,
        fd: impl AsFd,
        interest: EventFlags,
        ready: Ready,
    ) -> io::Result<SourceKey> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let index = self.sources.borrow_mut().insert(Entry {
            generation,
            ready,
            waker: None,
        });
        let key = SourceKey {
            // A process cannot have 2^32 descriptors.
            index: index as u32,
            generation,
        };
        let data = EventData::new_u64(key.pack());
        if let Err(error) = epoll::add(&self.epoll, fd, data, interest) {
            self.deregister(key);
            return Err(error.into());
        }
        Ok(key)
    }

    /// Changes what is reported of a source.
    pub(super) fn modify(
        &self,
        fd: impl AsFd,
        key: SourceKey,
        interest: EventFlags,
    ) -> io::Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(key.pack()), interest)?;
        Ok(())
    }

    /// Forgets a source. Its descriptor is about to be closed, which takes it out of the epoll set.
    pub(super) fn deregister(&self, key: SourceKey) {
        let entry = self.sources.borrow_mut().remove(key.index as usize);
        debug_assert_eq!(entry.generation, key.generation);
        drop(entry);
    }

    pub(super) fn ready(&self, key: SourceKey) -> Ready {
        self.sources.borrow()[key.index as usize].ready
    }

    pub(super) fn clear_ready(&self, key: SourceKey, ready: Ready) {
        self.sources.borrow_mut()[key.index as usize].ready -= ready;
    }

    /// Has `waker` woken at the source's next event.
    pub(super) fn wait(&self, key: SourceKey, waker: &Waker) {
        let mut sources = self.sources.borrow_mut();
        let slot = &mut sources[key.index as usize].waker;
        if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        let old = slot.replace(waker.clone());
        drop(sources);
        drop(old);
    }
}

fn normalized(t: Timespec) -> Timespec {
    if t.tv_nsec < 1_000_000_000 {
        return t;
    }
    Timespec {
        tv_sec: t.tv_sec.saturating_add(1),
        tv_nsec: t.tv_nsec - 1_000_000_000,
    }
}

/// What the loop knows of one descriptor: one waker, since a stream belongs to one task.
struct Entry {
    generation: u32,
    ready: Ready,
    waker: Option<Waker>,
}

/// A source's place, with the generation that tells it from an earlier user of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceKey {
    index: u32,
    generation: u32,
}

impl SourceKey {
    fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn unpack(data: u64) -> Self {
        Self {
            index: data as u32,
            generation: (data >> 32) as u32,
        }
    }
}

/// The loop is polling its future, and will look again before it sleeps.
const RUNNING: u8 = 0;
/// The loop sleeps in the kernel.
const SLEEPING: u8 = 1;
/// The future is to be polled.
const NOTIFIED: u8 = 2;

/// Wakes the loop from any thread; only a sleeping loop costs a system call.
struct WakeUp {
    state: AtomicU8,
    eventfd: OwnedFd,
}

impl Wake for WakeUp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING {
            // It cannot fail but when the number is full, and then the edge is already there.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TimerKey {
    deadline: Instant,
    id: u64,
}

/// The future of [`Reactor::sleep_until`]. Dropping it disarms the timer.
#[derive(Debug)]
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline: Instant,
    key: Option<TimerKey>,
}

impl Sleep {
    /// Moves the deadline.
    pub fn reset(&mut self, deadline: Instant) {
        self.disarm();
        self.deadline = deadline;
    }

    fn disarm(&mut self) {
        if let Some(key) = self.key.take() {
            let waker = self.reactor.timers.borrow_mut().remove(&key);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= self.reactor.now() {
            self.disarm();
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let id = self.reactor.last_timer.get() + 1;
            self.reactor.last_timer.set(id);
            TimerKey {
                deadline: self.deadline,
                id,
            }
        });
        self.key = Some(key);
        let mut timers = self.reactor.timers.borrow_mut();
        let old = timers.insert(key, cx.waker().clone());
        drop(timers);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}
