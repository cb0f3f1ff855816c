//! Builders of metric families: a name, a help text and samples become the value that the encoders write.

use std::time::Duration;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::state;

/// One label: its name and its value.
pub(super) type NameValue<'a> = (&'a str, &'a str);

/// A family under construction. Its samples are all of one type.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    family: MetricFamily,
}

impl Family {
    /// A number that only grows. `name` ends in `_total`.
    #[must_use]
    pub(crate) fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// A number that goes up and down.
    #[must_use]
    pub(crate) fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    /// Durations counted in buckets. `name` ends in `_seconds`.
    #[must_use]
    pub(crate) fn histogram(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { family }
    }

    /// Adds one sample of a counter or a gauge. Integers above 2^53 lose their last digits, as they do in Prometheus.
    pub(crate) fn sample(&mut self, labels: &[NameValue<'_>], value: f64) {
        let mut metric = metric(labels);
        if self.family.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.family.mut_metric().push(metric);
    }

    /// The same, as part of a chain.
    #[must_use]
    pub(crate) fn with(mut self, labels: &[NameValue<'_>], value: f64) -> Self {
        self.sample(labels, value);
        self
    }

    /// Adds one sample of a histogram.
    pub(crate) fn observed<const N: usize>(
        &mut self,
        labels: &[NameValue<'_>],
        observed: &state::Histogram<N>,
    ) {
        let buckets = observed.cumulative().map(|(bound, n)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(bound));
            bucket.set_cumulative_count(n);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(observed.count());
        histogram.set_sample_sum(seconds(observed.sum()));
        let mut metric = metric(labels);
        metric.set_histogram(histogram);
        self.family.mut_metric().push(metric);
    }

    /// How many samples it has.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.family.get_metric().len()
    }

    /// The finished family; `None` when it has no sample, for the formats know no empty family.
    #[must_use]
    pub(crate) fn finish(self) -> Option<MetricFamily> {
        (!self.family.get_metric().is_empty()).then_some(self.family)
    }
}

/// A duration in seconds, the base unit.
#[must_use]
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn metric(labels: &[NameValue<'_>]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
