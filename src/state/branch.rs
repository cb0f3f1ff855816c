//! Where a connection has been sent: to a service, perhaps by a rule, which counts it.

use std::rc::Rc;
use std::sync::Arc;

use super::counters::Counter;
use super::service::Service;

/// The label of the connections that no rule has decided about.
pub const DEFAULT_ROUTE: &str = "default";

/// Where an entrypoint's connections go, or those of them that one rule fits.
#[derive(Debug)]
pub struct Branch {
    /// The service.
    pub service: Rc<Service>,
    /// `None` if the entrypoint has no rules.
    route: Option<Rc<Taken>>,
}

/// How many connections a rule has decided about.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) label: Arc<str>,
    pub(super) count: Counter,
}

impl Taken {
    pub(super) fn new(label: &Arc<str>) -> Self {
        Self {
            label: label.clone(),
            count: Counter::default(),
        }
    }
}

impl Branch {
    /// The only one of an entrypoint without rules.
    #[must_use]
    pub fn only(service: &Rc<Service>) -> Rc<Self> {
        Rc::new(Self {
            service: service.clone(),
            route: None,
        })
    }

    pub(super) fn of(service: &Rc<Service>, taken: Rc<Taken>) -> Rc<Self> {
        Rc::new(Self {
            service: service.clone(),
            route: Some(taken),
        })
    }

    /// Returns the label of the rule, or [`DEFAULT_ROUTE`]; `None` if the entrypoint has no rules.
    #[must_use]
    pub fn route(&self) -> Option<&Arc<str>> {
        self.route.as_ref().map(|it| &it.label)
    }

    /// Counts a connection.
    pub(super) fn take(&self) {
        if let Some(taken) = &self.route {
            taken.count.increment();
        }
    }
}

/// The numbers of one route at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteNumbers {
    /// The rule's label, or [`DEFAULT_ROUTE`].
    pub label: Arc<str>,
    /// The name of the service that it leads to.
    pub service: Arc<str>,
    /// How many connections it has decided about.
    pub connections: u64,
}
