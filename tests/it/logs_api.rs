//! The last log lines over the API: which are kept, and how they are asked for.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::http::get;
use crate::support::process::Coracle;
use crate::support::until;

fn logs(admin: SocketAddr, query: &str) -> Value {
    let (status, _, body) = get(admin, &format!("/api/v1/logs{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn texts(answer: &Value) -> Vec<&str> {
    let lines = answer["lines"].as_array().unwrap().iter();
    lines.map(|line| line["text"].as_str().unwrap()).collect()
}

fn start() -> Coracle {
    Coracle::start(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"127.0.0.1:9\"]\nmax_fails = 0\n[log]\naccess = true\n",
    )
}

/// Has a connection fail, and waits until both its lines are there.
fn fail(coracle: &Coracle, after: &Value) -> Value {
    drop(TcpStream::connect(coracle.address("e")));
    until("the access line", || {
        let answer = logs(coracle.admin, &format!("?after={after}"));
        let is_there = texts(&answer)
            .iter()
            .any(|text| text.contains("msg=closed"));
        is_there.then_some(answer)
    })
}

#[test]
fn kept_lines_are_those_of_stderr() {
    let coracle = start();
    let answer = logs(coracle.admin, "");
    assert_eq!(
        (&answer["level"], &answer["kept_from"]),
        (&"info".into(), &1.into())
    );
    let kept = texts(&answer);
    let logged = coracle.log();
    assert!(kept.len() >= 4, "{kept:?}");
    assert_eq!(
        kept,
        logged
            .iter()
            .map(|line| line.trim_end())
            .collect::<Vec<_>>()
    );
    let lines = answer["lines"].as_array().unwrap();
    for (n, line) in (1..).zip(lines) {
        assert_eq!(line["number"], n);
        let time = line["time"].as_str().unwrap();
        assert!(
            line["text"]
                .as_str()
                .unwrap()
                .starts_with(&format!("time={time} "))
        );
    }
    let listening = lines
        .iter()
        .find(|line| line["message"] == "listening")
        .unwrap();
    assert_eq!(listening["fields"]["entrypoint"], "e");
    assert_eq!(listening["level"], "info");
}

#[test]
fn lines_are_asked_for_by_level_and_one_after_the_other() {
    let coracle = start();
    let first = logs(coracle.admin, "?limit=1");
    assert_eq!(texts(&first).len(), 1);
    assert!(texts(&first)[0].contains("msg=ready"), "{first}");
    let new = fail(&coracle, &first["next"]);
    assert!(texts(&new)[0].contains("dial: "), "{new}");
    let next = &new["next"];
    assert!(texts(&logs(coracle.admin, &format!("?after={next}"))).is_empty());
    let warnings = logs(coracle.admin, "?min_level=warn");
    assert!(
        texts(&warnings)
            .iter()
            .all(|text| text.contains("level=warn")),
        "{warnings}"
    );
    assert!(!texts(&warnings).is_empty());
    let page = logs(coracle.admin, "?after=0&limit=2");
    assert_eq!(
        (&page["lines"][0]["number"], &page["next"]),
        (&1.into(), &2.into())
    );
    for wrong in [
        "limit=0",
        "after=x",
        "min_level=all",
        "level=warn",
        "after=1&after=1",
    ] {
        let (status, _, body) = get(coracle.admin, &format!("/api/v1/logs?{wrong}"));
        assert_eq!(status, 400, "{wrong}");
        assert!(body.contains("\"parameter\""), "{body}");
    }
}

/// 2,000 access lines are more than is kept.
#[test]
fn access_lines_do_not_push_out_warnings() {
    let coracle = start();
    let first = fail(&coracle, &0.into());
    let warned = |answer: &Value| {
        let warnings = texts(answer).into_iter().map(str::to_owned);
        warnings
            .filter(|text| text.contains("level=warn"))
            .collect::<Vec<_>>()
    };
    for _ in 0..2_000 {
        drop(TcpStream::connect(coracle.address("e")));
    }
    let answer = until("lines have made room", || {
        let answer = logs(coracle.admin, "?min_level=warn&limit=1000");
        let all = logs(coracle.admin, "?limit=1000");
        (all["kept_from"].as_u64() > Some(100)).then_some((answer, all))
    });
    let (warnings, all) = answer;
    assert_eq!(warned(&warnings)[0], warned(&first)[0]);
    let bytes: usize = texts(&all).iter().map(|text| text.len()).sum();
    assert!(bytes < 64 * 1024, "{bytes}");
}
