//! A descriptor and its registration in the loop: its known readiness and the task that waits for
//! it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::event::epoll::EventFlags;

use super::core::Reactor;
use super::ready::Ready;
use super::registration::Registration;

/// A non-blocking descriptor registered in the loop.
///
/// Used by one task at a time.
#[derive(Debug)]
pub(in crate::net) struct Source {
    fd: OwnedFd,
    registration: Rc<Registration>,
    watched: Cell<Watched>,
    reactor: Rc<Reactor>,
}

/// What the kernel reports for a source.
///
/// Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    /// No task has had to wait so far.
    Nothing,
    /// Incoming bytes, end of stream and errors.
    Reading,
    /// The above, and room for more bytes. Not requested from the start: most streams never fill
    /// the kernel's buffer, and a new socket has room, so each would get one useless event.
    Both,
}

impl Watched {
    fn flags(self) -> EventFlags {
        let reading = EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        match self {
            Self::Nothing => EventFlags::empty(),
            Self::Reading => reading,
            Self::Both => reading | EventFlags::OUT,
        }
    }
}

impl Source {
    /// Creates a source for a stream, reported edge-triggered from its first wait on.
    ///
    /// `ready` is what to try before the first event.
    pub(in crate::net) fn stream(reactor: &Rc<Reactor>, fd: OwnedFd, ready: Ready) -> Self {
        Self {
            fd,
            registration: reactor.insert(ready),
            watched: Cell::new(Watched::Nothing),
            reactor: reactor.clone(),
        }
    }

    /// Creates a source for a listener, which is level-triggered: every iteration reports it while
    /// clients wait to be accepted.
    pub(in crate::net) fn listener(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        let source = Self::stream(reactor, fd, Ready::NONE);
        reactor.watch(&source.fd, &source.registration, EventFlags::IN)?;
        source.watched.set(Watched::Both);
        Ok(source)
    }

    pub(in crate::net) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Stops or resumes reporting a listener's events.
    pub(in crate::net) fn set_muted(&self, muted: bool) -> io::Result<()> {
        let interest = if muted {
            self.clear(Ready::READ);
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        self.reactor.modify(&self.fd, &self.registration, interest)
    }

    /// Removes the descriptor from the epoll set.
    ///
    /// Needed if another process has the same socket, because closing the descriptor then does not
    /// remove it.
    pub(in crate::net) fn unwatch(&self) {
        self.reactor.unwatch(&self.fd);
    }

    pub(in crate::net) fn is(&self, ready: Ready) -> bool {
        self.ready().contains(ready)
    }

    pub(in crate::net) fn ready(&self) -> Ready {
        self.registration.ready()
    }

    pub(in crate::net) fn set(&self, ready: Ready) {
        self.registration.set(ready);
    }

    pub(in crate::net) fn clear(&self, ready: Ready) {
        self.registration.clear(ready);
    }

    /// Marks the source [`Ready::AGED`] and wakes its task once, some seconds from now.
    pub(in crate::net) fn tell_when_aged(&self) {
        self.reactor.tell_when_aged(&self.registration);
    }

    /// Waits until the source is ready for `ready`.
    ///
    /// Fails only if the kernel has no memory to watch it.
    pub(in crate::net) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        ready: Ready,
    ) -> Poll<io::Result<()>> {
        if self.is(ready) {
            return Poll::Ready(Ok(()));
        }
        match self.wait(cx, ready.contains(Ready::WRITE)) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Registers the task to be woken by the next event: incoming bytes, end of stream, errors, and
    /// room to write if `room` is true.
    ///
    /// # Errors
    /// If the kernel has no memory to watch it.
    pub(in crate::net) fn wait(&self, cx: &mut Context<'_>, room: bool) -> io::Result<()> {
        self.registration.wait(cx.waker());
        self.watch(match room {
            true => Watched::Both,
            false => Watched::Reading,
        })
    }

    fn watch(&self, wanted: Watched) -> io::Result<()> {
        let watched = self.watched.get();
        if watched >= wanted {
            return Ok(());
        }
        if watched == Watched::Nothing {
            self.reactor
                .watch(&self.fd, &self.registration, wanted.flags())?;
        } else {
            self.reactor
                .modify(&self.fd, &self.registration, wanted.flags())?;
        }
        self.watched.set(wanted);
        Ok(())
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.reactor.remove(&self.registration);
    }
}
