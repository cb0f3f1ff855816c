//! Responses: a status, headers and a body.

use std::rc::Rc;

use http_types::{Response, StatusCode};

use crate::admin::api::Reader;
use crate::admin::body::Body;
use crate::admin::json::Json;

const TEXT: &str = "text/plain; charset=utf-8";

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status and the headers.
    pub response: Response,
    /// The body, which other responses may share.
    pub body: Rc<Body>,
    /// Events that follow the body until either side ends the connection.
    pub events: Option<Reader>,
}

/// Creates a response that only states its status.
#[must_use]
pub(super) fn refusal(status: StatusCode) -> Answer {
    if status == StatusCode::MethodNotAllowed {
        return not_allowed("GET, HEAD");
    }
    text(status, &format!("{status} {}\n", status.canonical_reason()))
}

/// Creates the response to a method other than these.
pub(super) fn not_allowed(methods: &str) -> Answer {
    let status = StatusCode::MethodNotAllowed;
    let mut answer = text(status, &format!("{status} {}\n", status.canonical_reason()));
    answer.response.insert_header("Allow", methods);
    answer
}

/// Creates a response of the API that says what is wrong with the request, in JSON (RFC 9457).
pub(super) fn problem(status: StatusCode, detail: &str, parameter: Option<&str>) -> Answer {
    let title = status.canonical_reason();
    let (detail, code) = (Json(detail), u16::from(status));
    let parameter = parameter.map_or(String::new(), |it| format!(",\"parameter\":{}", Json(it)));
    let json =
        format!("{{\"title\":\"{title}\",\"status\":{code},\"detail\":{detail}{parameter}}}");
    with_body(status, "application/problem+json", Body::of(&json))
}

/// Creates the API's response to a method that it does not have.
pub(super) fn method_not_allowed() -> Answer {
    let detail = "this path only reads: use GET or HEAD";
    let mut answer = problem(StatusCode::MethodNotAllowed, detail, None);
    answer.response.insert_header("Allow", "GET, HEAD");
    answer
}

/// Creates the response for when the data loop does not answer.
pub(super) fn silence() -> Answer {
    text(
        StatusCode::ServiceUnavailable,
        "the loop that moves data does not answer\n",
    )
}

pub(super) fn text(status: StatusCode, body: &str) -> Answer {
    with_body(status, TEXT, Body::of(body))
}

pub(super) fn with_body(status: StatusCode, content_type: &str, body: Rc<Body>) -> Answer {
    let mut response = Response::new(status);
    response.insert_header("Cache-Control", "no-store");
    response.insert_header("Content-Type", content_type);
    Answer {
        response,
        body,
        events: None,
    }
}
