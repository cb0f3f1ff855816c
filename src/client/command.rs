//! Sends an order to a running coracle.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::contact::Contact;
use super::get;
use super::request::Failure;
use crate::config::printable;

/// Longer than coracle itself waits for its data loop, so that coracle reports what is wrong.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Coracle's answer, without a trailing newline.
#[derive(Debug)]
pub(super) enum Said {
    /// What has changed.
    Done(String),
    /// Why nothing has changed.
    Refused(String),
}

/// Posts an order to `target`, with `body`.
///
/// # Errors
/// If nothing answers there, another program does, or coracle does not answer this client.
pub(super) fn command(contact: &Contact, target: &str, body: &str) -> Result<Said, Failure> {
    let answer = contact.exchange(target, Some(body), TIMEOUT);
    let answer = answer.map_err(|error| {
        Failure(match contact.socket() {
            Some(socket) => explain(socket, &error),
            None => get::explain(&contact.admin, &error, TIMEOUT),
        })
    })?;
    let at = match contact.socket() {
        Some(socket) => shown(socket),
        None => contact.admin.to_string(),
    };
    let is_socket = contact.socket().is_some();
    let (status, body) = parse(&answer).ok_or_else(|| Failure(match is_socket {
        true => format!("the program that listens at {at} is not coracle; give the path of coracle's control socket with --socket PATH"),
        false => get::stranger(&contact.admin),
    }))?;
    let text = body.strip_suffix('\n').unwrap_or(body).to_owned();
    match status {
        200 => Ok(Said::Done(text)),
        422 => Ok(Said::Refused(text)),
        404 | 405 => Err(Failure(match is_socket {
            true => format!(
                "the program that listens at {at} is an older coracle or another program; give the path of coracle's control socket with --socket PATH"
            ),
            false => get::stranger(&contact.admin),
        })),
        _ => {
            let why = printable(text.lines().next().unwrap_or_default());
            Err(Failure(format!("{at} answers: {why}")))
        }
    }
}

/// Returns the status and the body of an answer, or `None` if it is not HTTP or is truncated.
fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?;
    let status = status.get(2..5)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let length: usize = length?.trim().parse().ok()?;
    (body.len() == length).then_some((status, body))
}

/// Encodes a value for a query: everything but letters, digits and characters without special
/// meaning.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(byte.into());
            }
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

fn shown(socket: &Path) -> String {
    printable(&socket.to_string_lossy())
}

/// Says why there was no answer, and what to do.
fn explain(socket: &Path, error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
    let at = shown(socket);
    match error.kind() {
        ConnectionRefused | NotFound => format!(
            "no coracle has a control socket at {at}; if one is running, see `socket` in [admin] of its configuration and give that path with --socket PATH, or send it SIGHUP"
        ),
        TimedOut => format!(
            "the program that listens at {at} does not answer within {} s; give the path of coracle's control socket with --socket PATH",
            TIMEOUT.as_secs()
        ),
        PermissionDenied => {
            format!("this user may not connect to {at}; use sudo, or join the group of that file")
        }
        _ => format!("cannot ask {at}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_survives_the_query() {
        assert_eq!(percent_encoded("/etc/a-b_c.toml"), "/etc/a-b_c.toml");
        assert_eq!(percent_encoded("a b&ü=%+\n"), "a%20b%26%C3%BC%3D%25%2B%0A");
    }

    #[test]
    fn truncated_answer_is_none() {
        let whole =
            "HTTP/1.1 422 Unprocessable\r\ncontent-type: x\r\nContent-Length: 3\r\n\r\na\nb";
        assert_eq!(parse(whole), Some((422, "a\nb")));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse("SSH-2.0-x\r\n\r\n"), None);
    }
}
