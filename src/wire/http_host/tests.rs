//! What names a host in a request, and what is refused.

use super::*;

fn host_of(head: &str) -> Result<Option<Option<Box<str>>>, Malformed> {
    parse(head.as_bytes())
}

/// Parses a request for `/` with `headers`.
fn with(headers: &str) -> Result<Option<Option<Box<str>>>, Malformed> {
    host_of(&format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n"))
}

fn some(host: &str) -> Result<Option<Option<Box<str>>>, Malformed> {
    Ok(Some(Some(host.into())))
}

#[test]
fn the_host_header_names_the_host() {
    assert_eq!(with("Host: nas.example.org"), some("nas.example.org"));
    assert_eq!(with("hOST:NAS.Example.ORG.:8080 "), some("nas.example.org"));
    assert_eq!(with("Accept: */*\r\nHost: a\r\nX: y"), some("a"));
    assert_eq!(with("Host: 192.0.2.1:80"), some("192.0.2.1"));
    assert_eq!(with("Host: [2001:DB8::1]:80"), some("[2001:db8::1]"));
    assert_eq!(with("Host: a:"), some("a"));
    assert_eq!(with("Accept: */*"), Ok(Some(None)));
    assert_eq!(with("Host:"), Ok(Some(None)));
}

#[test]
fn an_absolute_target_outweighs_the_header() {
    for target in [
        "http://A.lan",
        "http://a.lan:80/",
        "https://a.lan?x",
        "ws://a.lan./x",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: b.lan\r\n\r\n");
        assert_eq!(host_of(&head), some("a.lan"), "{target}");
    }
    for target in ["/http://a.lan/", "*", "/x:y//z", "a.lan:443", "/"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: b.lan\r\n\r\n");
        assert_eq!(host_of(&head), some("b.lan"), "{target}");
    }
    let twice = "GET http://a.lan/ HTTP/1.1\r\nHost: b\r\nHost: b\r\n\r\n";
    assert_eq!(host_of(twice), Err(Malformed::Several));
}

#[test]
fn what_is_ambiguous_or_malformed_is_refused() {
    assert_eq!(with("Host: a\r\nHost: a"), Err(Malformed::Several));
    for host in [
        "a b", "a/b", "a@b", "a:80:80", "a:x", "::1", "[::1", "[::1]x", "[a]", "*.lan", "a\u{e9}",
        "a,b", ":80",
    ] {
        assert_eq!(
            with(&format!("Host: {host}")),
            Err(Malformed::Host),
            "{host}"
        );
    }
    for head in [
        "\u{16}\u{3}\u{1}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-x\r\n",
        "GET /\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    ] {
        assert_eq!(host_of(head), Err(Malformed::Head), "{head:?}");
    }
}

#[test]
fn a_head_has_bounds() {
    let endless = format!("GET /{}", "a".repeat(MOST_BYTES));
    assert_eq!(host_of(&endless), Err(Malformed::TooLong));
    assert_eq!(host_of(&endless[..MOST_BYTES - 1]), Ok(None));
    let most = "X: y\r\n".repeat(MOST_HEADERS - 1);
    assert_eq!(with(&format!("{most}Host: a")), some("a"));
    assert_eq!(
        with(&format!("{most}X: y\r\nHost: a")),
        Err(Malformed::TooLong)
    );
}

#[test]
fn every_prefix_asks_for_more_and_what_follows_changes_nothing() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a.lan:80\r\nAccept: */*\r\n\r\n",
        "GET http://a.lan/ HTTP/1.0\r\n\r\n",
        "POST /x HTTP/1.1\nHost: a.lan\n\n",
    ] {
        for end in 0..head.len() {
            assert_eq!(host_of(&head[..end]), Ok(None), "{:?}", &head[..end]);
        }
        assert_eq!(host_of(head), some("a.lan"));
        assert_eq!(
            host_of(&format!("{head}GET / HTTP/1.1\r\nHost: b\r\n")),
            some("a.lan")
        );
    }
}
