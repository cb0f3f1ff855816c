//! The pipes through which long streams are spliced: few, shared by all streams, and lent only while bytes are in them.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::state::{Held, HeldIn, Reservation};

/// The size asked for. Splicing 1 GiB cost 0.54 s of CPU time with the kernel's default of 64 KiB, 0.46 s with 256 KiB and 0.37 s with
/// this (x86-64, medians of five interleaved rounds). All pipes together take an eighth of what an unprivileged user may
/// have (pipe-user-pages-soft, 16,384 pages).
const PIPE_BYTES: usize = 1 << 20;

/// A pipe smaller than this is not worth it: what the kernel gives to a user who has had his share of pages.
const PIPE_BYTES_MIN: u32 = 64 * 1024;

/// After the kernel has refused a pipe, streams are copied for so long before it is asked again.
const REFUSED: Duration = Duration::from_secs(1);

/// The pool.
#[derive(Debug)]
pub(in crate::net) struct Pipes {
    /// Open and empty.
    idle: RefCell<Vec<Pipe>>,
    /// Idle ones that nobody has needed since the last [`Pipes::shrink`].
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
    /// In bytes. 32 bits, as each connection has room for two of these; the kernel's own type is no larger.
    capacity: u32,
}

impl Pipes {
    /// At most this many, lent and idle ones together, unless [`Pipes::limit`] says otherwise.
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

    /// Sets how many there may be.
    pub(in crate::net) fn limit(&self, at_most: usize) {
        self.at_most.set(at_most);
    }

    /// Lends an empty pipe; none, if all are in use or the kernel refuses: then the stream is copied.
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

    /// Closes what nobody has needed since the last call. True while there are open ones.
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
        // EPERM says that the user has had his share of pages; the pipe keeps its size.
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

/// A pipe in use. It goes back to the pool if it is empty, and is closed otherwise: it must not carry one stream's bytes into another.
#[derive(Debug)]
pub(in crate::net) struct LentPipe {
    /// Always there; taken by the drop.
    pipe: Option<Pipe>,
    held: u32,
    reservation: Reservation,
    pool: Rc<Pipes>,
}

impl LentPipe {
    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("taken only by the drop")
    }

    /// How many bytes it may hold.
    pub(in crate::net) fn capacity(&self) -> usize {
        self.pipe().capacity as usize
    }

    /// How many bytes are in it.
    pub(in crate::net) fn held(&self) -> usize {
        self.held as usize
    }

    /// Where bytes come out.
    pub(in crate::net) fn read_end(&self) -> BorrowedFd<'_> {
        self.pipe().read.as_fd()
    }

    /// Where bytes go in.
    pub(in crate::net) fn write_end(&self) -> BorrowedFd<'_> {
        self.pipe().write.as_fd()
    }

    /// `n` bytes have gone in.
    pub(in crate::net) fn filled(&mut self, n: usize) {
        self.held += n as u32;
        self.reservation.resize(self.held());
    }

    /// `n` bytes have come out.
    pub(in crate::net) fn drained(&mut self, n: usize) {
        self.held -= n as u32;
        self.reservation.resize(self.held());
    }

    /// Takes the bytes out by copying, for a receiver that cannot splice.
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
