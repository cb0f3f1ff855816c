//! Chooses between the two text formats by a request's Accept header. No I/O.

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format's Content-Type.
    #[must_use]
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Chooses the format for a request that accepts `accept`, the values of its Accept headers
    /// joined by commas.
    ///
    /// OpenMetrics must be requested by name, with at least the quality of text. A client that
    /// accepts neither gets text anyway: a scrape in the wrong format says more than an error.
    #[must_use]
    pub(crate) fn choose(accept: &str) -> Self {
        let mut openmetrics = 0;
        // The most specific range that matches text/plain decides its quality: RFC 9110, 12.5.1.
        let mut text = [None; 3];
        for range in accept.split(',').filter_map(Range::parse) {
            let specificity = match &*range.media_type {
                "application/openmetrics-text" if range.version_is_ours => {
                    openmetrics = openmetrics.max(range.quality);
                    continue;
                }
                "text/plain" => 0,
                "text/*" => 1,
                "*/*" => 2,
                _ => continue,
            };
            text[specificity] = text[specificity].max(Some(range.quality));
        }
        let text = text.into_iter().flatten().next().unwrap_or(0);
        if openmetrics > 0 && openmetrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// One element of an Accept header.
struct Range {
    media_type: String,
    /// In thousandths, the header's precision.
    quality: u16,
    version_is_ours: bool,
}

impl Range {
    /// Returns `None` for an element that cannot be parsed.
    fn parse(element: &str) -> Option<Self> {
        let mut parts = element.split(';').map(str::trim);
        let mut range = Self {
            media_type: parts.next()?.to_ascii_lowercase(),
            quality: 1000,
            version_is_ours: true,
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match &*key.trim().to_ascii_lowercase() {
                "q" => range.quality = quality(value.trim())?,
                "version" => range.version_is_ours = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        Some(range)
    }
}

fn quality(text: &str) -> Option<u16> {
    let value: f32 = text.parse().ok()?;
    let allowed = (0.0..=1.0).contains(&value);
    allowed.then_some((value * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::Format::{self, OpenMetrics, Text};

    #[test]
    fn prometheus_gets_openmetrics_and_people_get_text() {
        let cases = [
            // Prometheus 2.42.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            // Prometheus 3 with native histograms.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
                OpenMetrics,
            ),
            // curl, a browser, nothing.
            ("*/*", Text),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Text,
            ),
            ("", Text),
            ("application/openmetrics-text", OpenMetrics),
            (
                "APPLICATION/OpenMetrics-Text ; Q=0.3 , */* ; q=0.3",
                OpenMetrics,
            ),
            ("application/openmetrics-text;q=0.2,*/*;q=0.3", Text),
            (
                "application/openmetrics-text;q=0.2,text/plain;q=0.1,*/*",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;q=0.2,text/*;q=0.3,*/*;q=0.1",
                Text,
            ),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;version=0.0.1", Text),
            (
                "application/openmetrics-text;version=\"1.0.0\"",
                OpenMetrics,
            ),
            ("application/openmetrics-text;q=nonsense", Text),
            ("application/openmetrics-text;q=7", Text),
            ("image/png", Text),
            (",;,=;q", Text),
        ];
        for (accept, format) in cases {
            assert_eq!(Format::choose(accept), format, "{accept}");
        }
    }
}
