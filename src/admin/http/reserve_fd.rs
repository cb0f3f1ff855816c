//! A descriptor held back for the moment at which all others are taken, so that somebody can still look.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

/// The descriptor: held, lent to one client, or lost to somebody who was quicker.
#[derive(Debug)]
pub(crate) struct ReserveFd {
    // An eventfd, because it needs no file to exist.
    held: RefCell<Option<OwnedFd>>,
    lent: Cell<bool>,
}

impl ReserveFd {
    /// Takes a descriptor to hold.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn hold() -> io::Result<Self> {
        Ok(Self {
            held: RefCell::new(Some(open()?)),
            lent: Cell::new(false),
        })
    }

    /// Frees the descriptor for the caller to use at once, before anything else runs. `None` if it is not held.
    pub(crate) fn lend(self: &Rc<Self>) -> Option<LentFd> {
        drop(self.held.take()?);
        self.lent.set(true);
        Some(LentFd(self.clone()))
    }

    /// Whether somebody has it now.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get()
    }

    /// Tries to hold a lost descriptor again. True when it is held.
    pub(crate) fn regain(&self) -> bool {
        if self.held.borrow().is_none() && !self.lent.get() {
            self.held.replace(open().ok());
        }
        self.held.borrow().is_some()
    }
}

/// Stands for the descriptor while somebody else uses it; to be dropped after that has been closed.
#[derive(Debug)]
pub(crate) struct LentFd(Rc<ReserveFd>);

impl Drop for LentFd {
    fn drop(&mut self) {
        self.0.lent.set(false);
        self.0.regain();
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}
