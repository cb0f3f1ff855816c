//! What is answered to a request: the paths and their answers. No I/O but the reading of the process's own figures.

use std::fmt::Write;

use http_types::headers::HeaderName;
use http_types::{Method, Request, Response, StatusCode};
use prometheus::TextEncoder;

use super::metrics::families;
use super::negotiate::Format;
use super::openmetrics;
use crate::state::Shared;
use crate::sys::process::Process;

const TEXT: &str = "text/plain; charset=utf-8";

const INDEX: &str = "coracle's local window:
/metrics   what coracle counts, for Prometheus
/healthz   200 while the process lives
/readyz    200 while it accepts connections, 503 once it drains
";

/// The answer to `request`, with its body also where the method is HEAD: what is sent of it is the sender's business.
#[must_use]
pub fn answer(request: &Request, shared: &Shared, process: &Process) -> Response {
    if !matches!(request.method(), Method::Get | Method::Head) {
        return refusal(StatusCode::MethodNotAllowed);
    }
    match request.url().path() {
        "/metrics" => metrics(request, shared, process),
        "/healthz" => text(StatusCode::Ok, "ok\n"),
        "/readyz" if shared.is_draining() => text(StatusCode::ServiceUnavailable, "draining\n"),
        "/readyz" => text(StatusCode::Ok, "ready\n"),
        "/" => text(StatusCode::Ok, INDEX),
        _ => refusal(StatusCode::NotFound),
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

fn metrics(request: &Request, shared: &Shared, process: &Process) -> Response {
    let format = Format::choose(&joined(request, &http_types::headers::ACCEPT));
    let mut body = String::new();
    let mut failed = None;
    families(shared, &process.usage(), |family| {
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
