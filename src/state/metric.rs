//! Published metrics: each is a row of a table beside the state that it is read from.
//!
//! To publish another number of an entrypoint, a server or the like, add a row to the table of its
//! type. The code that writes the metrics iterates over the tables and knows no metric by name.

use std::time::Duration;

use super::counters::{CounterBy, Histogram, Label};

/// One metric of objects of type `T`.
pub struct Metric<T: 'static> {
    /// The metric's name, in base units. The name of a counter ends in `_total`.
    pub name: &'static str,
    /// What the metric measures, in one sentence.
    pub help: &'static str,
    /// How to interpret the samples.
    pub kind: Kind,
    /// Reads the samples of one object.
    pub read: Read<T>,
}

/// How to interpret a metric's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// An object whose metrics are published.
pub trait Publish: Sized + 'static {
    /// All metrics of this type.
    const METRICS: &'static [Metric<Self>];

    /// Adds the labels that distinguish this object from others of its type.
    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str));
}

/// Receives the samples of one metric of one object.
pub trait Samples {
    /// Adds one number, with the value of an additional label if the metric has one. Integers above
    /// 2^53 lose their last digits, as they do in Prometheus.
    fn number(&mut self, label: Option<(&'static str, &str)>, value: f64);

    /// Adds the observed durations.
    fn observed(&mut self, observed: &dyn Observed);
}

impl dyn Samples + '_ {
    /// Adds one number without an additional label.
    pub fn value(&mut self, value: u64) {
        self.number(None, value as f64);
    }

    /// Adds one number for each value of the label `name`.
    pub fn by<L: Label>(&mut self, name: &'static str, counters: &CounterBy<L>) {
        for (label, n) in counters.iter() {
            self.number(Some((name, label.label())), n as f64);
        }
    }
}

/// A [`Histogram`] with any number of buckets.
pub trait Observed {
    /// Calls `bucket` with each finite upper bound and the number of observations at or below it,
    /// in ascending order.
    fn each(&self, bucket: &mut dyn FnMut(Duration, u64));
    /// Returns the number of observations.
    fn count(&self) -> u64;
    /// Returns the sum of all observations.
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

/// Reads a metric's samples of one object.
type Read<T> = fn(&T, &mut dyn Samples);

impl<T> Metric<T> {
    /// Creates a metric for a number that only grows.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str, read: Read<T>) -> Self {
        Self::new(Kind::Counter, name, help, read)
    }

    /// Creates a metric for a number that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str, read: Read<T>) -> Self {
        Self::new(Kind::Gauge, name, help, read)
    }

    /// Creates a metric for durations in buckets. The name ends in `_seconds`.
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
