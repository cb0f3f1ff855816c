//! Monotonic counters and histograms in plain single-threaded cells.

use std::cell::Cell;
use std::fmt::Debug;
use std::time::Duration;

/// A number that only grows. A clone is an independent counter that starts at the same value.
#[derive(Clone, Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds `n`. The value wraps at 2^64, which Prometheus treats as a counter reset.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Returns the current value.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A closed set of label values, such as the reasons why a connection ends.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// An array with one counter per value, so that copying it only copies bytes.
    type Counters: AsRef<[Counter]> + Clone + Debug + Default;

    /// Returns this value's position in [`Label::ALL`].
    fn index(self) -> usize;

    /// Returns the text used in the metrics.
    fn label(self) -> &'static str;
}

/// Declares a [`Label`] enum: each variant with its label text and its documentation.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $crate::state::counters::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            type Counters = [$crate::state::counters::Counter; [$($text,)+].len()];
            fn index(self) -> usize { self as usize }
            fn label(self) -> &'static str { match self { $(Self::$variant => $text,)+ } }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::state::counters::Label::label(*self))
            }
        }
    };
}
pub(super) use label;

/// One counter per label value, all present from the start at 0.
#[derive(Clone, Debug)]
pub struct CounterBy<L: Label> {
    counters: L::Counters,
}

impl<L: Label> Default for CounterBy<L> {
    fn default() -> Self {
        let counters = L::Counters::default();
        Self { counters }
    }
}

impl<L: Label> CounterBy<L> {
    /// Returns the counter of one label value.
    #[must_use]
    pub fn of(&self, label: L) -> &Counter {
        &self.counters.as_ref()[label.index()]
    }

    /// Iterates over every label value and its count.
    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|&label| (label, self.of(label).value()))
    }
}

/// A histogram of durations with `N` fixed bounds.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [Duration; N],
    buckets: [Counter; N],
    /// Observations above the last bound.
    above: Counter,
    sum: Cell<Duration>,
}

impl<const N: usize> Histogram<N> {
    /// Creates an empty histogram. `bounds` are the buckets' inclusive upper bounds, ascending,
    /// without the infinite one.
    #[must_use]
    pub fn new(bounds: &'static [Duration; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum: Cell::default(),
        }
    }

    /// Counts one observation.
    pub fn observe(&self, value: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets.get(bucket).unwrap_or(&self.above).increment();
        self.sum.set(self.sum.get().saturating_add(value));
    }

    /// Iterates over each finite upper bound and the number of observations at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut below = 0;
        self.bounds
            .iter()
            .zip(&self.buckets)
            .map(move |(bound, n)| {
                below += n.value();
                (*bound, below)
            })
    }

    /// Returns the number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        let buckets = self.buckets.iter().map(Counter::value);
        buckets.sum::<u64>() + self.above.value()
    }

    /// Returns the sum of all observations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_the_last_bucket_takes_the_rest() {
        const BOUNDS: &[Duration; 2] = &[Duration::from_millis(1), Duration::from_millis(10)];
        let histogram = Histogram::new(BOUNDS);
        for millis in [0, 1, 2, 10, 11, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let cumulative: Vec<_> = histogram.cumulative().map(|(_, n)| n).collect();
        assert_eq!(cumulative, [2, 4]);
        assert_eq!(histogram.count(), 6);
        assert_eq!(histogram.sum(), Duration::from_millis(5024));
    }
}
