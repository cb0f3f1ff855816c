//! The admin endpoint's HTTP over raw sockets: each status, and where requests begin and end.
use std::net::Shutdown;

use crate::support::admin::{Admin, PATIENT};
use crate::support::http::{Client, get, http};

#[test]
fn each_path_has_its_response() {
    let admin = Admin::start(PATIENT);
    let cases = [
        ("/", 200, "text/plain; charset=utf-8", "/metrics"),
        ("/healthz", 200, "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", 200, "text/plain; charset=utf-8", "ready\n"),
        (
            "/readyz?verbose=1",
            200,
            "text/plain; charset=utf-8",
            "ready\n",
        ),
        (
            "/nothing",
            404,
            "text/plain; charset=utf-8",
            "404 Not Found\n",
        ),
        (
            "/metrics",
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE",
        ),
        (
            "/metrics?x",
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            "# TYPE",
        ),
    ];
    for (path, status, content_type, text) in cases {
        let (got, headers, body) = get(admin.address, path);
        assert_eq!(got, status, "{path}");
        assert_eq!(headers.value("content-type"), Some(content_type), "{path}");
        assert_eq!(headers.value("cache-control"), Some("no-store"), "{path}");
        assert_eq!(headers.value("connection"), None, "{path}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

#[test]
fn draining_is_healthy_but_not_ready() {
    let admin = Admin::start(PATIENT);
    admin.with(|world| world.shared.start_draining());
    let (status, _, body) = get(admin.address, "/readyz");
    assert_eq!((status, body.as_str()), (503, "draining\n"));
    assert_eq!(get(admin.address, "/healthz").0, 200);
}

#[test]
fn head_returns_the_headers_of_get_without_a_body() {
    let admin = Admin::start(PATIENT);
    for (path, status) in [("/healthz", 200), ("/metrics", 200), ("/nothing", 404)] {
        let mut client = Client::connect(admin.address);
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // The second response follows the first directly, or the client misreads it.
        client.send(request.repeat(2));
        let first = client.answer_to_head();
        let second = client.answer_to_head();
        assert_eq!((first.status, second.status), (status, status), "{path}");
        let (_, headers, body) = get(admin.address, path);
        let length = first.headers.value("content-length").unwrap();
        if path == "/metrics" {
            // Its length changes with each scrape.
            assert!(length.parse::<usize>().unwrap() > 1000);
        } else {
            assert_eq!(length, body.len().to_string(), "{path}");
        }
        let content_type = headers.value("content-type");
        assert_eq!(first.headers.value("content-type"), content_type, "{path}");
    }
}

#[test]
fn other_methods_are_refused_and_keep_the_connection_open() {
    let admin = Admin::start(PATIENT);
    let mut client = Client::connect(admin.address);
    for request in [
        "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "DELETE /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, 405, "{request}");
        assert_eq!(
            answer.headers.value("allow"),
            Some("GET, HEAD"),
            "{request}"
        );
    }
    assert_eq!(client.get("/healthz").status, 200);
    let (status, headers, _) = http(admin.address, "get / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status, 405, "methods are case-sensitive");
    assert_eq!(headers.value("allow"), Some("GET, HEAD"));
}

#[test]
fn unframeable_request_is_refused_and_closes_the_connection_cleanly() {
    let admin = Admin::start(PATIENT);
    let long = "x".repeat(9000);
    let many = "x: y\r\n".repeat(65);
    let after_host: &[(u16, &str)] = &[
        (400, "bad header\r\n"),
        (400, " folded: x\r\n"),
        (400, "Host: b\r\n"),
        (400, "Content-Length: 1\r\nContent-Length: 1\r\n"),
        (400, "Content-Length: +1\r\n"),
        (400, "Content-Length: 1, 1\r\n"),
        (400, "Content-Length:\r\n"),
        (400, "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
        (501, "Transfer-Encoding: chunked\r\n"),
        (413, "Content-Length: 8193\r\n"),
        (413, "Content-Length: 99999999999999999999999\r\n"),
        (431, &format!("x: {long}\r\n")),
        (431, &many),
    ];
    let after_host = after_host.iter().map(|(status, headers)| {
        (
            *status,
            format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"),
        )
    });
    let whole = [
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (
            400,
            "GET metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
        (400, "GET / HTTP/x\r\nHost: localhost\r\n\r\n".to_owned()),
        (
            400,
            "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned(),
        ),
        (
            400,
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        ),
        (
            431,
            format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ),
        (431, "\r\n".repeat(4096)),
        (505, "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n".to_owned()),
        (505, "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n".to_owned()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ];
    for (status, request) in after_host.chain(whole) {
        let mut client = Client::connect(admin.address);
        // More than the endpoint reads: closing with unread bytes would reset the connection and
        // lose the response.
        client.send(request.as_bytes());
        client.send("y".repeat(20_000));
        let answer = client.answer();
        let start: String = request.chars().take(80).collect();
        assert_eq!(answer.status, status, "{start}");
        assert_eq!(answer.headers.value("connection"), Some("close"), "{start}");
        client.expect_end();
    }
}

#[test]
fn bodies_are_discarded_up_to_the_limit() {
    let admin = Admin::start(PATIENT);
    let mut client = Client::connect(admin.address);
    let body = "z".repeat(8192);
    client.send(format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8192\r\n\r\n{body}"
    ));
    assert_eq!(client.answer().body, "ok\n");
    assert_eq!(client.get("/readyz").body, "ready\n");
    // A client that waits for a 100 gets its final response at once. The connection closes, since
    // the body may or may not follow.
    client.send(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.status, 405);
    assert_eq!(answer.headers.value("connection"), Some("close"));
    client.send("hello");
    client.expect_end();
}

#[test]
fn longest_head_is_served() {
    let admin = Admin::start(PATIENT);
    let mut client = Client::connect(admin.address);
    let rest = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: \r\n\r\n".len();
    let fill = "x".repeat(8192 - rest);
    client.send(format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: {fill}\r\n\r\n"
    ));
    assert_eq!(client.answer().status, 200);
    client.send(format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: {fill}x\r\n\r\n"
    ));
    assert_eq!(client.answer().status, 431);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let admin = Admin::start(PATIENT);
    let mut client = Client::connect(admin.address);
    let paths = ["/healthz", "/readyz", "/metrics", "/nothing", "/"].repeat(40);
    let requests: String = paths
        .iter()
        .map(|path| {
            format!("\r\nGET {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        })
        .collect();
    client.send(requests);
    for path in paths {
        let answer = client.answer();
        let expected = match path {
            "/healthz" => "ok\n",
            "/readyz" => "ready\n",
            "/nothing" => "404",
            _ => "coracle",
        };
        assert!(answer.body.contains(expected), "{path}: {answer:?}");
    }
}

#[test]
fn request_may_arrive_byte_by_byte() {
    let admin = Admin::start(PATIENT);
    let mut client = Client::connect(admin.address);
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabcGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().status, 405);
    assert_eq!(client.answer().body, "ok\n");
}

#[test]
fn connection_closes_when_the_client_asks() {
    let admin = Admin::start(PATIENT);
    let ends = |request: &str| {
        let mut client = Client::connect(admin.address);
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        let connection = answer.headers.value("connection").map(str::to_owned);
        if connection.as_deref() == Some("close") {
            client.expect_end();
        } else {
            assert_eq!(client.get("/").status, 200);
        }
        connection
    };
    let close = Some("close".to_owned());
    assert_eq!(ends("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), None);
    assert_eq!(
        ends("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        close
    );
    assert_eq!(ends("GET / HTTP/1.0\r\n\r\n"), close);
    let keeps = ends("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(keeps.as_deref(), Some("keep-alive"));
}

#[test]
fn half_closed_client_receives_its_responses() {
    let admin = Admin::start(PATIENT);
    let mut client = Client::connect(admin.address);
    client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3));
    client.stream().shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert_eq!(client.answer().body, "ok\n");
    }
    client.expect_end();
}
