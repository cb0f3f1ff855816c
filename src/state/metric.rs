//! What is published: each metric stands beside the state that it is read from, as a row of a table.
//!
//! To publish another number of an entrypoint, a server or the like, add a row to the table of its type. Whoever writes the
//! metrics goes through the tables and knows no metric by name.

use std::time::Duration;

use super::counters::{CounterBy, Histogram, Label};

/// One metric of things of type `T`.
pub struct Metric<T: 'static> {
    /// Its name, in base units; that of a counter ends in `_total`.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// How its samples are to be understood.
    pub kind: Kind,
    /// Reads its samples off one thing.
    pub read: Read<T>,
}

/// How samples are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are durations in buckets.
    Histogram,
}

/// A thing that is published.
pub trait Publish: Sized + 'static {
    /// All that is published of it.
    const METRICS: &'static [Metric<Self>];

    /// Adds the labels that tell it from others of its type.
    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str));
}

/// Takes the samples of one metric of one thing.
pub trait Samples {
    /// One number, with the value of a further label if the metric has one. Integers above 2^53 lose their last digits, as they do in
    /// Prometheus.
    fn number(&mut self, label: Option<(&'static str, &str)>, value: f64);

    /// The durations that were observed.
    fn observed(&mut self, observed: &dyn Observed);
}

impl dyn Samples + '_ {
    /// One number without a further label.
    pub fn value(&mut self, value: u64) {
        self.number(None, value as f64);
    }

    /// One number for each value of the label called `name`.
    pub fn by<L: Label>(&mut self, name: &'static str, counters: &CounterBy<L>) {
        for (label, n) in counters.iter() {
            self.number(Some((name, label.label())), n as f64);
        }
    }
}

/// A [`Histogram`] with any number of buckets.
pub trait Observed {
    /// Calls `bucket` with each finite upper bound and the number of observations at or below it, ascending.
    fn each(&self, bucket: &mut dyn FnMut(Duration, u64));
    /// How many observations there were.
    fn count(&self) -> u64;
    /// The sum of all observations.
    fn sum(&self) -> Duration;
}

impl<const N: usize> Observed for Histogram<N> {
    fn each(&self, bucket: &mut dyn FnMut(Duration, u64)) {
        self.cumulative().for_each(|(bound, n)| bucket(bound, n));
    }

    fn count(&self) -> u64 {
        Histogram::count(self)
    }

    fn sum(&self) -> Duration {
        Histogram::sum(self)
    }
}

/// Reads a metric's samples off one thing.
type Read<T> = fn(&T, &mut dyn Samples);

impl<T> Metric<T> {
    /// A number that only grows.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str, read: Read<T>) -> Self {
        Self::new(Kind::Counter, name, help, read)
    }

    /// A number that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str, read: Read<T>) -> Self {
        Self::new(Kind::Gauge, name, help, read)
    }

    /// Durations in buckets. The name ends in `_seconds`.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str, read: Read<T>) -> Self {
        Self::new(Kind::Histogram, name, help, read)
    }

    const fn new(kind: Kind, name: &'static str, help: &'static str, read: Read<T>) -> Self {
        Self {
            name,
            help,
            kind,
            read,
        }
    }
}
