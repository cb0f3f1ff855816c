//! Reads numbers out of metrics in the text format of Prometheus. No I/O.

/// Returns the labels, as written between the braces, and the value of each sample of `name`.
pub(super) fn samples<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = (&'t str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            // A value has no brace, unlike a label.
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.trim().parse().ok()?))
    })
}

/// Returns the sum of the samples of `name`, or `None` if there are none.
pub(super) fn sum(text: &str, name: &str) -> Option<f64> {
    let values = samples(text, name).map(|(_, value)| value);
    values.reduce(|a, b| a + b)
}

/// Returns by how many connections the kernel's table and the set differ, if it can be read.
pub(super) fn mismatch(text: &str) -> Option<f64> {
    let differences = samples(text, "coracle_connection_mismatch");
    differences.map(|(_, n)| n.abs()).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# HELP a b\na{e=\"x\\\"} 1\",d=\"up\"} 3\na{e=\"y\",d=\"up\"} 4\nab 7\nb 1.5\n";

    #[test]
    fn samples_are_those_of_the_whole_name() {
        assert_eq!(sum(TEXT, "a"), Some(7.0));
        assert_eq!(sum(TEXT, "ab"), Some(7.0));
        assert_eq!(sum(TEXT, "b"), Some(1.5));
        assert_eq!(sum(TEXT, "c"), None);
    }
}
