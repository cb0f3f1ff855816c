//! Responses: a status, headers and a body.

use std::rc::Rc;

use http_types::{Response, StatusCode};

use crate::admin::body::Body;

const TEXT: &str = "text/plain; charset=utf-8";

/// A complete response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status and the headers.
    pub response: Response,
    /// The body, which other responses may share.
    pub body: Rc<Body>,
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
    Answer { response, body }
}
