//! The last log lines over the API and `coracle logs`: which are kept, and how they are asked for; and
//! the level that is logged.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::control::{ask, post};
use crate::support::backend::{self, hold};
use crate::support::http::get;
use crate::support::process::{Coracle, binary};
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

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(binary()).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn command_prints_the_lines_by_level_and_in_json() {
    let coracle = start();
    fail(&coracle, &0.into());
    let admin = coracle.admin.to_string();
    let (code, out, err) = run(&["logs", "--admin", &admin]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.lines().count() >= 6, "{out}");
    for line in out.lines() {
        until(&format!("stderr has {line}"), || {
            let is_it = |it: &String| it.trim_end() == line;
            coracle.log().iter().any(is_it).then_some(())
        });
    }
    let (_, out, _) = run(&["logs", "--level", "warn", "--json", "--admin", &admin]);
    assert!(!out.is_empty());
    for line in out.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "warn");
    }
    let (code, out, err) = run(&["logs", "--level", "error", "--admin", &admin]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    let (code, _, err) = run(&["logs", "--level", "all"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("write error, warn, info or debug"), "{err}");
}

#[test]
fn command_follows_until_it_is_interrupted() {
    let coracle = start();
    let mut command = Command::new(binary());
    command.args(["logs", "--follow", "--level", "warn", "--admin"]);
    command
        .arg(coracle.admin.to_string())
        .stdout(Stdio::piped());
    let mut follower = command.spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // Each has other fields: the client's port.
    for _ in 0..2 {
        drop(TcpStream::connect(coracle.address("e")));
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("level=warn"), "{line}");
    }
    let pid = Pid::from_child(&follower);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

/// A coracle with a control socket that logs from info on.
fn controlled() -> (Coracle, tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"{}\"]\nhealth = {{ kind = \"tcp\", interval = \"100ms\" }}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"{}\"\n",
        backend::start(),
        socket.display()
    ));
    (coracle, dir, socket)
}

#[test]
fn level_changes_until_the_next_reload() {
    let (coracle, _dir, socket) = controlled();
    let path = socket.to_str().unwrap();
    let level = |level: &[&str]| run(&[&["log-level", "--socket", path][..], level].concat());
    let well = |text: &str| (Some(0), format!("{text}\n"), String::new());
    assert_eq!(level(&[]), well("info"));
    assert_eq!(level(&["info"]), well("nothing has changed"));
    assert_eq!(level(&["debug"]), well("log: level debug instead of info"));
    assert_eq!(level(&[]), well("debug"));
    let status = || {
        let (_, _, body) = get(coracle.admin, "/api/v1/status");
        let status: Value = serde_json::from_str(&body).unwrap();
        status["log_level"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(), "debug");
    let line = coracle.logged("log: level debug instead of info");
    assert!(line.contains("by=\"control socket\""), "{line}");
    // What happens to each connection and to each check.
    let client = hold(coracle.address("e"));
    let peer = client.local_addr().unwrap();
    for message in ["opened", "connected"] {
        let line = coracle.logged(&format!("msg={message} "));
        assert!(
            line.contains(&format!("level=debug msg={message}")),
            "{line}"
        );
        assert!(line.contains(&format!("peer={peer}")), "{line}");
    }
    drop(client);
    for message in ["msg=dialling ", "msg=closed ", "msg=\"check succeeded\""] {
        let line = coracle.logged(message);
        assert!(line.contains("server="), "{line}");
    }
    assert_eq!(ask(&socket, post("/api/v1/reload", "")).0, 200);
    assert_eq!(level(&[]), well("info"));
    assert_eq!(status(), "info");
    assert_eq!(level(&["warn"]), well("log: level warn instead of info"));
    assert_eq!(ask(&socket, post("/api/v1/kill?entrypoint=e", "")).0, 200);
    assert_eq!(
        ask(&socket, post("/api/v1/log-level?level=error", "")).0,
        200
    );
    assert!(!coracle.log().concat().contains("ended on command"));
    for wrong in [
        "",
        "?level=",
        "?level=off",
        "?level=info&level=warn",
        "?lvl=info",
    ] {
        let (status, _) = ask(&socket, post(&format!("/api/v1/log-level{wrong}"), ""));
        assert_eq!(status, 400, "{wrong}");
    }
    assert_eq!(status(), "error");
}
