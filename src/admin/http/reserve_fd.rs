//! A descriptor held in reserve, so that the endpoint can still be reached when all others are in
//! use.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::{EventfdFlags, eventfd};

/// The descriptor: held, lent to one client, or lost to another user of descriptors.
#[derive(Debug)]
pub(crate) struct ReserveFd {
    // An eventfd, because it does not depend on any file.
    held: RefCell<Option<OwnedFd>>,
    lent: Cell<bool>,
}

impl ReserveFd {
    /// Opens a descriptor and holds it.
    ///
    /// # Errors
    /// If none is left.
    pub(crate) fn hold() -> io::Result<Self> {
        Ok(Self {
            held: RefCell::new(Some(open()?)),
            lent: Cell::new(false),
        })
    }

    /// Frees the descriptor for the caller to use immediately, before anything else runs. Returns
    /// `None` if it is not held.
    pub(crate) fn lend(self: &Rc<Self>) -> Option<LentFd> {
        drop(self.held.take()?);
        self.lent.set(true);
        Some(LentFd(self.clone()))
    }

    /// Returns `true` if a client has it now.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.get()
    }

    /// Tries to hold a lost descriptor again. Returns whether it is held.
    pub(crate) fn regain(&self) -> bool {
        if self.held.borrow().is_none() && !self.lent.get() {
            self.held.replace(open().ok());
        }
        self.held.borrow().is_some()
    }
}

/// Represents the descriptor while a client uses it. Drop this after the client's socket is closed.
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
