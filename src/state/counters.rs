//! Monotonic counters, plain cells of one thread, that can only grow.

use std::cell::Cell;
use std::fmt::Debug;
use std::time::Duration;

/// A number that only grows. Its clone is another counter that begins where it stands.
#[derive(Clone, Debug, Default)]
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

    /// An array with one counter for each value: copying it is copying bytes.
    type Counters: AsRef<[Counter]> + Clone + Debug + Default;

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

/// One counter for each value of a label, all there from the start at 0.
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
    /// The counter of one label value.
    #[must_use]
    pub fn of(&self, label: L) -> &Counter {
        &self.counters.as_ref()[label.index()]
    }

    /// Every label value with its count.
    pub fn iter(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|&label| (label, self.of(label).value()))
    }
}

/// A histogram of durations with `N` fixed bounds.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [Duration; N],
    buckets: [Counter; N],
    /// Beyond the last bound.
    above: Counter,
    sum: Cell<Duration>,
}

impl<const N: usize> Histogram<N> {
    /// An empty histogram. `bounds` are the buckets' inclusive upper bounds, ascending, without the infinite one.
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
        let buckets = self.buckets.iter().map(Counter::value);
        buckets.sum::<u64>() + self.above.value()
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
