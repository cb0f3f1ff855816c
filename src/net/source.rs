//! One descriptor registered with the loop: what is known of its readiness, and who waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::epoll::EventFlags;

use super::reactor::{Reactor, SourceKey};
use super::ready::Ready;

/// A non-blocking descriptor with its place in the loop. It is used by one task at a time.
#[derive(Debug)]
pub(super) struct Source {
    fd: OwnedFd,
    key: SourceKey,
    reactor: Rc<Reactor>,
}

impl Source {
    /// Registers a stream for both directions, edge-triggered. `ready` is what may be tried before the first event.
    pub(super) fn stream(reactor: &Rc<Reactor>, fd: OwnedFd, ready: Ready) -> io::Result<Self> {
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Self::register(reactor, fd, both, ready)
    }

    /// Registers a listener, level-triggered: it is reported in every turn until nobody waits to be accepted.
    pub(super) fn listener(reactor: &Rc<Reactor>, fd: OwnedFd) -> io::Result<Self> {
        Self::register(reactor, fd, EventFlags::IN, Ready::NONE)
    }

    fn register(
        reactor: &Rc<Reactor>,
        fd: OwnedFd,
        interest: EventFlags,
        ready: Ready,
    ) -> io::Result<Self> {
        let key = reactor.register(&fd, interest, ready).inspect_err(|_| {
            // The peer of a socket that cannot be served is reset, as everywhere; a Unix socket or a listener ignores it.
            let _ = rustix::net::sockopt::set_socket_linger(&fd, Some(Duration::ZERO));
        })?;
        Ok(Self {
            fd,
            key,
            reactor: reactor.clone(),
        })
    }

    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Stops reporting events, or goes on.
    pub(super) fn set_muted(&self, muted: bool) -> io::Result<()> {
        let interest = if muted {
            self.clear(Ready::READ);
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        self.reactor.modify(&self.fd, self.key, interest)
    }

    pub(super) fn is(&self, ready: Ready) -> bool {
        self.reactor.ready(self.key).contains(ready)
    }

    pub(super) fn clear(&self, ready: Ready) {
        self.reactor.clear_ready(self.key, ready);
    }

    /// Ready when the source is; otherwise its next event wakes the task.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>, ready: Ready) -> Poll<()> {
        if self.is(ready) {
            return Poll::Ready(());
        }
        self.reactor.wait(self.key, cx.waker());
        Poll::Pending
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.reactor.deregister(self.key);
    }
}
