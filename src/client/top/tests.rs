//! Keys and looks go in, and lines of text come out.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::keys::Key;
use super::look::{Look, RATES};
use super::mode::Order;
use super::press::Action;
use super::state::Top;
use super::style::columns;

/// What coracle answers with this many connections, of which `offset` come before those here.
fn look(total: u64, offset: u64, shown: u64, at: Instant, moved: u64) -> Look {
    let bytes = 1_000_000 + moved;
    let status = json!({
        "coracle": "0.1.0",
        "entrypoints": [
            { "name": "web", "listening": ["0.0.0.0:8080"], "service": "pages", "open": total,
              "max_connections": 5000, "to_server_bytes": 0, "to_client_bytes": bytes,
              "refused": 7, "refused_by": { "denied": 5, "limit": 0, "rate": 2 } },
            { "name": "\u{1b}[31m", "listening": [], "service": null, "open": 0,
              "max_connections": null, "to_server_bytes": 0, "to_client_bytes": 0,
              "refused": 0, "refused_by": { "denied": 0, "limit": 0, "rate": 0 } },
        ],
        "services": [
            { "name": "pages", "balance": "round_robin", "open": 3, "queued": 4, "retries": 5,
              "to_server_bytes": moved / 2, "to_client_bytes": bytes },
        ],
        "servers": [
            { "service": "pages", "name": "steady", "up": true, "admin": "ready", "why_down": null,
              "state_seconds": null, "open": 3, "dialling": 0, "connect_errors": 0,
              "to_server_bytes": moved, "to_client_bytes": moved / 2, "max_connections": null },
            { "service": "pages", "name": "shaky", "up": false, "admin": "ready",
              "why_down": "2 checks in a row failed: HTTP status 503", "state_seconds": 61.0,
              "open": 0, "dialling": 1, "connect_errors": 7, "to_server_bytes": 0,
              "to_client_bytes": 0, "max_connections": 10 },
            { "service": "pages", "name": "spare", "up": true, "admin": "drain", "why_down": null,
              "state_seconds": 5.0, "open": 0, "dialling": 0, "connect_errors": 0,
              "to_server_bytes": 0, "to_client_bytes": 0, "max_connections": null },
        ],
    });
    let metrics = format!(
        "coracle_open_connections{{entrypoint=\"web\"}} {total}\n\
         coracle_connections_opened_total{{entrypoint=\"web\"}} 500\n\
         coracle_connections_closed_total{{entrypoint=\"web\",reason=\"done\"}} 100\n\
         coracle_connection_mismatch{{entrypoint=\"web\"}} 0\n\
         process_start_time_seconds 1000\n"
    );
    let connections = (offset..offset + shown).map(|n| {
        json!({ "id": (n + 1).to_string(), "peer": format!("192.168.1.{}:50000", n + 1),
            "entrypoint": "web", "service": "pages", "server": "steady", "state": "relaying",
            "age_seconds": 75.0, "to_server_bytes": 10, "to_client_bytes": bytes })
    });
    let page = json!({ "total": total, "offset": offset,
        "connections": connections.collect::<Vec<Value>>() });
    Look::of(status, &metrics, page, at, 8200.0)
}

/// A terminal of this size, after two looks at 30 connections that are a second apart.
fn watched(size: (usize, usize)) -> Top {
    let mut top = Top::new("127.0.0.1:2672".to_owned(), None, size);
    let begun = Instant::now();
    see(&mut top, begun, 0);
    see(&mut top, begun + Duration::from_secs(1), 2048);
    top
}

/// A number among the parameters that it asks with.
fn wanted(top: &Top, key: &str) -> u64 {
    let path = top.wanted();
    let pairs = path.split(['?', '&']).filter_map(|it| it.split_once('='));
    let mut values = pairs.filter(|(own, _)| *own == key);
    let value = values.next().and_then(|(_, value)| value.parse().ok());
    value.expect("a number")
}

/// Answers what it asks for, out of 30 connections.
fn see(top: &mut Top, at: Instant, moved: u64) {
    let (offset, limit) = (wanted(top, "offset"), wanted(top, "limit"));
    let shown = limit.min(30_u64.saturating_sub(offset));
    assert!(!top.see(look(30, offset, shown, at, moved)));
}

fn text(top: &Top) -> Vec<String> {
    let lines = top.screen();
    lines
        .iter()
        .map(|it| it.text().trim_end().to_owned())
        .collect()
}

fn press(top: &mut Top, keys: &str) -> Action {
    let mut last = Action::Show;
    for key in keys.chars() {
        last = top.press(Key::Char(key));
    }
    last
}

/// Gives it what it asks for after a key.
fn press_and_see(top: &mut Top, key: Key) {
    if top.press(key) == Action::Look {
        see(top, Instant::now(), 0);
    }
}

/// The line of the connection that keys apply to.
fn chosen(top: &Top) -> String {
    let lines = top.screen();
    let mut reverse = lines
        .iter()
        .filter(|it| it.ansi(false).starts_with("\x1b[7m"));
    let line = reverse.next().map_or(String::new(), |it| it.text());
    assert!(reverse.next().is_none());
    line.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn screen_of_80_columns_has_it_all() {
    let expected = [
        "coracle 0.1.0, up 2h00m  the kernel agrees  127.0.0.1:2672",
        "30 open  500 opened  100 closed  0/s to servers  2.0K/s to clients",
        "",
        "ENTRYPOINT LISTENS ON   SERVICE    OPEN TO SERVER/S TO CLIENT/S REFUSED",
        "web        0.0.0.0:8080 pages   30/5000           0        2.0K 7: denied 5, ra~",
        "\\u{1b}[31m              -             0           0           0 0",
        "",
        "SERVICE SERVER OPEN ERRORS TO SERVER/S TO CLIENT/S SINCE STATE",
        "pages   steady    3      0        2.0K        1.0K     - up",
        "pages   shaky  0/10      7           0           0 1m01s down: 2 checks in a ro~",
        "pages   spare     0      0           0           0    5s drain",
        "",
        "1-9 of 30 connections, the oldest first",
        "PEER              ENTRYPOINT SERVICE SERVER   AGE TO SRV /S TO CLI   /S STATE",
        "192.168.1.1:50000 web        pages   steady 1m15s     10  0   979K 2.0K relaying",
    ];
    let lines = text(&watched((80, 24)));
    assert_eq!(lines.len(), 24);
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(line, expected);
    }
    assert!(lines[23].starts_with("? help  q quit"));
}

#[test]
fn larger_screen_has_services_and_reasons() {
    let expected = [
        "ENTRYPOINT LISTENS ON   SERVICE    OPEN TO SERVER/S TO CLIENT/S REFUSED",
        "web        0.0.0.0:8080 pages   30/5000           0        2.0K 7: denied 5, rate 2",
        "\\u{1b}[31m              -             0           0           0 0",
        "",
        "SERVICE OPEN QUEUED RETRIES TO SERVER/S TO CLIENT/S",
        "pages      3      4       5        1.0K        2.0K",
        "",
        "SERVICE SERVER OPEN DIALLING ERRORS TO SERVER/S TO CLIENT/S SINCE STATE",
        "pages   steady    3        0      0        2.0K        1.0K     - up",
    ];
    let lines = text(&watched((110, 40)));
    for (line, expected) in lines[3..].iter().zip(expected) {
        assert_eq!(line, expected);
    }
}

/// A server can have the name of an entrypoint that forwards to its service, and that of a service.
#[test]
fn rates_are_those_of_each_object_whatever_its_name() {
    let looks = [0, 1].map(|n| {
        let of = |service: Value, bytes: u64| {
            json!({ "name": "a", "service": service, "to_server_bytes": n * bytes,
                "to_client_bytes": 0 })
        };
        let status = json!({
            "entrypoints": [of("a".into(), 3)],
            "services": [of(Value::Null, 5)],
            "servers": [of("a".into(), 7)],
        });
        let at = Instant::now() + Duration::from_secs(n);
        Look::of(status, "", Value::Null, at, 0.0)
    });
    let [before, mut after] = looks;
    after.add_rates(&before.carried(), 1.0);
    let rates = [after.entrypoints(), after.services(), after.servers()];
    assert_eq!(
        rates.map(|it| it[0][RATES[0]].as_f64()),
        [3.0, 5.0, 7.0].map(Some)
    );
}

#[test]
fn no_screen_is_larger_than_the_terminal() {
    for width in [1, 19, 20, 40, 79, 80, 81, 200] {
        for height in [1, 5, 6, 10, 13, 24, 50] {
            let top = watched((width, height));
            let lines = top.screen();
            assert!(lines.len() <= height, "{width}x{height}");
            for line in lines {
                let text = line.text();
                assert!(columns(&text) <= width, "{width}x{height}: {text}");
                assert!(!text.contains('\u{1b}'), "{text}");
            }
        }
    }
    let wide = text(&watched((200, 50)));
    assert!(
        wide.iter()
            .any(|line| line.ends_with("down: 2 checks in a row failed: HTTP status 503"))
    );
}

#[test]
fn it_asks_for_no_more_than_it_shows() {
    let top = watched((80, 24));
    let rows = top.heights().connections as u64;
    assert_eq!(wanted(&top, "limit"), rows);
    assert_eq!(wanted(&watched((80, 5000)), "limit"), 1000);
}

#[test]
fn keys_move_through_all_pages() {
    let mut top = watched((80, 24));
    assert_eq!(chosen(&top), "192.168.1.1:50000");
    for _ in 0..29 {
        press_and_see(&mut top, Key::Down);
    }
    assert_eq!(chosen(&top), "192.168.1.30:50000");
    press_and_see(&mut top, Key::Down);
    assert_eq!(chosen(&top), "192.168.1.30:50000");
    press_and_see(&mut top, Key::Home);
    assert_eq!(chosen(&top), "192.168.1.1:50000");
    press_and_see(&mut top, Key::PageDown);
    let rows = top.heights().connections as u64;
    assert_eq!(wanted(&top, "offset"), rows);
    press_and_see(&mut top, Key::End);
    assert_eq!(chosen(&top), "192.168.1.30:50000");
    for _ in 0..29 {
        press_and_see(&mut top, Key::Char('k'));
    }
    assert_eq!(chosen(&top), "192.168.1.1:50000");
}

#[test]
fn the_chosen_connection_stays_chosen_when_others_go() {
    let mut top = watched((80, 24));
    press(&mut top, "jjj");
    assert_eq!(chosen(&top), "192.168.1.4:50000");
    // Two older ones end.
    top.see(look(28, 2, 10, Instant::now(), 0));
    assert_eq!(chosen(&top), "192.168.1.4:50000");
}

#[test]
fn sort_keys_change_what_is_asked_for() {
    let mut top = watched((80, 24));
    let asks = |top: &Top, what: &str| top.wanted().contains(&format!("?sort={what}&"));
    assert!(asks(&top, "age&order=desc"));
    assert_eq!(press(&mut top, "s"), Action::Look);
    assert!(asks(&top, "bytes&order=desc"));
    press(&mut top, ">>");
    assert!(asks(&top, "to_client_bytes&order=desc"));
    press(&mut top, ">");
    assert!(asks(&top, "age&order=desc"));
    press(&mut top, "<r");
    assert!(asks(&top, "to_client_bytes&order=asc"));
    assert!(
        text(&top)
            .iter()
            .any(|it| it.contains("the fewest bytes to clients first"))
    );
}

#[test]
fn filter_is_typed_corrected_and_cleared() {
    let mut top = watched((80, 24));
    press(&mut top, "/wbe");
    assert_eq!(text(&top)[23], "only: wbe_");
    assert_eq!(top.press(Key::Enter), Action::Show);
    assert!(text(&top)[23].starts_with("only: wbe_  `wbe` is neither"));
    top.press(Key::Backspace);
    top.press(Key::Backspace);
    press(&mut top, "eb 10.0.0.0/8");
    assert_eq!(top.press(Key::Enter), Action::Look);
    assert!(top.wanted().ends_with("&entrypoint=web&peer=10.0.0.0/8"));
    assert!(
        text(&top)
            .iter()
            .any(|it| it.contains("only web 10.0.0.0/8 (Esc shows all)"))
    );
    assert_eq!(top.press(Key::Escape), Action::Look);
    assert!(!top.wanted().contains("entrypoint"));
}

#[test]
fn an_order_needs_a_yes() {
    let mut top = watched((80, 24));
    let kill = Order("/api/v1/kill?id=2".to_owned());
    assert_eq!(press(&mut top, "jx"), Action::Show);
    assert_eq!(
        text(&top)[23],
        "end connection 2 from 192.168.1.2:50000 to web? y/n"
    );
    // Neither an answer nor another key.
    assert_eq!(press(&mut top, "j"), Action::Show);
    assert!(text(&top)[23].starts_with("end connection 2"));
    assert_eq!(press(&mut top, "n"), Action::Show);
    assert_eq!(press(&mut top, "y"), Action::Show);
    assert_eq!(press(&mut top, "xy"), Action::Give(kill.clone()));
    top.press(Key::Delete);
    // The page changes below the question, which stays about the same connection.
    top.see(look(20, 10, 10, Instant::now(), 0));
    assert_eq!(press(&mut top, "y"), Action::Give(kill));
    top.hear(true, "1 connection ended".to_owned());
    assert_eq!(text(&top)[23], "1 connection ended");
}

#[test]
fn servers_are_drained_and_made_ready() {
    let mut top = watched((80, 24));
    let order = |server: &str, state: &str| {
        let order = format!("/api/v1/server?service=pages&server={server}&state={state}");
        Action::Give(Order(order))
    };
    assert_eq!(press(&mut top, "dy"), order("steady", "drain"));
    top.press(Key::Tab);
    press(&mut top, "jjjj");
    assert_eq!(chosen(&top), "pages");
    press(&mut top, "d");
    assert_eq!(text(&top)[23], "server spare of service pages: ready? y/n");
    assert_eq!(press(&mut top, "y"), order("spare", "ready"));
}

#[test]
fn without_a_control_socket_keys_say_what_is_missing() {
    let mut top = Top::new(
        "h:1".to_owned(),
        Some("orders need it".to_owned()),
        (80, 24),
    );
    top.see(look(3, 0, 3, Instant::now(), 0));
    assert_eq!(press(&mut top, "xy"), Action::Show);
    press(&mut top, "d");
    assert_eq!(text(&top)[23], "orders need it");
}

#[test]
fn trouble_shows_above_the_last_numbers() {
    let mut top = watched((80, 24));
    top.fail("no coracle is running\u{1b}".to_owned());
    let lines = text(&top);
    assert!(lines[0].contains("not reachable, retrying"), "{}", lines[0]);
    assert!(lines[1].starts_with("30 open"));
    assert_eq!(lines[23], "no coracle is running\\u{1b}");
    see(&mut top, Instant::now(), 0);
    assert!(text(&top)[0].contains("the kernel agrees"));
}

#[test]
fn another_process_has_no_rates_of_the_one_before() {
    let mut top = watched((80, 24));
    let mut fresh = look(1, 0, 1, Instant::now() + Duration::from_secs(9), 0);
    fresh.opened = 1.0;
    top.see(fresh);
    assert!(text(&top)[1].ends_with("-/s to servers  -/s to clients"));
}

#[test]
fn help_goes_with_any_key() {
    let mut top = watched((80, 24));
    press(&mut top, "?");
    assert!(text(&top).iter().any(|it| it.starts_with("q, Ctrl-C")));
    assert_eq!(press(&mut top, "q"), Action::Show);
    assert_eq!(press(&mut top, "q"), Action::Quit);
    assert_eq!(top.press(Key::Ctrl('c')), Action::Quit);
}

#[test]
fn a_page_beyond_the_end_is_left() {
    let mut top = watched((80, 24));
    press_and_see(&mut top, Key::End);
    assert!(top.see(look(5, 18, 0, Instant::now(), 0)));
    assert_eq!(wanted(&top, "offset"), 0);
}
