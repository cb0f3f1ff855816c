//! Encodes metric families piece by piece, so that thousands of series need memory only for one
//! piece and the text.

use std::fmt::Write;

use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use smol::future::yield_now;

use super::metric_family::Family;
use super::negotiate::Format;
use super::openmetrics;
use crate::admin::body::Body;
use crate::state::{Metric, Publish};

/// The number of samples in a piece. A histogram counts as one.
const PIECE: usize = 32;

/// Writes the text of one response.
#[derive(Debug)]
pub(crate) struct Output {
    body: Body,
    format: Format,
    piece: String,
    failed: Option<String>,
}

impl Output {
    /// Writes to `body`.
    #[must_use]
    pub(crate) fn new(body: Body, format: Format) -> Self {
        Self {
            body,
            format,
            piece: String::new(),
            failed: None,
        }
    }

    /// Writes all metrics of these things. Other tasks run between two pieces. The numbers are
    /// copies, so they do not change meanwhile.
    pub(crate) async fn publish<T: Publish>(&mut self, things: &[T]) {
        self.metrics(T::METRICS, things).await;
    }

    /// Writes only these metrics.
    pub(super) async fn metrics<T: Publish>(
        &mut self,
        metrics: &'static [Metric<T>],
        things: &[T],
    ) {
        for metric in metrics {
            let mut family = Family::of(metric);
            let mut is_first = true;
            for thing in things {
                family.add(metric, thing);
                if family.len() >= PIECE {
                    let piece = std::mem::replace(&mut family, Family::of(metric));
                    self.piece(piece, is_first);
                    is_first = false;
                    yield_now().await;
                }
            }
            self.piece(family, is_first);
        }
    }

    fn piece(&mut self, family: Family, is_first: bool) {
        // The formats have no place for a family without samples.
        let Some(family) = family.finish() else {
            return;
        };
        self.piece.clear();
        let encoded = match self.format {
            Format::Text => encode_text(&family, &mut self.piece),
            Format::OpenMetrics => encode_openmetrics(&family, is_first, &mut self.piece),
        };
        if let Err(error) = encoded {
            self.failed.get_or_insert(error);
        }
        let mut piece = self.piece.as_str();
        // The text encoder only writes whole families.
        while !is_first && self.format == Format::Text && piece.starts_with('#') {
            piece = piece.split_once('\n').map_or("", |(_, rest)| rest);
        }
        // Writing to a body cannot fail.
        let _ = self.body.write_str(piece);
    }

    /// Returns the finished text.
    ///
    /// # Errors
    /// Returns why it is incomplete. An incomplete scrape would look like series that have ended.
    pub(crate) fn finish(mut self) -> Result<Body, String> {
        if self.format == Format::OpenMetrics {
            let _ = self.body.write_str(openmetrics::END);
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.body),
        }
    }
}

fn encode_text(family: &MetricFamily, piece: &mut String) -> Result<(), String> {
    let family = std::slice::from_ref(family);
    let encoded = TextEncoder::new().encode_utf8(family, piece);
    encoded.map_err(|error| error.to_string())
}

fn encode_openmetrics(
    family: &MetricFamily,
    is_first: bool,
    piece: &mut String,
) -> Result<(), String> {
    let head = match is_first {
        true => openmetrics::encode_head(family, piece),
        false => Ok(()),
    };
    let encoded = head.and_then(|()| openmetrics::encode_samples(family, piece));
    encoded.map_err(|error| error.to_string())
}
