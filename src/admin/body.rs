//! Response bodies: text in segments, shared by all readers, with a limit on their total size.

use std::cell::Cell;
use std::fmt;
use std::io::IoSlice;
use std::rc::Rc;

use event_listener::Event;
use smol::lock::{Mutex, MutexGuard};

/// The size of one allocation. A body of megabytes in one allocation would be copied as it grows.
const SEGMENT_BYTES: usize = 16 * 1024;
/// The most slices handed to the kernel in one call.
const SLICES: usize = 16;

/// The memory for bodies that are generated on request.
///
/// There can be many small ones. While readers hold more than [`Room::SMALL_BYTES`], the next body
/// waits until they have read theirs or time out. So there is at most one large body, however many
/// clients read slowly.
#[derive(Debug)]
pub(super) struct Room {
    held: Cell<usize>,
    given_back: Event,
    making: Mutex<()>,
}

impl Room {
    /// The total size of bodies above which the next one has to wait.
    const SMALL_BYTES: usize = 256 * 1024;

    /// Creates a room with no body in it.
    #[must_use]
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            held: Cell::new(0),
            given_back: Event::new(),
            making: Mutex::new(()),
        })
    }

    /// Waits until there is room for one more body, of any size. No other body is started until the
    /// guard is dropped.
    pub(super) async fn free(&self) -> MutexGuard<'_, ()> {
        let making = self.making.lock().await;
        loop {
            let given_back = self.given_back.listen();
            if self.held.get() <= Self::SMALL_BYTES {
                return making;
            }
            given_back.await;
        }
    }
}

/// A response body. Writing to it cannot fail.
#[derive(Debug)]
pub(super) struct Body {
    segments: Vec<Vec<u8>>,
    bytes: usize,
    room: Option<Rc<Room>>,
}

impl Body {
    /// Creates an empty body to write to.
    #[must_use]
    pub(super) fn in_room(room: &Rc<Room>) -> Self {
        Self {
            segments: Vec::new(),
            bytes: 0,
            room: Some(room.clone()),
        }
    }

    /// Creates a short body that does not count against a room.
    #[must_use]
    pub(super) fn of(text: &str) -> Rc<Self> {
        Rc::new(Self {
            segments: vec![text.into()],
            bytes: text.len(),
            room: None,
        })
    }

    /// Returns the length in bytes.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Returns the bytes of `head` and then of the body from `position` on, in as many slices as
    /// one call to the kernel takes.
    #[must_use]
    pub(super) fn slices<'a>(&'a self, head: &'a [u8], position: usize) -> Vec<IoSlice<'a>> {
        let mut skip = position;
        let rests = self.segments.iter().map(|segment| {
            let rest = &segment[skip.min(segment.len())..];
            skip = skip.saturating_sub(segment.len());
            rest
        });
        let slices = std::iter::once(head).chain(rests);
        let slices = slices.filter(|slice| !slice.is_empty()).map(IoSlice::new);
        slices.take(SLICES).collect()
    }

    fn push(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(room) = &self.room {
            room.held.set(room.held.get() + bytes.len());
        }
        while !bytes.is_empty() {
            let last = self.segments.last_mut();
            let Some(last) = last.filter(|last| last.len() < SEGMENT_BYTES) else {
                self.segments.push(Vec::with_capacity(SEGMENT_BYTES));
                continue;
            };
            let n = bytes.len().min(SEGMENT_BYTES - last.len());
            last.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
        }
    }
}

impl fmt::Write for Body {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(room) = &self.room {
            room.held.set(room.held.get() - self.bytes);
            room.given_back.notify(usize::MAX);
        }
    }
}
