//! Builds metric families from a name, a help text and samples, as values for the encoders.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::state::{self, Kind, Observed, Publish, Samples};

/// One label: its name and its value.
pub(super) type NameValue<'a> = (&'a str, &'a str);

/// A family under construction. Its samples all have the same type.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    family: MetricFamily,
}

impl Family {
    /// Creates a family without samples.
    #[must_use]
    pub(crate) fn of<T>(metric: &state::Metric<T>) -> Self {
        Self::new(metric.name, metric.help, metric.kind)
    }

    /// Creates one for a metric that is in no table.
    #[must_use]
    pub(crate) fn new(name: &str, help: &str, kind: Kind) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(match kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        Self { family }
    }

    /// Adds one sample of a counter or a gauge.
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

    /// Adds one sample of a histogram.
    pub(crate) fn observed(&mut self, labels: &[NameValue<'_>], observed: &dyn Observed) {
        let mut buckets = Vec::new();
        observed.each(&mut |bound, n| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(n);
            buckets.push(bucket);
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(observed.count());
        histogram.set_sample_sum(observed.sum().as_secs_f64());
        let mut metric = metric(labels);
        metric.set_histogram(histogram);
        self.family.mut_metric().push(metric);
    }

    /// Adds the samples of one thing.
    pub(crate) fn add<T: Publish>(&mut self, metric: &state::Metric<T>, thing: &T) {
        let mut labels = Vec::new();
        thing.labels(&mut |name, value| labels.push((name, value)));
        let mut labelled = Labelled {
            family: self,
            labels,
        };
        (metric.read)(thing, &mut labelled);
    }

    /// Returns the number of samples.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.family.get_metric().len()
    }

    /// Returns the finished family, or `None` if it has no sample, since the formats have no empty
    /// family.
    #[must_use]
    pub(crate) fn finish(self) -> Option<MetricFamily> {
        (!self.family.get_metric().is_empty()).then_some(self.family)
    }
}

/// Adds the samples of one thing, with its labels.
struct Labelled<'a> {
    family: &'a mut Family,
    labels: Vec<NameValue<'a>>,
}

impl Samples for Labelled<'_> {
    fn number(&mut self, label: Option<(&'static str, &str)>, value: f64) {
        match label {
            None => self.family.sample(&self.labels, value),
            Some(label) => {
                let mut labels = self.labels.clone();
                labels.push(label);
                self.family.sample(&labels, value);
            }
        }
    }

    fn observed(&mut self, observed: &dyn Observed) {
        self.family.observed(&self.labels, observed);
    }
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
