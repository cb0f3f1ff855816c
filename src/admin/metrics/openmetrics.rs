//! Encodes metric families as OpenMetrics 1.0 text. No I/O.
//!
//! The format: <https://prometheus.io/docs/specs/om/open_metrics_spec/>. It differs from
//! Prometheus' older text format in the names of counters, in units, in how numbers and help texts
//! are written, and in its last line.

use std::fmt::{Display, Formatter, Result, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// The last line. Without it, a scrape counts as truncated.
pub(super) const END: &str = "# EOF\n";

/// The units that a family's name can end in.
const UNITS: &[&str] = &["seconds", "bytes"];

/// Writes a family's type, unit and help text.
///
/// # Errors
/// Only those of `out`; a `String` has none.
pub(super) fn encode_head(family: &MetricFamily, out: &mut impl Write) -> Result {
    let kind = family.get_field_type();
    let name = name(family);
    let type_name = match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "unknown",
    };
    writeln!(out, "# TYPE {name} {type_name}")?;
    let has_unit = |unit: &&&str| {
        let rest = name.strip_suffix(**unit);
        rest.is_some_and(|rest| rest.ends_with('_'))
    };
    if let Some(unit) = UNITS.iter().find(has_unit) {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    if !family.help().is_empty() {
        writeln!(out, "# HELP {name} {}", Escaped(family.help()))?;
    }
    Ok(())
}

/// Writes a family's samples.
///
/// # Errors
/// Only those of `out`; a `String` has none.
pub(super) fn encode_samples(family: &MetricFamily, out: &mut impl Write) -> Result {
    let kind = family.get_field_type();
    let name = name(family);
    family
        .get_metric()
        .iter()
        .try_for_each(|metric| match kind {
            MetricType::COUNTER => {
                let value = metric.get_counter().get_value();
                let labels = metric.get_label();
                sample(
                    out,
                    format_args!("{name}_total"),
                    labels,
                    None,
                    Number(value),
                )
            }
            MetricType::GAUGE => {
                let value = metric.get_gauge().get_value();
                let labels = metric.get_label();
                sample(out, format_args!("{name}"), labels, None, Number(value))
            }
            MetricType::HISTOGRAM => histogram(out, name, metric),
            // Nothing here creates these. A family of them is written without samples.
            MetricType::SUMMARY | MetricType::UNTYPED => Ok(()),
        })
}

/// Returns a family's name. A counter's family is named without the suffix of its samples.
fn name(family: &MetricFamily) -> &str {
    let name = match family.get_field_type() {
        MetricType::COUNTER => family.name().strip_suffix("_total"),
        _ => None,
    };
    name.unwrap_or(family.name())
}

fn histogram(out: &mut impl Write, name: &str, metric: &Metric) -> Result {
    let (labels, histogram) = (metric.get_label(), metric.get_histogram());
    for bucket in histogram.get_bucket() {
        let bound = Some(bucket.upper_bound());
        let n = bucket.cumulative_count();
        sample(out, format_args!("{name}_bucket"), labels, bound, n)?;
    }
    let count = histogram.get_sample_count();
    let infinite = Some(f64::INFINITY);
    sample(out, format_args!("{name}_bucket"), labels, infinite, count)?;
    let sum = Number(histogram.get_sample_sum());
    sample(out, format_args!("{name}_sum"), labels, None, sum)?;
    sample(out, format_args!("{name}_count"), labels, None, count)
}

fn sample(
    out: &mut impl Write,
    name: impl Display,
    labels: &[LabelPair],
    bound: Option<f64>,
    value: impl Display,
) -> Result {
    write!(out, "{name}")?;
    let mut separator = '{';
    for label in labels {
        let value = Escaped(label.value());
        write!(out, "{separator}{}=\"{value}\"", label.name())?;
        separator = ',';
    }
    if let Some(bound) = bound {
        write!(out, "{separator}le=\"{}\"", Canonical(bound))?;
        separator = ',';
    }
    let end = if separator == '{' { "" } else { "}" };
    writeln!(out, "{end} {value}")
}

/// A sample's value: an integer is written without a decimal point.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value => value.fmt(f),
        }
    }
}

/// A bucket's bound in canonical form, where an integer has a decimal point: bounds are labels, and
/// labels are compared as text.
struct Canonical(f64);

impl Display for Canonical {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            value => write!(f, "{value:?}"),
        }
    }
}

/// A label's value or a help text, on one line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for piece in self.0.split_inclusive(['\\', '"', '\n']) {
            let end = piece.trim_end_matches(['\\', '"', '\n']);
            f.write_str(end)?;
            match &piece[end.len()..] {
                "\\" => f.write_str("\\\\")?,
                "\"" => f.write_str("\\\"")?,
                "\n" => f.write_str("\\n")?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::super::metric_family::Family;
    use super::*;
    use crate::state::{Histogram, Kind};

    fn text(family: Family) -> String {
        let mut out = String::new();
        let family = family.finish().unwrap();
        encode_head(&family, &mut out).unwrap();
        encode_samples(&family, &mut out).unwrap();
        out
    }

    #[test]
    fn counter_has_its_suffix_on_samples_only() {
        let mut family = Family::new("a_bytes_total", "Bytes.", Kind::Counter);
        family.sample(&[("l", "v")], 3.0);
        assert_eq!(
            text(family),
            "# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes Bytes.\na_bytes_total{l=\"v\"} 3\n"
        );
    }

    #[test]
    fn histogram_has_canonical_bounds_and_the_infinite_one() {
        const BOUNDS: &[Duration; 3] = &[
            Duration::from_micros(500),
            Duration::from_secs(1),
            Duration::from_secs(86_400),
        ];
        let observed = Histogram::new(BOUNDS);
        observed.observe(Duration::from_millis(250));
        observed.observe(Duration::from_secs(100_000));
        let mut family = Family::new("a_seconds", "Time.", Kind::Histogram);
        family.observed(&[("l", "v")], &observed);
        assert_eq!(
            text(family),
            r#"# TYPE a_seconds histogram
# UNIT a_seconds seconds
# HELP a_seconds Time.
a_seconds_bucket{l="v",le="0.0005"} 0
a_seconds_bucket{l="v",le="1.0"} 1
a_seconds_bucket{l="v",le="86400.0"} 1
a_seconds_bucket{l="v",le="+Inf"} 2
a_seconds_sum{l="v"} 100000.25
a_seconds_count{l="v"} 2
"#
        );
    }

    #[test]
    fn quotes_backslashes_and_line_ends_are_escaped() {
        let mut family = Family::new("a", "x\\y\n\"z\"", Kind::Gauge);
        family.sample(&[("l", "\\\"\n\\n é")], f64::INFINITY);
        assert_eq!(
            text(family),
            "# TYPE a gauge\n# HELP a x\\\\y\\n\\\"z\\\"\na{l=\"\\\\\\\"\\n\\\\n é\"} +Inf\n"
        );
    }

    #[test]
    fn unit_is_a_whole_word() {
        let mut family = Family::new("kilobytes", "", Kind::Gauge);
        family.sample(&[], 0.5);
        assert_eq!(text(family), "# TYPE kilobytes gauge\nkilobytes 0.5\n");
    }
}
