//! Gets a document from a running coracle's admin endpoint.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::contact::Contact;
use super::request::Failure;
use crate::config::{AdminEndpoint, printable};

/// How long the running program may take to answer. It compares several times before it reports a
/// difference.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Gets the document at `path`, in JSON.
///
/// # Errors
/// If nothing answers there, another program does, or coracle does not answer this client.
pub(super) fn get(contact: &Contact, path: &str) -> Result<Value, Failure> {
    let admin = &contact.admin;
    let answer = contact.exchange(path, None, TIMEOUT);
    let answer = answer.map_err(|error| Failure(explain(admin, &error, TIMEOUT)))?;
    let stranger = || Failure(stranger(admin));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(stranger)?;
    let value = serde_json::from_str::<Value>(body).unwrap_or_default();
    if value["coracle"].as_str().is_none() {
        let why = value["detail"].as_str().unwrap_or(body);
        return Err(refusal(admin, head, why).unwrap_or_else(stranger));
    }
    match value["error"].as_str() {
        Some(error) => Err(Failure(error.to_owned())),
        None => Ok(value),
    }
}

/// Says that something else answers.
pub(super) fn stranger(admin: &AdminEndpoint) -> String {
    format!(
        "the program that listens at {admin} is not coracle, or is an older version; `ss -ltnp` shows its name; give the address of coracle's admin endpoint with --admin ADDRESS"
    )
}

/// Gets the document at `path`, as text.
///
/// # Errors
/// If nothing answers there, or it has no such document.
pub(super) fn get_text(contact: &Contact, path: &str) -> Result<String, Failure> {
    let admin = &contact.admin;
    let answer = contact.exchange(path, None, TIMEOUT);
    let answer = answer.map_err(|error| Failure(explain(admin, &error, TIMEOUT)))?;
    let stranger = || Failure(stranger(admin));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(stranger)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(refusal(admin, head, body).unwrap_or_else(stranger)),
    }
}

/// Says why there was no answer, and what to do.
pub(super) fn explain(admin: &AdminEndpoint, error: &io::Error, limit: Duration) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
    match error.kind() {
        ConnectionRefused | NotFound => format!(
            "no coracle is running at {admin}: nothing listens there; start one, or give the address of its admin endpoint with --admin ADDRESS"
        ),
        TimedOut => format!(
            "the program that listens at {admin} does not answer within {} s; give the address of coracle's admin endpoint with --admin ADDRESS",
            limit.as_secs()
        ),
        PermissionDenied => {
            format!(
                "cannot connect to {admin}: permission denied; use sudo, or join the group of that file"
            )
        }
        _ => format!("cannot ask {admin}: {error}"),
    }
}

/// Returns what coracle responds instead of a document: that it does not answer to this client or
/// this host's name, or not now.
fn refusal(admin: &AdminEndpoint, head: &str, why: &str) -> Option<Failure> {
    let (_, status) = head.lines().next()?.split_once(' ')?;
    let is_refusal = ["401", "403", "421", "429", "503"]
        .iter()
        .any(|code| status.starts_with(code));
    let why = why.lines().next().unwrap_or_default();
    // As text it says the status itself.
    let why = why
        .strip_prefix(status)
        .map_or(why, |rest| rest.trim_start_matches(": "));
    let why = printable(why);
    is_refusal.then(|| Failure(format!("{admin} answers {}: {why}", printable(status))))
}
