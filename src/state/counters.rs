//! Monotonic counters, plain cells of one thread, that can only grow.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds `n`. It wraps after 2^64, as Prometheus expects of a restarted counter.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The sum so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A closed set of label values, such as the reasons for which a connection ends.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// This value's position in [`Label::ALL`].
    fn index(self) -> usize;

    /// The text in the metrics.
    fn label(self) -> &'static str;
}

/// Declares a [`Label`] enum: each variant with its label text and its documentation.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $crate::state::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn index(self) -> usize { self as usize }
            fn label(self) -> &'static str { match self { $(Self::$variant => $text,)+ } }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::state::Label::label(*self))
            }
        }
    };
}
pub(super) use label;

/// One counter for each value of a label, all there from the start at 0.
#[derive(Debug)]
pub struct CounterBy<L: Label> {
    counters: Box<[Counter]>,
    label: PhantomData<L>,
}

impl<L: Label> Default for CounterBy<L> {
    fn default() -> Self {
        Self {
            counters: L::ALL.iter().map(|_| Counter::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label> CounterBy<L> {
    /// The counter of one label value.
    #[must_use]
    pub fn of(&self, label: L) -> &Counter {
        &self.counters[label.index()]
    }

    /// Every label value with its count.
    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|&label| (label, self.of(label).value()))
    }
}

/// A histogram of durations with fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [Duration],
    buckets: Box<[Counter]>,
    sum: Cell<Duration>,
}

impl Histogram {
    /// An empty histogram. `bounds` are the buckets' inclusive upper bounds, ascending, without the infinite one.
    #[must_use]
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| Counter::default()).collect(),
            sum: Cell::default(),
        }
    }

    /// Counts one observation.
    pub fn observe(&self, value: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].increment();
        self.sum.set(self.sum.get().saturating_add(value));
    }

    /// Each finite upper bound with the number of observations at or below it.
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

    /// How many observations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }

    /// The sum of all observations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_inclusive_and_the_last_bucket_takes_the_rest() {
        const BOUNDS: &[Duration] = &[Duration::from_millis(1), Duration::from_millis(10)];
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
