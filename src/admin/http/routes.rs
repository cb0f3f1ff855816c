//! The responses to requests: the paths, and the work behind responses that are generated.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_types::{Method, StatusCode};
use smol::future::FutureExt;

use super::answer::{Answer, method_not_allowed, not_allowed, refusal, silence, text, with_body};
use super::gate::{self, Access, Gate, Proof};
use super::hosts::{self, Hosts};
use super::ordering::Ordering;
use super::request::Head;
use crate::admin::agreement::{Kernel, Listed};
use crate::admin::api::{Feed, Part, Query};
use crate::admin::body::{Body, Room};
use crate::admin::desk::Desk;
use crate::admin::metrics;
use crate::admin::metrics::{Format, Output};
use crate::admin::moments::{Moments, Sign};
use crate::admin::orders::takes_orders;
use crate::admin::park::Park;
use crate::admin::requests::Requests;
use crate::admin::sockets::Caller;
use crate::state::LogLines;
use crate::sys::process::Process;

/// After a scrape, or an answer of the API, the thread rests for this many times as long as that
/// took. So each kind takes at most a quarter of a core, even if clients ask without a pause.
const REST: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(250);

const INDEX: &str = "coracle's admin endpoint:
/metrics   metrics for Prometheus
/healthz   200 while the loop that moves data responds
/readyz    200 while coracle accepts connections, 503 while it drains
/api/v1/   the state in JSON; /api/v1/openapi.json describes it

POST over the control socket, or with the token of `token_file` in [admin]:
/api/v1/reload  reread the configuration; ?dry-run reports what would change
/api/v1/server  drain a server, take it down, or make it ready again
/api/v1/kill    end connections; ?dry-run lists them
/api/v1/log-level  log more or less
/api/v1/drain   stop accepting, and end when the open connections have ended
/api/v1/stop    reset the open connections and end
";

/// Where the paths of the API begin.
pub(super) const API: &str = "/api/";
/// Where a client learns what it may do.
const ACCESS: &str = "/api/v1/access";

const STRANGER: &str = "403 Forbidden: only root, the user that coracle runs as, and members of the \
                        socket file's group may use the control socket\n";

/// Everything that the endpoint serves.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The way to the data loop.
    pub moments: Moments,
    /// The kernel's figures for the process.
    pub process: Process,
    /// The kernel's socket tables.
    pub kernel: Kernel,
    /// What requests may do.
    pub gate: Gate,
    /// The hosts that it answers to.
    pub hosts: Hosts,
    /// Where its work waits.
    pub park: Rc<Park>,
    /// The room for generated bodies.
    pub room: Rc<Room>,
    /// Those who wait for metrics, and in which format.
    pub metrics: Desk<Format, Made>,
    /// Those who wait for an audit, and what it should list.
    pub audits: Desk<Listed, Made>,
    /// Those who wait for the status, and for which part of it.
    pub statuses: Desk<Part, Made>,
    /// Those who wait for connections, and for which.
    pub connections: Desk<Query, Made>,
    /// Those who wait for the last hour.
    pub histories: Desk<(), Made>,
    /// Those who wait for the page.
    pub pages: Desk<(), Made>,
    /// Those who follow the events.
    pub feed: Rc<Feed>,
    /// The last log lines.
    pub log: Arc<Mutex<LogLines>>,
    /// Held while those who asked for log lines get them.
    pub log_turn: smol::lock::Mutex<()>,
    /// The requests that were answered.
    pub requests: Requests,
    /// Those who wait for a sign of life from the data loop.
    pub signs: Desk<(), Option<Sign>>,
    /// The way for orders.
    pub ordering: Ordering,
}

/// A generated body, or the status that says why there is none.
pub(super) type Made = Result<Rc<Body>, StatusCode>;

impl Routes {
    /// Judges a request. The token of a page that may ask nothing is not looked at: it could use up
    /// the attempts of the user whose browser shows it.
    pub(super) fn judge(&self, head: &Head, caller: Caller) -> Access {
        let is_health = is_health(&head.path);
        match is_health || self.refuse_page(head, caller).is_some() {
            true => Access::without_proof(caller),
            false => {
                let header = head.authorization.as_deref();
                self.gate.judge(caller, header, Instant::now())
            }
        }
    }

    /// Returns the response to a request for another host, or for a page of another origin.
    fn refuse_page(&self, head: &Head, caller: Caller) -> Option<Answer> {
        // A browser cannot connect to a Unix socket, so no web page can.
        if !matches!(caller, Caller::Tcp(_)) {
            return None;
        }
        if let Some(host) = &head.host
            && !self.hosts.answer_to(host)
        {
            let advice = hosts::advice(host);
            return Some(text(StatusCode::MisdirectedRequest, &advice));
        }
        let origin = head.origin.as_deref()?;
        let is_admitted = self.hosts.admit(origin, head.host.as_deref());
        (!is_admitted).then(|| text(StatusCode::Forbidden, hosts::OTHER_ORIGIN))
    }

    /// Returns the response to a request. It has its body even if the method is HEAD; the sender
    /// leaves it out.
    pub(crate) async fn answer(&self, head: &Head) -> Answer {
        let (access, path) = (head.access, &*head.path);
        if access.caller == Caller::Stranger {
            return text(StatusCode::Forbidden, STRANGER);
        }
        if let Some(refused) = self.refuse_page(head, access.caller) {
            return refused;
        }
        match head.method {
            Method::Post if head.is_order => return self.ordering.obey(head, &self.park).await,
            Method::Post if takes_orders(path) => {
                return match access.proof {
                    Proof::NotConfigured => self.ordering.only_there(path),
                    proof => gate::refuse(proof, false),
                };
            }
            _ if takes_orders(path) => return not_allowed("POST"),
            Method::Get | Method::Head => {}
            _ if path.starts_with(API) => return method_not_allowed(),
            _ => return refusal(StatusCode::MethodNotAllowed),
        }
        let wants_page = || path == "/" && head.accept.contains("text/html");
        if !is_health(path) && path != ACCESS && !self.gate.may_read(access) {
            // A browser has no token before the page has asked for it.
            return match access.proof == Proof::Missing && wants_page() {
                true => self.empty_page().await,
                false => gate::refuse(access.proof, path.starts_with(API)),
            };
        }
        match path {
            "/metrics" => {
                let format = Format::choose(&head.accept);
                made(self.metrics.ask(format).await, format.content_type())
            }
            "/healthz" => match self.sign().await {
                Some(_) => text(StatusCode::Ok, "ok\n"),
                None => silence(),
            },
            "/readyz" => match self.sign().await {
                Some(sign) if !sign.is_draining => text(StatusCode::Ok, "ready\n"),
                Some(_) => text(StatusCode::ServiceUnavailable, "draining\n"),
                None => silence(),
            },
            "/" if wants_page() => self.page().await,
            "/" => text(StatusCode::Ok, INDEX),
            _ if path.starts_with(API) => self.api(head).await,
            _ => refusal(StatusCode::NotFound),
        }
    }

    async fn sign(&self) -> Option<Sign> {
        self.signs.ask(()).await.flatten()
    }

    /// Generates what clients ask for, one piece of each kind at a time. Runs until cancelled.
    pub(crate) async fn work(&self) {
        let metrics = forever(async || self.make_metrics().await);
        let audits = forever(async || self.make_audit().await);
        let statuses = forever(async || self.make_status().await);
        let connections = forever(async || self.make_connections().await);
        let histories = forever(async || self.make_history().await);
        let signs = forever(async || self.look_for_sign().await);
        let pages = forever(async || self.make_page().await);
        let api = audits.or(statuses).or(connections).or(histories).or(pages);
        let events = forever(async || self.feed.work(&self.moments, &self.park).await);
        metrics.or(api).or(events).or(signs).await;
    }

    async fn make_metrics(&self) {
        self.metrics.wanted().await;
        let counts = self.kernel.counts(&self.moments).await;
        // Waits here, before the copy is made, so that those who ask meanwhile share it.
        drop(self.room.free().await);
        self.moments.rested().await;
        let (text, open): (Vec<_>, Vec<_>) = self
            .metrics
            .take()
            .into_iter()
            .partition(|waiting| waiting.question == Format::Text);
        // Those who ask from here on need a later copy than this.
        let snapshot = self.moments.snapshot().await;
        let mut took = Duration::ZERO;
        for (format, waiting) in [(Format::Text, text), (Format::OpenMetrics, open)] {
            if waiting.is_empty() {
                continue;
            }
            let _making = self.room.free().await;
            let begun = Instant::now();
            let made = match &snapshot {
                None => Err(StatusCode::ServiceUnavailable),
                Some(snapshot) => {
                    let mut out = Output::new(Body::in_room(&self.room), format);
                    let usage = self.process.usage();
                    let own = (&*self.requests.numbers(), self.feed.numbers());
                    metrics::write(&mut out, snapshot, usage, counts.as_deref(), own).await;
                    out.finish().map(Rc::new).map_err(|error| {
                        log::error!(
                            "admin: cannot encode the metrics: {error}; please report this"
                        );
                        StatusCode::InternalServerError
                    })
                }
            };
            took += begun.elapsed();
            for waiting in waiting {
                waiting.tell(made.clone());
            }
        }
        self.rest(took).await;
    }

    pub(super) async fn rest(&self, took: Duration) {
        self.park.sleep((took * REST).min(REST_MAX)).await;
    }

    async fn look_for_sign(&self) {
        self.signs.wanted().await;
        self.moments.rested().await;
        let sign = self.moments.sign().await;
        // Also answers those who asked meanwhile. If the loop has answered since then, it responds;
        // if it has been silent this long, it does not.
        for waiting in self.signs.take() {
            waiting.tell(sign);
        }
    }
}

/// Returns whether anyone may ask for `path` at any time.
fn is_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Repeats a piece of work until cancelled. A bug costs those who wait for this result, not the
/// endpoint.
async fn forever<F: Future<Output = ()>>(work: impl Fn() -> F) {
    loop {
        if AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            log::error!("admin: internal error while making a response; please report this");
        }
    }
}

pub(super) fn made(made: Option<Made>, content_type: &str) -> Answer {
    match made {
        Some(Ok(body)) => with_body(StatusCode::Ok, content_type, body),
        Some(Err(StatusCode::ServiceUnavailable)) => silence(),
        Some(Err(status)) => refusal(status),
        None => refusal(StatusCode::InternalServerError),
    }
}
