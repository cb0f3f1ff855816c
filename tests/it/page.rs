//! The page of the admin endpoint, as a client without a browser sees it. `scripts/page-test` opens it
//! in one.

use std::path::Path;

use crate::support::backend::{self, hold};
use crate::support::http::{get, http};
use crate::support::markdown::read;
use crate::support::process::Coracle;

const BROWSER: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                       Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n";

/// The most that the page may have, with the few rows of the test: a Pi sends it and a phone loads it.
const MOST_BYTES: usize = 36_000;

#[test]
fn browser_gets_the_page_and_other_clients_the_list_of_paths() {
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\nmax_connections = 7\n\
         [services.s]\nservers = [{{ address = \"{}\", name = \"<b>\\\"&'\" }}]\n",
        backend::start()
    ));
    let clients: Vec<_> = (0..3).map(|_| hold(coracle.address("web"))).collect();
    let (status, headers, page) = http(coracle.admin, BROWSER);
    assert_eq!(status, 200, "{page}");
    assert_eq!(
        headers.value("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = headers.value("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(page.contains("<span id=\"open\">3 open</span>"), "{page}");
    assert!(
        page.contains("<td>web<td class=number>3 of 7<td class=plot>"),
        "{page}"
    );
    let name = "&lt;b&gt;&quot;&amp;&#39;";
    // The server's row, and the three of its connections.
    assert_eq!(page.matches(name).count(), 4, "{page}");
    assert!(!page.contains("<b>"), "{page}");
    for client in &clients {
        let peer = client.local_addr().unwrap();
        assert!(
            page.contains(&format!("<tr><td>{peer}<td>{name}<td")),
            "{page}"
        );
    }
    // Nothing is left to fill in.
    for part in [
        "{page",
        "{open",
        "{version",
        "{entrypoints",
        "{servers",
        "{connections",
        "{past}",
        "{script}",
        "{services",
    ] {
        assert!(!page.contains(part), "{part}");
    }
    // What only its authors read stays with them.
    assert!(
        !page.contains("@typedef") && !page.contains("\n\t"),
        "{page}"
    );
    assert!(page.len() <= MOST_BYTES, "{} bytes", page.len());
    let (status, headers, list) = get(coracle.admin, "/");
    assert_eq!(status, 200);
    assert_eq!(
        headers.value("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(list.contains("/metrics "), "{list}");
}

#[test]
fn advice_on_the_page_is_about_documented_messages() {
    let documented = read(Path::new("docs/troubleshooting.md"));
    let script = read(Path::new("src/admin/page/status.js"));
    let (_, table) = script.split_once("const ADVICE = [").unwrap();
    let (table, _) = table.split_once("\n];").unwrap();
    let mut found = 0;
    for row in table.lines().filter_map(|it| it.trim().strip_prefix("[\"")) {
        let (begins, _) = row.split_once('"').unwrap();
        let is_there = documented.contains(&format!("| `{begins}"));
        assert!(
            is_there,
            "no message in docs/troubleshooting.md begins with {begins:?}"
        );
        found += 1;
    }
    assert!(found >= 10, "only {found} found");
}
