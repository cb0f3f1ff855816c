//! Samples of one object in a few bytes each.

use std::collections::VecDeque;

use super::past::Passed;

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The connections that were open at the end of the interval.
    pub open: u64,
    /// What passed in the interval.
    pub passed: Passed,
}

/// The samples of one object, oldest first.
///
/// Each begins with a byte whose bits say which numbers follow; the others are 0. The first number
/// is the change of `open` since the sample before. Numbers have 7 bits in a byte, the lowest
/// first, and the 8th bit in all but the last (LEB128).
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    bytes: VecDeque<u8>,
    len: usize,
    /// `open` before the oldest sample.
    first: u64,
    /// `open` at the newest sample.
    last: u64,
}

/// The first byte of an interval without a sample.
const MISSED: u8 = 1 << 7;

impl Recorded {
    /// Returns how many intervals there are, with and without a sample.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how much memory they take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.capacity()
    }

    /// Iterates over the intervals, oldest first. Those without a sample are `None`.
    pub fn iter(&self) -> impl Iterator<Item = Option<Sample>> {
        let mut bytes = self.bytes.iter().copied();
        let mut open = self.first;
        (0..self.len).map(move |_| read(&mut bytes, &mut open))
    }

    pub(super) fn push(&mut self, open: u64, passed: Passed) {
        let numbers = [
            zigzag(open.wrapping_sub(self.last) as i64),
            passed.opened,
            passed.bytes[0],
            passed.bytes[1],
        ];
        let bits = numbers.iter().enumerate();
        let bits = bits.map(|(bit, number)| u8::from(*number > 0) << bit);
        self.bytes.push_back(bits.sum());
        for mut number in numbers.into_iter().filter(|number| *number > 0) {
            while number >= 1 << 7 {
                self.bytes.push_back(number as u8 | 1 << 7);
                number >>= 7;
            }
            self.bytes.push_back(number as u8);
        }
        self.last = open;
        self.len += 1;
    }

    /// Adds an interval without a sample.
    pub(super) fn miss(&mut self) {
        self.bytes.push_back(MISSED);
        self.len += 1;
    }

    /// Drops the oldest intervals until there are at most `most`, and the first one has a sample.
    pub(super) fn keep(&mut self, most: usize) {
        while self.len > most || self.bytes.front() == Some(&MISSED) {
            let mut bytes = self.bytes.iter().copied();
            read(&mut bytes, &mut self.first);
            let rest = bytes.len();
            self.bytes.drain(..self.bytes.len() - rest);
            self.len -= 1;
        }
    }
}

/// Reads one interval, before which `open` connections were open.
fn read(bytes: &mut impl Iterator<Item = u8>, open: &mut u64) -> Option<Sample> {
    let bits = bytes.next().filter(|bits| *bits != MISSED)?;
    let mut number = |bit: u8| {
        let (mut number, mut shift) = (0, 0);
        while bits & 1 << bit > 0
            && let Some(byte) = bytes.next()
        {
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    let change = number(0);
    let passed = Passed {
        opened: number(1),
        bytes: [number(2), number(3)],
    };
    *open = open.wrapping_add(unzigzag(change) as u64);
    Some(Sample {
        open: *open,
        passed,
    })
}

/// Makes small numbers of those that are near 0, as in Protocol Buffers.
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}
