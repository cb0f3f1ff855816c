//! Parses what a health check sends, asks for and expects.

use std::net::Ipv6Addr;

use regex_lite::RegexBuilder;

use super::address::Address;
use super::diagnostic::{Mistake, shown, wrong};
use super::host::{host_and_port, host_name};
use super::model::Expect;

/// What one check may send, and how long what it looks for may be.
const MAX_BYTES: usize = Expect::MAX_BYTES;

/// Parses bytes to send: text, or `hex:` and digits.
pub(super) fn send(text: &str) -> Result<Vec<u8>, Mistake> {
    if text.starts_with("regex:") {
        return wrong(
            "a regular expression cannot be sent; write the text itself, or \"hex:\" and its bytes",
        );
    }
    bytes(text, "leave `send` out to send nothing")
}

/// Parses bytes that connections begin with: text, or `hex:` and digits.
pub(super) fn first_bytes(text: &str) -> Result<Box<[u8]>, Mistake> {
    bytes(text, "write the bytes that connections begin with").map(Into::into)
}

/// Parses what an answer must contain: text, `hex:` and digits, or `regex:` and an expression.
pub(super) fn expect(text: &str) -> Result<Expect, Mistake> {
    match text.strip_prefix("regex:") {
        Some(pattern) => regex(pattern).map(Expect::Regex),
        None => bytes(text, "leave `expect` out if no answer is needed").map(Expect::Bytes),
    }
}

fn bytes(text: &str, for_nothing: &str) -> Result<Vec<u8>, Mistake> {
    let bytes = match text.strip_prefix("hex:") {
        Some(digits) => hex(digits)?,
        None => text.as_bytes().to_vec(),
    };
    match bytes.len() {
        0 => wrong(format!("there is nothing in it; {for_nothing}")),
        n if n > MAX_BYTES => wrong(format!("{n} bytes are too many; the limit is {MAX_BYTES}")),
        _ => Ok(bytes),
    }
}

/// Parses pairs of hexadecimal digits, which spaces may separate.
fn hex(digits: &str) -> Result<Vec<u8>, Mistake> {
    let mut bytes = Vec::new();
    for group in digits.split(' ') {
        if let Some(c) = group.chars().find(|c| !c.is_ascii_hexdigit()) {
            return wrong(format!(
                "`{}` is not a hexadecimal digit; write two for each byte, such as \"hex:0d0a\"",
                shown(c.encode_utf8(&mut [0; 4]))
            ));
        }
        if group.len() % 2 != 0 {
            return wrong(format!(
                "`{}` has an odd number of digits; write two for each byte, such as \"hex:0d0a\"",
                shown(group)
            ));
        }
        let pairs = (0..group.len()).step_by(2);
        // The characters are ASCII.
        bytes.extend(pairs.filter_map(|at| u8::from_str_radix(&group[at..at + 2], 16).ok()));
    }
    Ok(bytes)
}

fn regex(pattern: &str) -> Result<String, Mistake> {
    /// Enough for any expression that a person writes, and little for a router.
    const MAX_COMPILED_BYTES: usize = 256 * 1024;
    let says = shown(pattern);
    if pattern.is_empty() {
        return wrong("the regular expression is empty; write one such as \"regex:^220 \"");
    }
    if pattern.len() > MAX_BYTES {
        let n = pattern.len();
        return wrong(format!("{n} bytes are too many; the limit is {MAX_BYTES}"));
    }
    let mut builder = RegexBuilder::new(pattern);
    match builder.size_limit(MAX_COMPILED_BYTES).build() {
        Ok(regex) if regex.is_match("") => wrong(format!(
            "`{says}` matches an empty answer, so no answer would be awaited; write one that does not, such as \"regex:^220 \""
        )),
        Ok(_) => Ok(pattern.to_owned()),
        Err(error) => wrong(format!(
            "`{says}` is not a valid regular expression: {error}; correct it, or write the text itself without \"regex:\""
        )),
    }
}

/// Parses the path of a request.
pub(super) fn path(text: &str) -> Result<String, Mistake> {
    const MAX_PATH_BYTES: usize = 2048;
    let says = shown(text);
    if !text.starts_with('/') {
        return wrong(format!(
            "`{says}` is not a path; write one that begins with `/`, such as \"/health\""
        ));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        return wrong(format!(
            "`{says}` contains `{}`; write it as % and two hexadecimal digits for each byte",
            shown(c.encode_utf8(&mut [0; 4]))
        ));
    }
    if text.len() > MAX_PATH_BYTES {
        let n = text.len();
        return wrong(format!(
            "the path has {n} characters; the limit is {MAX_PATH_BYTES}"
        ));
    }
    Ok(text.to_owned())
}

/// Parses the `Host` of a request: a host name or IP address, with or without a port.
pub(super) fn host(text: &str) -> Result<String, Mistake> {
    let bracketed = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if bracketed.is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()) {
        return Ok(text.to_owned());
    }
    if text.contains([':', '[', ' ']) || text.is_empty() {
        let (host, port) = host_and_port(text, "nas.lan")?;
        Address::tcp(host, port)?;
        return Ok(text.to_owned());
    }
    host_name(text)
}

/// Parses a status, such as `200`, or a range of them, such as `200-399`.
pub(super) fn status(text: &str) -> Result<(u16, u16), Mistake> {
    let code = |text: &str| {
        let is_number = text.len() == 3 && text.bytes().all(|c| c.is_ascii_digit());
        let code = text.parse::<u16>().ok().filter(|_| is_number)?;
        (100..=599).contains(&code).then_some(code)
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (code(low), code(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(low), Some(high)) => wrong(format!(
            "`{}` is an empty range; write \"{high}-{low}\"",
            shown(text)
        )),
        _ => wrong(format!(
            "`{}` is not a status of HTTP; write one from 100 to 599, or a range such as \"200-399\"",
            shown(text)
        )),
    }
}
