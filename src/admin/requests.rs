//! The requests that the endpoint has answered, and those who follow its events.

use std::cell::RefCell;

use super::orders::takes_orders;
use crate::state::{Metric, Publish, Sorted};

/// What the paths are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Api,
    Health,
    Metrics,
    Order,
    Other,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Api,
        Self::Health,
        Self::Metrics,
        Self::Order,
        Self::Other,
    ];

    fn of(path: &str) -> Self {
        match path {
            "/metrics" => Self::Metrics,
            "/healthz" | "/readyz" => Self::Health,
            _ if takes_orders(path) => Self::Order,
            _ if path.starts_with("/api/") => Self::Api,
            _ => Self::Other,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Order => "order",
            Self::Other => "other",
        }
    }
}

/// How many requests of each kind were answered, by status.
#[derive(Debug)]
pub(super) struct Requests(RefCell<Sorted<(Kind, u16), u64>>);

impl Default for Requests {
    fn default() -> Self {
        let succeeded = Kind::ALL.map(|kind| ((kind, 200), 0));
        Self(RefCell::new(succeeded.into_iter().collect()))
    }
}

impl Requests {
    /// Counts the answer to a request for `path`, or to what was no request.
    pub(super) fn count(&self, path: Option<&str>, status: u16) {
        let kind = path.map_or(Kind::Other, Kind::of);
        *self.0.borrow_mut().or_default((kind, status)) += 1;
    }

    /// Returns a copy of the numbers.
    pub(super) fn numbers(&self) -> Vec<Answered> {
        let counts = self.0.borrow();
        let numbers = counts.iter().map(|((kind, status), count)| Answered {
            kind: *kind,
            status: status.to_string(),
            count: *count,
        });
        numbers.collect()
    }
}

/// The requests of one kind that were answered with one status.
#[derive(Debug)]
pub(super) struct Answered {
    kind: Kind,
    status: String,
    count: u64,
}

impl Publish for Answered {
    const METRICS: &'static [Metric<Self>] = &[Metric::counter(
        "coracle_admin_requests_total",
        "Requests to the admin endpoint that were answered, by their kind and the status.",
        |it, out| out.value(it.count),
    )];

    fn labels<'a>(&'a self, add: &mut dyn FnMut(&'static str, &'a str)) {
        add("endpoint", self.kind.label());
        add("code", &self.status);
    }
}

/// Those who follow the events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followers {
    /// How many there are.
    pub now: u64,
    /// How many were cut because they did not read.
    pub cut: u64,
}

impl Publish for Followers {
    const METRICS: &'static [Metric<Self>] = &[
        Metric::gauge(
            "coracle_admin_event_readers",
            "Clients that read server-sent events now.",
            |it, out| out.value(it.now),
        ),
        Metric::counter(
            "coracle_admin_event_readers_cut_total",
            "Readers of server-sent events that were cut because they did not read.",
            |it, out| out.value(it.cut),
        ),
    ];

    fn labels<'a>(&'a self, _add: &mut dyn FnMut(&'static str, &'a str)) {}
}
