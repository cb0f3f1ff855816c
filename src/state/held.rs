//! How many bytes are held for blocked receivers: the sum of the live reservations.

use std::cell::Cell;
use std::rc::Rc;

use super::metric::{Metric, Publish};

/// Where bytes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldIn {
    /// In the process.
    Spill,
    /// In a pipe.
    Pipe,
}

/// The bytes held for all connections. Only [`Reservation`]s change it.
#[derive(Debug, Default)]
pub struct Held {
    spills: Cell<usize>,
    pipes: Cell<usize>,
    /// The largest value of `spills` since [`Held::is_worth_trimming`] last returned `true`.
    peak: Cell<usize>,
}

impl Held {
    /// The smallest amount worth returning to the system.
    const WORTH_TRIMMING_BYTES: usize = 4 << 20;

    /// Returns the bytes held in `place`.
    #[must_use]
    pub fn bytes(&self, place: HeldIn) -> usize {
        self.cell(place).get()
    }

    /// Returns all bytes held.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.spills.get() + self.pipes.get()
    }

    /// Returns a copy of the current amounts.
    #[must_use]
    pub fn copy(&self) -> HeldBytes {
        HeldBytes {
            spills: self.spills.get(),
            pipes: self.pipes.get(),
        }
    }

    /// Records that `bytes` are held until the reservation is dropped. This always succeeds,
    /// because data that was read must be kept.
    #[must_use]
    pub fn reserve(self: &Rc<Self>, place: HeldIn, bytes: usize) -> Reservation {
        let mut reservation = Reservation {
            held: self.clone(),
            place,
            bytes: 0,
        };
        reservation.resize(bytes);
        reservation
    }

    /// Returns `true` once after a large amount was held and half of it has been freed: the
    /// allocator may still keep the freed memory.
    #[must_use]
    pub fn is_worth_trimming(&self) -> bool {
        let (held, peak) = (self.spills.get(), self.peak.get());
        let is_worth_it = self.may_be_worth_trimming() && held <= peak / 2;
        if is_worth_it {
            self.peak.set(held);
        }
        is_worth_it
    }

    /// Returns `true` while [`Held::is_worth_trimming`] may become `true` without more bytes being
    /// held.
    #[must_use]
    pub fn may_be_worth_trimming(&self) -> bool {
        self.peak.get() >= Self::WORTH_TRIMMING_BYTES
    }

    fn cell(&self, place: HeldIn) -> &Cell<usize> {
        match place {
            HeldIn::Spill => &self.spills,
            HeldIn::Pipe => &self.pipes,
        }
    }
}

/// The bytes held at one moment.
#[derive(Clone, Copy, Debug)]
pub struct HeldBytes {
    spills: usize,
    pipes: usize,
}

impl Publish for HeldBytes {
    const METRICS: &'static [Metric<Self>] = &[Metric::gauge(
        "coracle_memory_held_bytes",
        "Bytes read but not yet taken by blocked receivers, held in the process (spill) or in pipes (pipe).",
        |it, out| {
            out.number(Some(("kind", "spill")), it.spills as f64);
            out.number(Some(("kind", "pipe")), it.pipes as f64);
        },
    )];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}

/// Bytes that are held while this value lives.
#[derive(Debug)]
pub struct Reservation {
    held: Rc<Held>,
    place: HeldIn,
    bytes: usize,
}

impl Reservation {
    /// Changes the reservation to `bytes`.
    pub fn resize(&mut self, bytes: usize) {
        let cell = self.held.cell(self.place);
        cell.set(cell.get() - self.bytes + bytes);
        self.bytes = bytes;
        let peak = &self.held.peak;
        peak.set(peak.get().max(self.held.spills.get()));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Held, HeldIn};
    use std::rc::Rc;

    #[test]
    fn held_bytes_are_the_sum_of_live_reservations() {
        let held = Rc::<Held>::default();
        let first = held.reserve(HeldIn::Spill, 60_000);
        let mut second = held.reserve(HeldIn::Pipe, 50_000);
        assert_eq!(held.sum(), 110_000);
        second.resize(10_000);
        drop(first);
        assert_eq!(held.bytes(HeldIn::Spill), 0);
        assert_eq!(held.bytes(HeldIn::Pipe), 10_000);
        drop(second);
        assert_eq!(held.sum(), 0);
    }

    #[test]
    fn trimming_is_worth_it_once_after_much_is_freed() {
        let held = Rc::<Held>::default();
        let reserve = || held.reserve(HeldIn::Spill, 65_536);
        let much: Vec<_> = (0..100).map(|_| reserve()).collect();
        assert!(!held.is_worth_trimming(), "still held");
        drop(much);
        assert!(held.may_be_worth_trimming());
        assert!(held.is_worth_trimming());
        assert!(!held.is_worth_trimming());
        for _ in 0..1000 {
            drop(reserve());
        }
        assert!(!held.is_worth_trimming(), "never much at the same time");
    }
}
