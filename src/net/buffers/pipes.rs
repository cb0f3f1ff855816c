//! The pipes for splicing long streams: few, shared by all streams, and lent only while they
//! contain bytes.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::state::{Held, HeldIn, Reservation};

/// The requested size.
///
/// Splicing 1 GiB cost 0.54 s of CPU time with the kernel's default of 64 KiB, 0.46 s with 256 KiB
/// and 0.37 s with this size (x86-64, medians of five interleaved rounds). All pipes together use
/// an eighth of what an unprivileged user may have (pipe-user-pages-soft, 16,384 pages).
const PIPE_BYTES: usize = 1 << 20;

/// A smaller pipe is not worth using. The kernel gives one to a user who has reached the page
/// limit.
const PIPE_BYTES_MIN: u32 = 64 * 1024;

/// How long streams are copied after the kernel refuses a pipe, before asking again.
const REFUSED: Duration = Duration::from_secs(1);

/// The pool of pipes.
#[derive(Debug)]
pub(in crate::net) struct Pipes {
    /// Open and empty pipes.
    idle: RefCell<Vec<Pipe>>,
    /// Idle pipes that have not been needed since the last [`Pipes::shrink`].
    unused: Cell<usize>,
    lent: Cell<usize>,
    at_most: Cell<usize>,
    refused: Cell<Option<Instant>>,
    bytes: Rc<Held>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// In bytes. 32 bits because each connection has room for two of these; the kernel's own type
    /// is no larger.
    capacity: u32,
}

impl Pipes {
    /// The most pipes, lent and idle together, unless [`Pipes::limit`] changes it.
    pub(in crate::net) const AT_MOST: usize = 8;

    pub(in crate::net) fn new(bytes: &Rc<Held>) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            unused: Cell::new(0),
            lent: Cell::new(0),
            at_most: Cell::new(Self::AT_MOST),
            refused: Cell::new(None),
            bytes: bytes.clone(),
        })
    }

    /// Sets the largest number of pipes.
    pub(in crate::net) fn limit(&self, at_most: usize) {
        self.at_most.set(at_most);
    }

    /// Lends an empty pipe.
    ///
    /// Returns `None` if all are in use or the kernel refuses one; the stream is then copied.
    pub(in crate::net) fn lend(self: &Rc<Self>, now: Instant) -> Option<LentPipe> {
        let idle = self.idle.borrow_mut().pop();
        let left = self.idle.borrow().len();
        self.unused.set(self.unused.get().min(left));
        let pipe = match idle {
            Some(pipe) => pipe,
            None => self.open(now)?,
        };
        self.lent.set(self.lent.get() + 1);
        Some(LentPipe {
            pipe: Some(pipe),
            held: 0,
            reservation: self.bytes.reserve(HeldIn::Pipe, 0),
            pool: self.clone(),
        })
    }

    fn open(&self, now: Instant) -> Option<Pipe> {
        if self.lent.get() >= self.at_most.get() || self.refused.get().is_some_and(|t| now < t) {
            return None;
        }
        let pipe = Pipe::open();
        self.refused.set(pipe.is_err().then(|| now + REFUSED));
        pipe.ok()
    }

    /// Closes the pipes that have not been needed since the last call.
    ///
    /// Returns true if any remain open.
    pub(in crate::net) fn shrink(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let needed = idle.len() - self.unused.get();
        idle.truncate(needed);
        self.unused.set(needed);
        needed + self.lent.get() > 0
    }
}

impl Pipe {
    fn open() -> Result<Self, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // EPERM means that the user has reached the page limit; the pipe keeps its size.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        let capacity = fcntl_getpipe_size(&write)? as u32;
        if capacity < PIPE_BYTES_MIN {
            return Err(Errno::PERM);
        }
        Ok(Self {
            read,
            write,
            capacity,
        })
    }
}

/// A pipe in use.
///
/// It returns to the pool if it is empty. Otherwise it is closed, because it must not carry one
/// stream's bytes into another.
#[derive(Debug)]
pub(in crate::net) struct LentPipe {
    /// `None` only during drop.
    pipe: Option<Pipe>,
    held: u32,
    reservation: Reservation,
    pool: Rc<Pipes>,
}

impl LentPipe {
    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("taken only during drop")
    }

    /// Returns how many bytes the pipe can hold.
    pub(in crate::net) fn capacity(&self) -> usize {
        self.pipe().capacity as usize
    }

    /// Returns how many bytes are in the pipe.
    pub(in crate::net) fn held(&self) -> usize {
        self.held as usize
    }

    /// Returns the end to read from.
    pub(in crate::net) fn read_end(&self) -> BorrowedFd<'_> {
        self.pipe().read.as_fd()
    }

    /// Returns the end to write to.
    pub(in crate::net) fn write_end(&self) -> BorrowedFd<'_> {
        self.pipe().write.as_fd()
    }

    /// Records that `n` bytes were written to the pipe.
    pub(in crate::net) fn filled(&mut self, n: usize) {
        self.held += n as u32;
        self.reservation.resize(self.held());
    }

    /// Records that `n` bytes were read from the pipe.
    pub(in crate::net) fn drained(&mut self, n: usize) {
        self.held -= n as u32;
        self.reservation.resize(self.held());
    }

    /// Copies the bytes out, for a receiver that cannot splice.
    pub(in crate::net) fn into_bytes(mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held()];
        while self.held > 0 {
            let start = bytes.len() - self.held();
            match rustix::io::read(&self.pipe().read, &mut bytes[start..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.drained(n),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }
}

impl Drop for LentPipe {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        if self.held == 0 {
            self.pool.idle.borrow_mut().extend(self.pipe.take());
        }
    }
}
