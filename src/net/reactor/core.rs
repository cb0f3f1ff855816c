//! The readiness loop: one epoll instance, driven between the polls of one future.
//!
//! A descriptor is registered once. The loop remembers what epoll reports for each source until the
//! kernel returns EAGAIN or a short read implies it. So no event is lost, and none has to be
//! requested again.

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
use crate::state::{Held, LoopTimes};
use crate::sys;

/// The most events taken from the kernel at once. Further events wait for the next iteration,
/// behind the tasks that these wake.
const EVENTS_PER_ITERATION: usize = 256;

/// The size of the buffer lent to each read.
///
/// This is also the most that is copied aside for a blocked receiver, which is why it is not
/// larger. The CPU time of copying 1 GiB was 0.98 s with 16 KiB, 0.81 s with 32, 0.74 s with 64,
/// 0.63 s with 128 and 0.44 s with 1 MiB (x86-64, medians of five interleaved rounds), but long
/// streams are spliced anyway.
pub(in crate::net) const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes that all streams together may move in one iteration, beyond each stream's guaranteed
/// minimum. New events are handled after that.
const ITERATION_BYTES: usize = 4 << 20;

/// The event that means that another thread woke the loop.
const WAKE_EVENT: u64 = u64::MAX;

/// The interval of the coarse timer for work that need not be punctual. It runs only while there is
/// such work.
const TICK: Duration = Duration::from_secs(5);

/// A single-threaded readiness loop.
///
/// Each source holds an `Rc` of it. [`Reactor::block_on`] drives one future.
pub struct Reactor {
    epoll: OwnedFd,
    wake: Arc<WakeUp>,
    registrations: RefCell<Slab<Rc<Registration>>>,
    generation: Cell<u32>,
    timers: Timers,
    now: Cell<Instant>,
    scratch: RefCell<Box<[u8]>>,
    events: RefCell<Vec<epoll::Event>>,
    /// Tasks that have more to do but let the others run first.
    next_iteration: RefCell<Vec<Waker>>,
    iterations: Cell<u32>,
    times: Rc<LoopTimes>,
    /// The rest of [`ITERATION_BYTES`] in this iteration.
    iteration_bytes: Cell<usize>,
    pipes: Rc<Pipes>,
    memory: Memory,
    /// The number of sources to notify once they have aged.
    young: Cell<usize>,
    tick: Cell<Option<Instant>>,
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// The most pipes for long streams, of two descriptors each, unless [`Reactor::limit_pipes`]
    /// changes it.
    pub const PIPES: usize = Pipes::AT_MOST;

    /// Creates a loop without sources.
    ///
    /// # Errors
    /// If the kernel is out of descriptors or memory.
    pub fn new() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = WakeUp::new()?;
        let memory = Memory::new();
        // Edge-triggered: each write is an edge, so the eventfd's counter never has to be read.
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
            events: RefCell::new(Vec::with_capacity(EVENTS_PER_ITERATION)),
            next_iteration: RefCell::default(),
            iterations: Cell::new(0),
            times: Rc::default(),
            iteration_bytes: Cell::new(ITERATION_BYTES),
            pipes: Pipes::new(memory.held()),
            memory,
            young: Cell::new(0),
            tick: Cell::new(None),
        }))
    }

    /// Returns the time when this iteration of the loop began.
    ///
    /// All code in the iteration shares this one clock reading.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Limits the pipes for long streams, of two descriptors each.
    ///
    /// Streams without a pipe are copied.
    pub fn limit_pipes(&self, at_most: usize) {
        self.pipes.limit(at_most);
    }

    /// Limits the memory used for blocked receivers.
    pub fn limit_memory(&self, limits: MemoryLimits) {
        self.memory.limit(limits);
    }

    pub(in crate::net) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the bytes held for blocked receivers, across all connections.
    #[must_use]
    pub fn held(&self) -> &Rc<Held> {
        self.memory.held()
    }

    /// Returns how long iterations take.
    #[must_use]
    pub fn times(&self) -> &Rc<LoopTimes> {
        &self.times
    }

    /// Drives `future`, and the executor that it runs, to completion.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let waker = Waker::from(self.wake.clone());
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        self.now.set(Instant::now());
        // Nothing wakes a future before its first poll.
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

    /// Waits for events and wakes the tasks that they concern.
    ///
    /// Does not wait if anything was woken in the meantime.
    fn iterate(&self) {
        let sleeps = self.next_iteration.borrow().is_empty() && self.wake.sleep();
        let end = Instant::now();
        self.times.worked(self.now.get(), end);
        let timeout = if sleeps {
            self.until_next_deadline(end)
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
        self.iteration_bytes.set(ITERATION_BYTES);
        let has_looked = match waited {
            Ok(_) => true,
            // A signal interrupted the wait, such as SIGCONT after a stop. Events since then are
            // still unknown.
            Err(Errno::INTR) => false,
            // EBADF, EFAULT and EINVAL are bugs here, and continuing would spin.
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
        // After the tasks woken by events, because these tasks have had their share.
        let next_iteration = self.next_iteration.take();
        next_iteration.into_iter().for_each(Waker::wake);
    }

    fn dispatch(&self, data: u64, flags: EventFlags) {
        if data == WAKE_EVENT {
            return;
        }
        let key = SourceKey::unpack(data);
        // A different generation means that the source was dropped and its slot reused after the
        // kernel reported this event.
        let registration = self.registrations.borrow().get(key.index as usize).cloned();
        // Outside the borrow, because a waker may do anything, such as drop a source.
        if let Some(registration) = registration.filter(|registration| registration.key() == key) {
            registration.report(Ready::from_epoll(flags));
        }
    }

    fn until_next_deadline(&self, now: Instant) -> Option<Duration> {
        let deadlines = [self.timers.next(), self.tick.get()];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Does the work of the coarse timer.
    ///
    /// Rearms it only if work remains.
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

    /// Returns the number of iterations so far.
    ///
    /// Wraps around.
    pub(in crate::net) fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Lends the shared buffer.
    ///
    /// `f` must not borrow it again.
    pub(in crate::net) fn with_scratch<T>(&self, f: impl FnOnce(&mut [u8]) -> T) -> T {
        f(&mut self.scratch.borrow_mut())
    }

    /// Returns the number of connections, at two sources each.
    ///
    /// Listeners are too few to matter.
    pub(in crate::net) fn connections(&self) -> usize {
        self.registrations.borrow().len() / 2
    }

    /// Lends a pipe, if one is available.
    pub(in crate::net) fn lend_pipe(&self) -> Option<LentPipe> {
        let pipe = self.pipes.lend(self.now())?;
        self.start_ticking();
        Some(pipe)
    }

    /// Returns how many of these bytes a stream may move in this iteration.
    ///
    /// In a busy iteration that is one buffer.
    pub(in crate::net) fn grant(&self, bytes: usize) -> usize {
        bytes.min(self.iteration_bytes.get().max(SCRATCH_BYTES))
    }

    /// Deducts moved bytes from this iteration's total.
    pub(in crate::net) fn spend(&self, bytes: usize) {
        let left = self.iteration_bytes.get().saturating_sub(bytes);
        self.iteration_bytes.set(left);
    }

    /// Wakes `waker` in the next iteration, after new events.
    pub(in crate::net) fn wake_next_iteration(&self, waker: &Waker) {
        self.next_iteration.borrow_mut().push(waker.clone());
    }

    /// Registers a source.
    ///
    /// Nothing is reported for it before [`Reactor::watch`].
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

    /// Starts reporting events for a source.
    ///
    /// Conditions that already hold are reported immediately.
    pub(super) fn watch(
        &self,
        fd: impl AsFd,
        registration: &Registration,
        interest: EventFlags,
    ) -> io::Result<()> {
        let data = EventData::new_u64(registration.key().pack());
        Ok(epoll::add(&self.epoll, fd, data, interest)?)
    }

    /// Changes which events are reported for a source.
    ///
    /// Conditions that already hold are reported again.
    pub(super) fn modify(
        &self,
        fd: impl AsFd,
        registration: &Registration,
        interest: EventFlags,
    ) -> io::Result<()> {
        let data = EventData::new_u64(registration.key().pack());
        Ok(epoll::modify(&self.epoll, fd, data, interest)?)
    }

    /// Stops reporting events for a source.
    pub(super) fn unwatch(&self, fd: impl AsFd) {
        // This fails only for a source that is not watched.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Forgets a source.
    ///
    /// Its descriptor is about to be closed, which removes it from the epoll set.
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

    /// Marks the source [`Ready::AGED`] after one to two ticks, or sooner if it was already waiting
    /// for that.
    pub(super) fn tell_when_aged(&self, registration: &Registration) {
        if registration.age() == Age::Untold {
            registration.set_age(Age::Young);
            self.young.set(self.young.get() + 1);
            self.start_ticking();
        }
    }
}

/// Rounds up to whole milliseconds, so that a timer is due when the wait for it ends.
///
/// The result is at most a day. A wait of more than 24 days would need epoll_pwait2, which Linux
/// has since 5.11. Longer waits are split into days.
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
