//! Gets a document from a running coracle's admin endpoint.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::request::{self, Failure};
use crate::config::{AdminEndpoint, printable};

/// How long the running program may take to answer. It compares several times before it reports a
/// difference.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Gets the document at `path`, in JSON.
///
/// # Errors
/// If nothing answers there, or another program does.
pub(super) fn get(admin: &AdminEndpoint, path: &str) -> Result<Value, Failure> {
    // The server must know the name in this header. It always knows `localhost`, but may not know
    // the name by which it was reached.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").into_bytes();
    let answer = request::exchange(admin, request, TIMEOUT);
    let answer = answer.map_err(|error| Failure(explain(admin, &error)))?;
    let stranger = || {
        Failure(format!(
            "the program that listens at {admin} is not coracle, or is an older version; `ss -ltnp` shows its name; give the address of coracle's admin endpoint with --admin ADDRESS"
        ))
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(stranger)?;
    let Ok(value) = serde_json::from_str::<Value>(body) else {
        return Err(refusal(admin, head, body).unwrap_or_else(stranger));
    };
    if value["coracle"].as_str().is_none() {
        return Err(stranger());
    }
    match value["error"].as_str() {
        Some(error) => Err(Failure(error.to_owned())),
        None => Ok(value),
    }
}

/// Says why there was no answer, and what to do.
fn explain(admin: &AdminEndpoint, error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
    match error.kind() {
        ConnectionRefused | NotFound => format!(
            "no coracle is running at {admin}: nothing listens there; start one, or give the address of its admin endpoint with --admin ADDRESS"
        ),
        TimedOut => format!(
            "the program that listens at {admin} does not answer within {} s; give the address of coracle's admin endpoint with --admin ADDRESS",
            TIMEOUT.as_secs()
        ),
        PermissionDenied => {
            format!(
                "cannot connect to {admin}: permission denied; use sudo, or join the group of that file"
            )
        }
        _ => format!("cannot ask {admin}: {error}"),
    }
}

/// Returns what coracle responds instead of a document: that it does not answer to this host's name,
/// or not now.
fn refusal(admin: &AdminEndpoint, head: &str, body: &str) -> Option<Failure> {
    let (_, status) = head.lines().next()?.split_once(' ')?;
    let is_refusal = ["421", "429", "503"]
        .iter()
        .any(|code| status.starts_with(code));
    let why = printable(body.lines().next().unwrap_or_default());
    is_refusal.then(|| Failure(format!("{admin} answers {}: {why}", printable(status))))
}
