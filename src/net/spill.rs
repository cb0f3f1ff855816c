//! Bytes that wait for a receiver that would not take them.

/// Bytes that were read and not yet taken. Empty, it has no memory.
#[derive(Debug, Default)]
pub(super) struct Spill {
    bytes: Box<[u8]>,
    start: usize,
}

impl Spill {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            start: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Forgets the first `n` bytes.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
