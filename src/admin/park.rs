//! How the admin thread waits: poll(2) for new clients and for wake-ups, and a tick while a client
//! is served.
//!
//! The clients' sockets and the timers belong to async-io, whose thread can lose an event. If the
//! epoll_ctl(2) that re-arms its own eventfd fails, it discards the events that it just received
//! from the kernel, and does not see new timers until something else wakes it. So accepting new
//! clients does not depend on async-io, and whatever waits for async-io checks again at each tick.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::{Event, EventListener};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use smol::future::or;

use super::sockets::{Door, Listeners};
use crate::state::Throttle;

/// The pause after poll(2) fails, which happens only when memory is short.
const FAILED: Duration = Duration::from_millis(10);
/// A timer that is later than this was lost by async-io.
const LATE: Duration = Duration::from_millis(400);

/// Where the thread sleeps.
#[derive(Debug)]
pub(super) struct Park {
    wake_up: Arc<WakeUp>,
    /// For each door, the task that waits for a new client.
    backlogs: [RefCell<Option<Waker>>; 2],
    tick: Event,
    complaints: Throttle,
}

impl Park {
    /// Opens the eventfd that wakes the thread.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            wake_up: Arc::new(WakeUp {
                is_woken: AtomicBool::new(false),
                eventfd: eventfd(0, flags)?,
            }),
            backlogs: Default::default(),
            tick: Event::new(),
            complaints: Throttle::new(Duration::from_secs(1)),
        })
    }

    /// Drives `future` to completion, and watches `listeners`, if given, for new clients. `tick` is
    /// the time from one tick to the next, or `None` while nothing waits for async-io.
    pub(super) fn block_on<T>(
        &self,
        listeners: Option<&Listeners>,
        tick: impl Fn() -> Option<Duration>,
        future: impl Future<Output = T>,
    ) -> T {
        let waker = Waker::from(self.wake_up.clone());
        let mut cx = Context::from_waker(&waker);
        let mut future = pin!(future);
        let mut ticked = Instant::now();
        loop {
            self.wake_up.is_woken.store(false, Ordering::SeqCst);
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            let tick = tick();
            self.wait(
                listeners,
                tick.map(|tick| tick.saturating_sub(ticked.elapsed())),
            );
            match tick {
                Some(tick) if ticked.elapsed() < tick => {}
                tick => {
                    ticked = Instant::now();
                    if tick.is_some() {
                        self.tick.notify(usize::MAX);
                    }
                }
            }
        }
    }

    fn wait(&self, listeners: Option<&Listeners>, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let eventfd = &self.wake_up.eventfd;
        let mut fds = vec![PollFd::new(eventfd, PollFlags::IN)];
        let mut waited_for = Vec::with_capacity(2);
        for door in [Door::Tcp, Door::Control] {
            let is_wanted = self.backlog_of(door).borrow().is_some();
            let fd = listeners.and_then(|listeners| listeners.fd(door));
            if let Some(fd) = fd.filter(|_| is_wanted) {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                waited_for.push(door);
            }
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(FAILED),
        }
        if !fds[0].revents().is_empty() {
            // Whether or not there was anything to read, it is empty now.
            let _ = rustix::io::read(eventfd, &mut [0; 8]);
        }
        for (fd, door) in fds[1..].iter().zip(waited_for) {
            if !fd.revents().is_empty()
                && let Some(waker) = self.backlog_of(door).take()
            {
                waker.wake();
            }
        }
    }

    fn backlog_of(&self, door: Door) -> &RefCell<Option<Waker>> {
        &self.backlogs[door as usize]
    }

    /// Waits until a client waits at `door` to be accepted. Only one task per door may wait at a
    /// time. This does not try accept(2) first: accept(2) takes a descriptor before it checks for a
    /// client, so without a free descriptor it fails even if there is no client.
    pub(super) async fn backlog(&self, door: Door) {
        let backlog = self.backlog_of(door);
        let is_asked = Cell::new(false);
        poll_fn(|cx| {
            if is_asked.replace(true) && backlog.borrow().is_none() {
                return Poll::Ready(());
            }
            backlog.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Returns a listener for the next tick.
    pub(super) fn tick(&self) -> EventListener {
        self.tick.listen()
    }

    /// Waits for `duration`.
    pub(super) async fn sleep(&self, duration: Duration) {
        self.sleep_until(Instant::now() + duration).await;
    }

    /// Waits until `deadline`.
    pub(super) async fn sleep_until(&self, deadline: Instant) {
        let mut ticks = 0;
        while Instant::now() < deadline {
            let timer = async {
                Timer::at(deadline).await;
                0
            };
            let tick = async {
                self.tick().await;
                1
            };
            ticks = or(timer, tick).await;
        }
        let late = deadline.elapsed();
        if ticks > 0
            && late > LATE
            && let Some(suppressed) = self.complaints.admit(Instant::now())
        {
            log::warn!(suppressed, late:? = late;
                "admin: async-io missed a timer, perhaps because epoll_ctl ran out of memory; the endpoint continues without it");
        }
    }

    /// Returns the output of `future`, or `None` if it takes longer than `limit`.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        or(async { Some(future.await) }, async {
            self.sleep(limit).await;
            None
        })
        .await
    }
}

/// The waker for the thread's future.
#[derive(Debug)]
struct WakeUp {
    /// Whether the eventfd has been written to since the future was last polled.
    is_woken: AtomicBool,
    eventfd: OwnedFd,
}

impl Wake for WakeUp {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            // This fails only if the counter is full, and then the thread does not sleep either.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}
