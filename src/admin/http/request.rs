//! Parses the bytes of a request into a value, or returns the status that rejects them. No I/O.

use std::borrow::Cow;

use http_types::{Method, StatusCode};
use httparse::{EMPTY_HEADER, Header, Status};

use super::gate::Access;
use super::hosts;
use crate::admin::orders::takes_orders;
use crate::admin::sockets::Caller;

/// The longest request line with headers.
pub(super) const HEAD_BYTES: usize = 8 * 1024;
/// The longest body that is read and discarded.
const BODY_BYTES: u64 = 8 * 1024;
/// The longest body of an order. This is also the longest configuration.
const ORDER_BYTES: u64 = 1024 * 1024;
/// The most headers. A browser sends about 15.
const HEADERS: usize = 64;

/// A request, and how to treat the bytes around it.
#[derive(Debug)]
pub(crate) struct Head {
    /// The method.
    pub method: Method,
    /// The path, as sent: it is compared byte by byte.
    pub path: String,
    /// What follows the path's `?`, still encoded.
    pub query: Option<String>,
    /// The values of Accept, each followed by a comma. In this and the following headers, values
    /// that are not ASCII are left out.
    pub accept: String,
    /// The origin of the page that sends the request.
    pub origin: Option<String>,
    /// The scheme and the token. Two would be two guesses in one: the last one counts.
    pub authorization: Option<String>,
    /// The host that the request is for, with or without a port. `None` in HTTP/1.0, where it is
    /// optional.
    pub host: Option<String>,
    /// The length of the head.
    pub head_bytes: usize,
    /// The length of the body that follows.
    pub body_bytes: usize,
    /// Who sent it, and what it proves.
    pub(super) access: Access,
    /// Whether it is an order from a client that may give one, so that its body matters.
    pub is_order: bool,
    /// The body of an order. Empty for other requests.
    pub body: Vec<u8>,
    /// Whether the client sends its body only after "100 Continue".
    pub waits_for_continue: bool,
    /// Whether the connection may carry another request after this one.
    pub keep_alive: bool,
    /// Whether the request was in HTTP/1.0, where the response must confirm keep-alive.
    pub is_http_1_0: bool,
}

/// Parses the head at the start of `bytes`, which came from this caller. Returns `None` if more
/// bytes are needed. [`Head::settle`] says what becomes of the body.
///
/// # Errors
/// The status to respond with before closing the connection.
pub(super) fn parse(bytes: &[u8], caller: Caller) -> Result<Option<Head>, StatusCode> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head_bytes = match parsed.parse(bytes) {
        Ok(Status::Complete(n)) => n,
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(StatusCode::RequestHeaderFieldsTooLarge);
        }
        // The whole line decides on the status, however it arrives.
        Err(httparse::Error::Version) if !has_line(bytes) && bytes.len() < HEAD_BYTES => {
            return Ok(None);
        }
        Err(httparse::Error::Version) if names_a_version(bytes) => {
            return Err(StatusCode::HttpVersionNotSupported);
        }
        Err(_) => return Err(StatusCode::BadRequest),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(StatusCode::BadRequest);
    };
    let fields = Fields(parsed.headers);
    let is_http_1_0 = minor == 0;
    fields.check_host(is_http_1_0)?;
    let target = Target::parse(method, target)?;
    let may_be_order = method == "POST" && takes_orders(target.path);
    let most = if may_be_order {
        ORDER_BYTES
    } else {
        BODY_BYTES
    };
    let body_bytes = fields.body_bytes(is_http_1_0, most)?;
    let host = match target.host {
        // This takes precedence over the header: RFC 9112, 3.2.2.
        Some(host) => Some(host.to_owned()),
        None => {
            let host = fields.named("host").next();
            host.map(|host| String::from_utf8_lossy(host.trim_ascii()).into_owned())
        }
    };
    let mut accept = String::new();
    for value in fields.texts("accept") {
        accept += value;
        accept.push(',');
    }
    let expects = !is_http_1_0 && fields.has_token("expect", "100-continue") && body_bytes > 0;
    let asked_to_keep = if is_http_1_0 {
        fields.has_token("connection", "keep-alive")
    } else {
        !fields.has_token("connection", "close")
    };
    Ok(Some(Head {
        method: known_method(method)?,
        path: target.path.to_owned(),
        query: target.query.map(str::to_owned),
        accept,
        origin: fields.texts("origin").next().map(str::to_owned),
        authorization: fields.texts("authorization").last().map(str::to_owned),
        host,
        head_bytes,
        body_bytes,
        access: Access::without_proof(caller),
        is_order: may_be_order,
        body: Vec::new(),
        waits_for_continue: expects,
        keep_alive: asked_to_keep,
        is_http_1_0,
    }))
}

impl Head {
    /// Returns the names and values of the query.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.query.as_deref().unwrap_or_default().as_bytes())
    }

    /// Decides what becomes of the body, once it is known what the client may do.
    pub(super) fn settle(&mut self, access: Access) {
        self.access = access;
        self.is_order &= access.may_order();
        // Only the response to an order depends on a body. Any other client that waits for "100
        // Continue" or has announced a long body gets its response at once. It may or may not send
        // the body anyway, so nothing more is read.
        let is_long = self.body_bytes as u64 > BODY_BYTES;
        if !self.is_order && (self.waits_for_continue || is_long) {
            self.body_bytes = 0;
            self.waits_for_continue = false;
            self.keep_alive = false;
        }
    }
}

/// A request's headers, as received.
struct Fields<'a>(&'a [Header<'a>]);

impl<'a> Fields<'a> {
    fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.0.iter();
        named
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// Returns the values of a header that are ASCII.
    fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let ascii = self.named(name).filter(|value| value.is_ascii());
        ascii.filter_map(|value| std::str::from_utf8(value).ok())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.named(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Checks the number of Host headers. HTTP/1.1 requires one, and two are always an error:
    /// RFC 9112, 3.2.
    fn check_host(&self, is_http_1_0: bool) -> Result<(), StatusCode> {
        match self.named("host").count() {
            1 => Ok(()),
            0 if is_http_1_0 => Ok(()),
            _ => Err(StatusCode::BadRequest),
        }
    }

    /// Returns the length of the body, at most `most`. Rejects a request whose length two parsers
    /// could disagree on: RFC 9112, 6.3.
    fn body_bytes(&self, is_http_1_0: bool, most: u64) -> Result<usize, StatusCode> {
        let mut lengths = self.named("content-length");
        let length = lengths.next();
        if self.named("transfer-encoding").next().is_some() {
            return Err(if is_http_1_0 || length.is_some() {
                StatusCode::BadRequest
            } else {
                StatusCode::NotImplemented
            });
        }
        let Some(length) = length else { return Ok(0) };
        let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        if !is_number || lengths.next().is_some() {
            return Err(StatusCode::BadRequest);
        }
        let length = std::str::from_utf8(length).map_err(|_| StatusCode::BadRequest)?;
        // A string of digits fails to parse as a u64 only if the number is too large.
        match length.parse::<u64>() {
            Ok(n) if n <= most => Ok(n as usize),
            _ => Err(StatusCode::PayloadTooLarge),
        }
    }
}

/// Returns true if the request line, which blank lines may precede, is whole.
fn has_line(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().contains(&b'\n')
}

/// Returns `true` if the request line ends in a well-formed HTTP version, which is then the one
/// that is not supported.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|b| *b == b'\n').next();
    let line = line.unwrap_or_default().trim_ascii_end();
    let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Methods are case-sensitive, but http-types parses them without regard to case. An unknown method
/// is not allowed either.
fn known_method(method: &str) -> Result<Method, StatusCode> {
    let known: Option<Method> = method.parse().ok();
    known
        .filter(|known| known.as_ref() == method)
        .ok_or(StatusCode::MethodNotAllowed)
}

/// What a request is for.
struct Target<'a> {
    /// The host in the target, without a port.
    host: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Parses a target, in origin form (`/metrics`) or absolute form. The other forms (`*`,
    /// `host:port`) belong to methods that are not allowed, whatever their target.
    fn parse(method: &str, target: &'a str) -> Result<Self, StatusCode> {
        if target.starts_with('/') {
            return Ok(Self::of(None, target));
        }
        match method {
            "GET" | "HEAD" => {}
            "OPTIONS" | "CONNECT" => return Ok(Self::of(None, "/")),
            _ => return Ok(Self::of(Some("localhost"), "/")),
        }
        let (scheme, rest) = target.split_once("://").ok_or(StatusCode::BadRequest)?;
        let is_http = ["http", "https"]
            .iter()
            .any(|it| scheme.eq_ignore_ascii_case(it));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
        match hosts::without_port(host) {
            Some(host) if is_http && !host.is_empty() && host.bytes().all(is_plain) => {
                Ok(Self::of(Some(host), rest))
            }
            _ => Err(StatusCode::BadRequest),
        }
    }

    /// Splits what follows the authority. The fragment, which no client should send, is ignored.
    fn of(host: Option<&'a str>, rest: &'a str) -> Self {
        let (rest, _) = rest.split_once('#').unwrap_or((rest, ""));
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Self { host, path, query }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{IpAddr, Ipv4Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::gate::Proof;
    use super::*;

    const TCP: Caller = Caller::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// Parses a head, and settles what its sender may do.
    fn settled(bytes: &[u8], access: Access) -> Result<Option<Head>, StatusCode> {
        let mut head = super::parse(bytes, access.caller)?;
        if let Some(head) = &mut head {
            head.settle(access);
        }
        Ok(head)
    }

    fn parse(bytes: &[u8]) -> Result<Option<Head>, StatusCode> {
        settled(bytes, Access::without_proof(TCP))
    }

    /// One of each kind.
    fn kinds() -> Vec<Access> {
        let callers = [TCP, Caller::Control, Caller::Stranger];
        let mut kinds = callers.map(Access::without_proof).to_vec();
        let (caller, proof) = (TCP, Proof::Accepted);
        kinds.push(Access { caller, proof });
        kinds
    }

    #[test]
    fn forms_of_the_target() {
        let path = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = parse(request.as_bytes());
            head.map(|head| head.unwrap().path)
        };
        assert_eq!(path("/metrics"), Ok("/metrics".into()));
        assert_eq!(path("/metrics?x=/y"), Ok("/metrics".into()));
        assert_eq!(path("http://a:1/metrics"), Ok("/metrics".into()));
        assert_eq!(path("HTTPS://user@[::1]:1/metrics"), Ok("/metrics".into()));
        assert_eq!(path("http://a?x=/y"), Ok("/".into()));
        assert_eq!(path("//metrics"), Ok("//metrics".into()));
        assert_eq!(path("/metrics#x?y"), Ok("/metrics".into()));
        // Sent by no browser and no curl, which resolve these themselves.
        assert_eq!(path("/./%6detrics"), Ok("/./%6detrics".into()));
        for wrong in [
            "*",
            "a:1",
            "metrics",
            "file:///metrics",
            "http:///",
            "http://a:x/",
            "http://::1/",
            "http://\u{e9}A/",
            "http://%C3%A9A/",
        ] {
            assert_eq!(path(wrong), Err(StatusCode::BadRequest), "{wrong}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let parameters = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = parse(request.as_bytes()).unwrap().unwrap();
            let pairs = head
                .parameters()
                .map(|(name, value)| format!("{name}:{value}"));
            (head.query.clone(), pairs.collect::<Vec<_>>().join(" "))
        };
        assert_eq!(parameters("/"), (None, String::new()));
        assert_eq!(parameters("/?"), (Some(String::new()), String::new()));
        assert_eq!(parameters("/#?a=b"), (None, String::new()));
        let (_, pairs) = parameters("/?a=1%2F2+3&&b&c=?\u{e9}%C3%A9%ff=#d=4");
        assert_eq!(pairs, "a:1/2 3 b: c:?\u{e9}\u{e9}\u{fffd}=");
        let (query, pairs) = parameters("http://a/x?a=b");
        assert_eq!((query.as_deref(), &*pairs), (Some("a=b"), "a:b"));
    }

    #[test]
    fn absolute_target_overrides_the_host_header() {
        let host = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost:  a:1 \r\n\r\n");
            parse(request.as_bytes()).unwrap().unwrap().host
        };
        assert_eq!(host("/").as_deref(), Some("a:1"));
        assert_eq!(host("http://b:2/").as_deref(), Some("b"));
        assert_eq!(host("http://[::1]:2/").as_deref(), Some("[::1]"));
        let old = parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert_eq!(old.host, None);
    }

    #[test]
    fn keep_alive_depends_on_the_version_and_the_connection_header() {
        let keeps = |version: &str, headers: &str| {
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{headers}\r\n");
            parse(request.as_bytes()).unwrap().unwrap().keep_alive
        };
        assert!(keeps("1.1", ""));
        assert!(!keeps("1.1", "Connection: Close\r\n"));
        assert!(!keeps("1.1", "Connection: x\r\nConnection: y, close\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps(
            "1.1",
            "Expect: 100-continue\r\nContent-Length: 5\r\n"
        ));
    }

    #[test]
    fn non_ascii_headers_are_dropped_and_the_request_is_accepted() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: caf\xe9\r\nAccept: */*\r\n\
            Accept: caf\xe9\r\naccept: a\r\nOrigin: caf\xe9\r\n\r\n";
        let head = parse(request).unwrap().unwrap();
        assert_eq!(head.accept, "*/*,a,");
        assert_eq!((head.origin, head.authorization), (None, None));
    }

    #[test]
    fn only_an_order_of_one_who_may_give_it_has_its_long_body_read() {
        let long = ORDER_BYTES.to_string();
        let body = |target: &str, length: &str, access| {
            let request =
                format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let head = settled(request.as_bytes(), access).map(Option::unwrap);
            head.map(|head| (head.is_order, head.body_bytes, head.keep_alive))
        };
        let too_large = Err(StatusCode::PayloadTooLarge);
        let longer = (ORDER_BYTES + 1).to_string();
        for access in kinds() {
            let may = access.may_order();
            for target in ["/api/v1/reload", "/api/v1/reload?dry-run"] {
                let read = if may { ORDER_BYTES as usize } else { 0 };
                assert_eq!(body(target, &long, access), Ok((may, read, may)));
                assert_eq!(body(target, "3", access), Ok((may, 3, true)));
                assert_eq!(body(target, &longer, access), too_large);
            }
            assert_eq!(body("/metrics", &long, access), too_large);
        }
    }

    /// Heads that are valid or nearly so: parts that mean something here, put together at random,
    /// with some bytes replaced.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let method = select(vec![
            "GET", "HEAD", "POST", "OPTIONS", "CONNECT", "get", "X-Y",
        ]);
        let target = select(vec![
            "/",
            "/metrics?a=b",
            "/api/v1/reload",
            "*",
            "a:1",
            "http://b:2/x",
            "//",
        ]);
        let version = select(vec![
            "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "FTP/1.1", "",
        ]);
        let name = select(vec![
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Expect",
            "Connection",
            "Accept",
            "X",
        ]);
        let value = select(vec![
            "a",
            "",
            "0",
            "5",
            "99999999999999999999",
            "100-continue",
            "close",
            "keep-alive, x",
            "chunked",
            "*/*;q=0.5",
            "caf\u{e9}",
        ]);
        let end = select(vec!["\r\n", "\n"]);
        let replaced = vec((any::<Index>(), any::<u8>()), 0..3);
        let parts = (
            method,
            target,
            version,
            vec((name, value), 0..5),
            end,
            replaced,
        );
        parts.prop_map(|(method, target, version, headers, end, replaced)| {
            let mut head = format!("{method} {target} {version}{end}");
            for (name, value) in headers {
                head += &format!("{name}: {value}{end}");
            }
            let mut head = (head + end).into_bytes();
            for (at, byte) in replaced {
                *at.get_mut(&mut head) = byte;
            }
            head
        })
    }

    /// Formats everything that a head says, for comparison.
    fn summary(head: Head) -> String {
        let (method, path, query) = (head.method, head.path, head.query);
        let headers = [Some(head.accept), head.origin, head.authorization];
        let bytes = (head.head_bytes, head.body_bytes);
        let switches = [
            head.is_order,
            head.waits_for_continue,
            head.keep_alive,
            head.is_http_1_0,
        ];
        let host = head.host;
        format!("{method} {path} {query:?} {host:?} {bytes:?} {switches:?} {headers:?}")
    }

    fn access() -> impl Strategy<Value = Access> {
        select(kinds())
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            bytes in prop_oneof![vec(any::<u8>(), 0..300), heads()],
            access in access(),
        ) {
            let _ = settled(&bytes, access);
        }

        #[test]
        fn head_parses_the_same_however_its_bytes_arrive(head in heads(), access in access()) {
            let parse = |bytes| {
                let parsed = settled(bytes, access);
                parsed.map(|head| head.map(summary)).transpose()
            };
            let whole = parse(&head);
            for n in 0..head.len() {
                let part = parse(&head[..n]);
                prop_assert!(part.is_none() || part == whole, "{}: {:?} {:?}", n, part, whole);
            }
            let followed = [&head, &b"GET / HTTP/1.1\r\n"[..]].concat();
            prop_assert!(whole.is_none() || parse(&followed) == whole);
        }
    }
}
