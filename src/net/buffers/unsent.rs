//! Bytes that a receiver has not accepted yet.

use std::io;
use std::rc::Rc;

use crate::state::{Held, HeldIn, Reservation};

/// Bytes that were read but not accepted yet.
///
/// Owns no memory while empty.
#[derive(Debug, Default)]
pub(in crate::net) struct Unsent {
    bytes: Box<[u8]>,
    start: usize,
    _reservation: Option<Reservation>,
}

impl Unsent {
    /// Keeps a copy of `bytes`.
    ///
    /// # Errors
    /// If there is no memory for the copy. Only this connection ends; the others do not need it.
    pub(in crate::net) fn new(bytes: &[u8], held: &Rc<Held>) -> io::Result<Self> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        copy.extend_from_slice(bytes);
        Ok(Self {
            bytes: copy.into(),
            start: 0,
            _reservation: Some(held.reserve(HeldIn::Spill, bytes.len())),
        })
    }

    pub(in crate::net) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(in crate::net) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Drops the first `n` bytes.
    pub(in crate::net) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
