//! One descriptor with its registration in the loop: what is known of its readiness, and who waits for it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::event::epoll::EventFlags;

use super::core::Reactor;
use super::ready::Ready;
use super::registration::Registration;

/// A non-blocking descriptor with its registration in the loop. It is used by one task at a time.
#[derive(Debug)]
pub(in crate::net) struct Source {
    fd: OwnedFd,
    registration: Rc<Registration>,
    watched: Cell<Watched>,
    reactor: Rc<Reactor>,
}

/// What the kernel reports of a source. It only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    /// Nobody has had to wait so far.
    Nothing,
    /// Arriving bytes, the end and failure.
    Reading,
    /// Room for more bytes, too. Most streams never fill the kernel's buffer, and a new socket has room, so asking at once would
    /// bring one useless event for each.
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
    /// A stream, reported edge-triggered from its first wait on. `ready` is what may be tried before the first event.
    pub(in crate::net) fn stream(reactor: &Rc<Reactor>, fd: OwnedFd, ready: Ready) -> Self {
        Self {
            fd,
            registration: reactor.insert(ready),
            watched: Cell::new(Watched::Nothing),
            reactor: reactor.clone(),
        }
    }

    /// A listener, level-triggered: it is reported in every iteration until nobody waits to be accepted.
    pub(in crate::net) fn listener(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        let source = Self::stream(reactor, fd, Ready::NONE);
        reactor.watch(&source.fd, &source.registration, EventFlags::IN)?;
        source.watched.set(Watched::Both);
        Ok(source)
    }

    pub(in crate::net) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Stops reporting a listener's events, or goes on.
    pub(in crate::net) fn set_muted(&self, muted: bool) -> io::Result<()> {
        let interest = if muted {
            self.clear(Ready::READ);
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        self.reactor.modify(&self.fd, &self.registration, interest)
    }

    /// Takes it out of the epoll set, for a descriptor whose closing does not: somebody else has the same socket.
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

    /// Makes it [`Ready::AGED`] and wakes its task, once, some seconds from now.
    pub(in crate::net) fn tell_when_aged(&self) {
        self.reactor.tell_when_aged(&self.registration);
    }

    /// Ready when the source is; otherwise its next event wakes the task. An error is the kernel's lack of memory for it.
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

    /// Has the task woken by the next event: by bytes, the end and failure, and where `room` is asked for by that, too.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
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
