//! The readiness loop: one epoll, driven between the polls of one future.
//!
//! A descriptor is registered once. What epoll reports is remembered per source until the kernel says EAGAIN (or a short
//! read says as much), so that no event is lost and none has to be asked for again.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

use super::ready::Ready;
use super::registration::{Age, Registration, SourceKey};
use super::timers::Timers;
use super::wake::WakeUp;
use crate::net::buffers::{LentPipe, Memory, MemoryLimits, Pipes};
use crate::state::Held;
use crate::sys;

/// Events taken from the kernel at once. More wait for the next iteration, after the tasks that these have woken.
const EVENTS_PER_TURN: usize = 256;

/// The bytes lent to one read, and so the most that is copied aside for a blocked receiver, which is why it is not larger. The CPU time
/// of copying 1 GiB was 0.98 s with 16 KiB, 0.81 s with 32, 0.74 s with 64, 0.63 s with 128 and 0.44 s with 1 MiB (x86-64, medians of
/// five interleaved rounds); long streams are spliced all the same.
pub(in crate::net) const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes that all streams together may move in one iteration beyond their least share: new events are then looked at.
const TURN_BYTES: usize = 4 << 20;

/// The event that means "look at what other threads have woken".
const WAKE_EVENT: u64 = u64::MAX;

/// The coarse tick of what need not be exact. There is none while nothing waits for it.
const TICK: Duration = Duration::from_secs(5);

/// One thread's readiness loop. Sources hold it by `Rc`; it drives one future with [`Reactor::block_on`].
pub struct Reactor {
    epoll: OwnedFd,
    wake: Arc<WakeUp>,
    registrations: RefCell<Slab<Rc<Registration>>>,
    generation: Cell<u32>,
    timers: Timers,
    now: Cell<Instant>,
    scratch: RefCell<Box<[u8]>>,
    events: RefCell<Vec<epoll::Event>>,
    /// Tasks that have more to do, but let the others go first.
    next_turn: RefCell<Vec<Waker>>,
    iterations: Cell<u32>,
    /// What is left of [`TURN_BYTES`].
    turn_bytes: Cell<usize>,
    pipes: Rc<Pipes>,
    memory: Memory,
    /// Sources that are to be told when they have aged.
    young: Cell<usize>,
    tick: Cell<Option<Instant>>,
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// Pipes for long streams at most, of two descriptors each, unless [`Reactor::limit_pipes`] says otherwise.
    pub const PIPES: usize = Pipes::AT_MOST;

    /// A loop with no sources.
    ///
    /// # Errors
    /// When the kernel has no descriptors or memory left.
    pub fn new() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = WakeUp::new()?;
        let memory = Memory::new();
        // Edge-triggered: each write is an edge, so the number in the eventfd never has to be read.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &*wake, EventData::new_u64(WAKE_EVENT), flags)?;
        Ok(Rc::new(Self {
            epoll,
            wake,
            registrations: RefCell::default(),
            generation: Cell::new(0),
            timers: Timers::default(),
            now: Cell::new(Instant::now()),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            events: RefCell::new(Vec::with_capacity(EVENTS_PER_TURN)),
            next_turn: RefCell::default(),
            iterations: Cell::new(0),
            turn_bytes: Cell::new(TURN_BYTES),
            pipes: Pipes::new(memory.held()),
            memory,
            young: Cell::new(0),
            tick: Cell::new(None),
        }))
    }

    /// The time at which this iteration of the loop began: one clock reading serves all that happens in it.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Lets long streams have at most this many pipes, of two descriptors each. Without one they are copied.
    pub fn limit_pipes(&self, at_most: usize) {
        self.pipes.limit(at_most);
    }

    /// Limits what blocked receivers may take of the memory.
    pub fn limit_memory(&self, limits: MemoryLimits) {
        self.memory.limit(limits);
    }

    pub(in crate::net) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What is held for blocked receivers, in all connections.
    #[must_use]
    pub fn held(&self) -> &Rc<Held> {
        self.memory.held()
    }

    /// Drives `future`, and with it the executor that it runs, to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let waker = Waker::from(self.wake.clone());
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        self.now.set(Instant::now());
        // A future is polled once before anybody can wake it.
        self.wake.notify();
        loop {
            if self.wake.take()
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return output;
            }
            self.iterate();
        }
    }

    /// Waits for events, not at all if somebody has been woken meanwhile, and wakes the tasks that they concern.
    fn iterate(&self) {
        let sleeps = self.next_turn.borrow().is_empty() && self.wake.sleep();
        let timeout = if sleeps {
            self.until_next_deadline()
        } else {
            Some(Duration::ZERO)
        };
        let timeout = timeout.map(whole_millis);
        let mut events = self.events.take();
        events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut events);
        let waited = epoll::wait(&self.epoll, buffer, timeout.as_ref());
        if sleeps {
            self.wake.awake();
        }
        let now = Instant::now();
        self.now.set(now);
        self.iterations.set(self.iterations.get().wrapping_add(1));
        self.turn_bytes.set(TURN_BYTES);
        let has_looked = match waited {
            Ok(_) => true,
            // A signal has come first, such as the one that ends a pause of the program: what has happened meanwhile is not known yet.
            Err(Errno::INTR) => false,
            // EBADF, EFAULT and EINVAL would each be a bug here, and going on would spin.
            Err(error) => panic!("epoll_wait: {error}"),
        };
        for event in &events {
            self.dispatch(event.data.u64(), event.flags);
        }
        *self.events.borrow_mut() = events;
        if has_looked {
            self.timers.fire(now);
        }
        if self.tick.get().is_some_and(|tick| tick <= now) {
            self.tick(now);
        }
        // After those whom events have woken: they have had their share.
        let next_turn = self.next_turn.take();
        next_turn.into_iter().for_each(Waker::wake);
    }

    fn dispatch(&self, data: u64, flags: EventFlags) {
        if data == WAKE_EVENT {
            return;
        }
        let key = SourceKey::unpack(data);
        // Another generation: the source was dropped, and its place taken, after the kernel had reported this.
        let registration = self.registrations.borrow().get(key.index as usize).cloned();
        // Outside the borrow: a waker may do anything, such as drop a source.
        if let Some(registration) = registration.filter(|registration| registration.key() == key) {
            registration.report(Ready::from_epoll(flags));
        }
    }

    fn until_next_deadline(&self) -> Option<Duration> {
        let deadlines = [self.timers.next(), self.tick.get()];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Does what is due by the coarse tick, and goes on ticking only for what is left.
    fn tick(&self, now: Instant) {
        let mut aged = Vec::new();
        if self.young.get() > 0 {
            for (_, registration) in &*self.registrations.borrow() {
                match registration.age() {
                    Age::Young => registration.set_age(Age::Seen),
                    Age::Seen => {
                        registration.set_age(Age::Untold);
                        self.young.set(self.young.get() - 1);
                        aged.push(registration.clone());
                    }
                    Age::Untold => {}
                }
            }
        }
        if self.held().is_worth_trimming() {
            sys::memory::trim();
        }
        let has_pipes = self.pipes.shrink();
        let waits = has_pipes || self.held().may_be_worth_trimming();
        let goes_on = waits || self.young.get() > 0;
        self.tick.set(goes_on.then(|| now + TICK));
        for registration in aged {
            registration.report(Ready::AGED);
        }
    }

    pub(in crate::net) fn start_ticking(&self) {
        if self.tick.get().is_none() {
            self.tick.set(Some(self.now() + TICK));
        }
    }

    /// How many iterations there have been; it wraps.
    pub(in crate::net) fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Lends the shared buffer. `f` must not lend it again.
    pub(in crate::net) fn with_scratch<T>(&self, f: impl FnOnce(&mut [u8]) -> T) -> T {
        f(&mut self.scratch.borrow_mut())
    }

    /// How many connections there are, of two sources each. Listeners among them do not matter.
    pub(in crate::net) fn connections(&self) -> usize {
        self.registrations.borrow().len() / 2
    }

    /// Lends a pipe, if there is one.
    pub(in crate::net) fn lend_pipe(&self) -> Option<LentPipe> {
        let pipe = self.pipes.lend(self.now())?;
        self.start_ticking();
        Some(pipe)
    }

    /// How many of these bytes a stream may move in this iteration. In a busy iteration it is one buffer's worth.
    pub(in crate::net) fn grant(&self, bytes: usize) -> usize {
        bytes.min(self.turn_bytes.get().max(SCRATCH_BYTES))
    }

    /// Takes bytes that were moved off this iteration's.
    pub(in crate::net) fn spend(&self, bytes: usize) {
        let left = self.turn_bytes.get().saturating_sub(bytes);
        self.turn_bytes.set(left);
    }

    /// Has `waker` woken in the next iteration, after new events.
    pub(in crate::net) fn wake_next_iteration(&self, waker: &Waker) {
        self.next_turn.borrow_mut().push(waker.clone());
    }

    /// Registers a source. Nothing is reported of it before [`Reactor::watch`].
    pub(super) fn insert(&self, ready: Ready) -> Rc<Registration> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut registrations = self.registrations.borrow_mut();
        let vacant = registrations.vacant_entry();
        // A process cannot have 2^32 descriptors.
        let index = vacant.key() as u32;
        let registration = Rc::new(Registration::new(SourceKey { index, generation }, ready));
        vacant.insert(registration.clone());
        registration
    }

    /// Has the kernel report a source. What is the case already is reported, too.
    pub(super) fn watch(
        &self,
        fd: impl AsFd,
        registration: &Registration,
        interest: EventFlags,
    ) -> io::Result<()> {
        let data = EventData::new_u64(registration.key().pack());
        Ok(epoll::add(&self.epoll, fd, data, interest)?)
    }

    /// Changes what is reported of a source. What is the case already is reported again.
    pub(super) fn modify(
        &self,
        fd: impl AsFd,
        registration: &Registration,
        interest: EventFlags,
    ) -> io::Result<()> {
        let data = EventData::new_u64(registration.key().pack());
        Ok(epoll::modify(&self.epoll, fd, data, interest)?)
    }

    /// Has the kernel report a source no more.
    pub(super) fn unwatch(&self, fd: impl AsFd) {
        // It can only fail for what is not watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Forgets a source. Its descriptor is about to be closed, which takes it out of the epoll set.
    pub(super) fn remove(&self, registration: &Registration) {
        let removed = self
            .registrations
            .borrow_mut()
            .remove(registration.key().index as usize);
        debug_assert_eq!(removed.key(), registration.key());
        if registration.age() != Age::Untold {
            self.young.set(self.young.get() - 1);
        }
    }

    /// Makes the source [`Ready::AGED`] after one tick at least and two at most, or sooner if it has been waiting for that already.
    pub(super) fn tell_when_aged(&self, registration: &Registration) {
        if registration.age() == Age::Untold {
            registration.set_age(Age::Young);
            self.young.set(self.young.get() + 1);
            self.start_ticking();
        }
    }
}

/// Whole milliseconds, rounded up, so that a timer is due when the wait for it ends. At most a day: more than 24 of them would be
/// asked of epoll_pwait2, which Linux has since 5.11. Whoever waits for longer is looked at once a day.
fn whole_millis(timeout: Duration) -> Timespec {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let timeout = timeout.min(LONGEST);
    let millis = timeout.subsec_nanos().div_ceil(1_000_000);
    let seconds = timeout.as_secs() + u64::from(millis / 1_000);
    Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: (millis % 1_000 * 1_000_000).into(),
    }
}
