//! What is answered to a request: the paths and their answers, and the work behind those that are made anew.

use std::fmt::Write;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_types::headers::HeaderName;
use http_types::{Method, Request, StatusCode};
use smol::future::FutureExt;

use super::answer::{Answer, not_allowed, refusal, silence, text, with_body};
use super::hosts::{self, Hosts};
use super::ordering::Ordering;
use super::request::{Head, RELOAD};
use crate::admin::agreement::{self, Kernel};
use crate::admin::body::{Body, Room};
use crate::admin::desk::Desk;
use crate::admin::metrics;
use crate::admin::metrics::{Format, Output};
use crate::admin::moments::{Moments, Sign};
use crate::admin::park::Park;
use crate::admin::sockets::Access;
use crate::sys::process::Process;

/// After a scrape or an audit the thread rests for this many times as long as that took, so that each of the two takes a quarter of
/// a core at most, however many ask without a pause.
const REST: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(250);

const INDEX: &str = "coracle's admin endpoint:
/metrics   what coracle counts, for Prometheus
/audit     the set of connections beside the kernel's table, for `coracle audit`
/healthz   200 while the loop that moves data answers
/readyz    200 while it accepts connections, 503 once it drains
/reload    POST, over the control socket: read the configuration anew; ?dry-run says what would change
";

const STRANGER: &str = "403 Forbidden: the control socket answers root, the user that coracle runs as, \
                        and members of the group of its file\n";

/// What can be seen through the endpoint.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The way to the loop.
    pub moments: Moments,
    /// What the kernel says of the process.
    pub process: Process,
    /// What the kernel says of its sockets.
    pub kernel: Kernel,
    /// The hosts that it answers to.
    pub hosts: Hosts,
    /// Where its work waits.
    pub park: Rc<Park>,
    /// The room for what is made anew.
    pub room: Rc<Room>,
    /// Who waits for metrics, in which format.
    pub metrics: Desk<Format, Made>,
    /// Who waits for an audit.
    pub audits: Desk<(), Made>,
    /// Who wants to know whether the loop lives.
    pub signs: Desk<(), Option<Sign>>,
    /// The way for orders.
    pub ordering: Ordering,
}

/// A body that was made anew, or the status that says why there is none.
pub(super) type Made = Result<Rc<Body>, StatusCode>;

impl Routes {
    /// The answer to a request, with its body also where the method is HEAD: what is sent of it is the sender's business.
    pub(crate) async fn answer(&self, head: &Head, access: Access) -> Answer {
        if access == Access::Nothing {
            return text(StatusCode::Forbidden, STRANGER);
        }
        // No browser speaks to a Unix socket, so no web page does.
        if access == Access::Read
            && let Some(host) = &head.host
            && !self.hosts.answer_to(host)
        {
            return text(StatusCode::MisdirectedRequest, &hosts::advice(host));
        }
        let request = &head.request;
        let path = request.url().path();
        match request.method() {
            Method::Post if head.is_order => return self.ordering.obey(head, &self.park).await,
            Method::Post if path == RELOAD => return self.ordering.only_there(),
            _ if path == RELOAD => return not_allowed("POST"),
            Method::Get | Method::Head => {}
            _ => return refusal(StatusCode::MethodNotAllowed),
        }
        match path {
            "/metrics" => {
                let format = Format::choose(&joined(request, &http_types::headers::ACCEPT));
                made(self.metrics.ask(format).await, format.content_type())
            }
            "/audit" => made(self.audits.ask(()).await, "application/json"),
            "/healthz" => match self.sign().await {
                Some(_) => text(StatusCode::Ok, "ok\n"),
                None => silence(),
            },
            "/readyz" => match self.sign().await {
                Some(sign) if !sign.is_draining => text(StatusCode::Ok, "ready\n"),
                Some(_) => text(StatusCode::ServiceUnavailable, "draining\n"),
                None => silence(),
            },
            "/" => text(StatusCode::Ok, INDEX),
            _ => refusal(StatusCode::NotFound),
        }
    }

    async fn sign(&self) -> Option<Sign> {
        self.signs.ask(()).await.flatten()
    }

    /// Makes what is asked for, one piece of each kind at a time, for ever.
    pub(crate) async fn work(&self) {
        let metrics = forever(async || self.make_metrics().await);
        let audits = forever(async || self.make_audit().await);
        let signs = forever(async || self.look_for_sign().await);
        metrics.or(audits).or(signs).await;
    }

    async fn make_metrics(&self) {
        self.metrics.wanted().await;
        let counts = self.kernel.counts(&self.moments).await;
        // Before the moment is there, so that those who come meanwhile share it.
        drop(self.room.free().await);
        self.moments.turn().await;
        let (text, open): (Vec<_>, Vec<_>) = self
            .metrics
            .take()
            .into_iter()
            .partition(|waiting| waiting.question == Format::Text);
        // Who comes from here on wants a later moment than this.
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
                    metrics::write(&mut out, snapshot, usage, counts.as_deref()).await;
                    out.finish().map(Rc::new).map_err(|error| {
                        log::error!("admin: encoding the metrics: {error}");
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

    async fn make_audit(&self) {
        self.audits.wanted().await;
        drop(self.room.free().await);
        let begun = Instant::now();
        let waiting = self.audits.take();
        let audit = agreement::audit(&self.moments, &self.kernel, &self.park, &self.room).await;
        let made = audit.map(Rc::new).ok_or(StatusCode::ServiceUnavailable);
        let took = begun.elapsed();
        for waiting in waiting {
            waiting.tell(made.clone());
        }
        // Those who read it have it now.
        drop(made);
        self.rest(took).await;
    }

    async fn rest(&self, took: Duration) {
        self.park.sleep((took * REST).min(REST_MAX)).await;
    }

    async fn look_for_sign(&self) {
        self.signs.wanted().await;
        self.moments.turn().await;
        let sign = self.moments.sign().await;
        // Also to those who came meanwhile: a loop that has answered since lives, and one that has been silent for so long does not.
        for waiting in self.signs.take() {
            waiting.tell(sign);
        }
    }
}

/// Does one piece of work after the other. A bug costs those who wait for the one in which it shows, not the endpoint.
async fn forever<F: Future<Output = ()>>(work: impl Fn() -> F) {
    loop {
        if AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            log::error!("admin: an answer could not be made: a bug; please report this");
        }
    }
}

fn made(made: Option<Made>, content_type: &str) -> Answer {
    match made {
        Some(Ok(body)) => with_body(StatusCode::Ok, content_type, body),
        Some(Err(StatusCode::ServiceUnavailable)) => silence(),
        Some(Err(status)) => refusal(status),
        None => refusal(StatusCode::InternalServerError),
    }
}

/// The values of a header that is a list, as one list.
fn joined(request: &Request, name: &HeaderName) -> String {
    let mut list = String::new();
    for value in request.header(name).into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = write!(list, "{},", value.as_str());
    }
    list
}
