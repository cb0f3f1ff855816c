//! What is answered to a request: the paths and their answers. No I/O but the reading of the process's own figures.

use std::fmt::Write;
use std::rc::Rc;

use http_types::headers::HeaderName;
use http_types::{Method, Request, Response, StatusCode};
use prometheus::TextEncoder;

use super::audit;
use super::kernel::{Count, Kernel};
use super::metrics::families;
use super::negotiate::Format;
use super::openmetrics;
use crate::state::Shared;
use crate::sys::process::{Process, Usage};

const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = "coracle's local window:
/metrics   what coracle counts, for Prometheus
/audit     the set of connections beside the kernel's table, for `coracle audit`
/healthz   200 while the process lives
/readyz    200 while it accepts connections, 503 once it drains
";

/// What can be seen through the endpoint.
#[derive(Debug)]
pub struct Window {
    /// What the program knows.
    pub shared: Rc<Shared>,
    /// What the kernel says of the process.
    pub process: Process,
    /// What the kernel says of its sockets.
    pub kernel: Kernel,
}

impl Window {
    /// The answer to `request`, with its body also where the method is HEAD: what is sent of it is the sender's business.
    pub async fn answer(&self, request: &Request) -> Response {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return refusal(StatusCode::MethodNotAllowed);
        }
        match request.url().path() {
            "/metrics" => self.metrics(request).await,
            "/audit" => self.audit().await,
            "/healthz" => text(StatusCode::Ok, "ok\n"),
            "/readyz" if self.shared.is_draining() => {
                text(StatusCode::ServiceUnavailable, "draining\n")
            }
            "/readyz" => text(StatusCode::Ok, "ready\n"),
            "/" => text(StatusCode::Ok, INDEX),
            _ => refusal(StatusCode::NotFound),
        }
    }

    async fn metrics(&self, request: &Request) -> Response {
        let format = Format::choose(&joined(request, &http_types::headers::ACCEPT));
        // The one await: what follows is one moment.
        let counts = self.kernel.counts(&self.shared).await;
        metrics(
            &self.shared,
            &self.process.usage(),
            counts.as_deref(),
            format,
        )
    }

    async fn audit(&self) -> Response {
        let audit = audit::audit(&self.shared, &self.kernel).await;
        with_body(StatusCode::Ok, "application/json", audit.to_string())
    }
}

/// The answer that says no more than its status.
#[must_use]
pub fn refusal(status: StatusCode) -> Response {
    let mut response = text(status, &format!("{status} {}\n", status.canonical_reason()));
    if status == StatusCode::MethodNotAllowed {
        response.insert_header("Allow", "GET, HEAD");
    }
    response
}

fn text(status: StatusCode, body: &str) -> Response {
    with_body(status, TEXT, body.to_owned())
}

fn with_body(status: StatusCode, content_type: &str, body: String) -> Response {
    let mut response = Response::new(status);
    response.insert_header("Cache-Control", "no-store");
    response.insert_header("Content-Type", content_type);
    response.set_body(body);
    response
}

fn metrics(shared: &Shared, process: &Usage, counts: Option<&[Count]>, format: Format) -> Response {
    let mut body = String::new();
    let mut failed = None;
    families(shared, process, counts, |family| {
        let encoded = match format {
            Format::Text => TextEncoder::new()
                .encode_utf8(std::slice::from_ref(&family), &mut body)
                .map_err(|error| error.to_string()),
            Format::OpenMetrics => {
                openmetrics::encode(&family, &mut body).map_err(|error| error.to_string())
            }
        };
        failed = failed.take().or(encoded.err());
    });
    if format == Format::OpenMetrics {
        body.push_str(openmetrics::END);
    }
    // Half a scrape would look like series that have ended.
    if let Some(error) = failed {
        log::error!("admin: encoding the metrics: {error}");
        return refusal(StatusCode::InternalServerError);
    }
    with_body(StatusCode::Ok, format.content_type(), body)
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
