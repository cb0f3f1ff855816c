//! The admin endpoint's thread: it exists from the start, serves alone, and uses bounded memory.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::http::{Client, get, http};
use crate::support::process::Coracle;
use crate::support::until;

fn config(servers: usize) -> String {
    let to = backend::start();
    let servers: String = (1..=servers)
        .map(|n| format!("\"192.0.2.1:{n}\", "))
        .collect();
    format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n\
         [entrypoints.unused]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [{servers}]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"listed.example\"]\n"
    )
}

/// The names of the process's threads.
fn threads(coracle: &Coracle) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", coracle.pid())).unwrap();
    let name = |path: std::path::PathBuf| std::fs::read_to_string(path.join("comm")).ok();
    tasks
        .flatten()
        .filter_map(|task| {
            let id = task.file_name().into_string().unwrap();
            Some((id, name(task.path())?.trim().to_owned()))
        })
        .collect()
}

#[test]
fn no_thread_starts_after_startup_and_the_admin_thread_is_nice() {
    let coracle = Coracle::start(&config(1));
    // A new thread takes its name a moment later, and a probe thread may still be visible.
    let at_start = until("the threads have their names", || {
        let threads = threads(&coracle);
        let named = |name: &str| threads.values().filter(|it| *it == name).count();
        let named = ["admin", "async-io", "coracle"].map(named);
        (named == [1; 3]).then_some(threads)
    });
    let admin: Vec<_> = at_start
        .iter()
        .filter(|(_, name)| *name == "admin")
        .collect();
    assert_eq!(admin.len(), 1, "{at_start:?}");
    for path in ["/metrics", "/api/v1/agreement", "/healthz", "/readyz"] {
        assert_eq!(get(coracle.admin, path).0, 200, "{path}");
    }
    assert_eq!(threads(&coracle), at_start);
    let stat =
        |id: &str| std::fs::read_to_string(format!("/proc/{}/task/{id}/stat", coracle.pid()));
    // The nice value is field 19, the 17th after the name (proc_pid_stat(5)).
    let nice = |id: &str| -> i32 {
        let stat = stat(id).unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    };
    let main = coracle.pid().to_string();
    assert!(nice(admin[0].0) > nice(&main) || nice(&main) == 19);
}

#[test]
fn configured_hosts_are_served() {
    let coracle = Coracle::start(&config(1));
    let status = |host: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        http(coracle.admin, request).0
    };
    assert_eq!(status("listed.example:2672"), 200);
    assert_eq!(status("evil.example"), 421);
}

#[test]
fn startup_without_threads_fails_with_one_line() {
    if !support::has_tool("strace") {
        return;
    }
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(config(1).as_bytes()).unwrap();
    // The first threads belong to the log and others, not the endpoint; any of them may be the one
    // that fails.
    for nth in 1..=5 {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=clone,clone3"]);
        command.args([
            "-e",
            &format!("inject=clone,clone3:error=EAGAIN:when={nth}+"),
        ]);
        command.arg(support::process::binary());
        let mut child = command
            .args(["run", "-c"])
            .arg(file.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            if line.contains("msg=ready") {
                // It needs no more threads than it has.
                let children = format!("/proc/{0}/task/{0}/children", child.id());
                let pid = std::fs::read_to_string(children).unwrap();
                let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap());
                rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
            }
            lines.push(line);
        }
        let status = child.wait().unwrap();
        let is_ready = lines.iter().any(|line| line.contains("msg=ready"));
        let last = lines.last().unwrap();
        assert_eq!(
            status.code(),
            Some(i32::from(!is_ready)),
            "{nth}: {lines:#?}"
        );
        assert!(
            is_ready || last.starts_with("coracle: "),
            "{nth}: {lines:#?}"
        );
        assert!(
            !lines.iter().any(|line| line.contains("panicked")),
            "{nth}: {lines:#?}"
        );
    }
}

#[test]
fn event_lost_by_async_io_does_not_silence_the_endpoint() {
    if !support::has_tool("strace") {
        return;
    }
    let coracle = Coracle::start(&config(1));
    let mut client = Client::connect(coracle.admin);
    assert_eq!(client.get("/healthz").status, 200);
    let threads = threads(&coracle);
    let (id, _) = threads
        .iter()
        .find(|(_, name)| *name == "async-io")
        .expect("async-io's thread");
    // It sleeps in epoll_wait. Next it re-arms its eventfd; that fails, and it discards the event
    // it just received.
    let mut strace = Command::new("strace")
        .args(["-p", id, "-o", "/dev/null", "-e", "trace=epoll_ctl"])
        .args(["-e", "inject=epoll_ctl:error=ENOMEM:when=1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
    let attached = said.next().expect("strace attaches").unwrap();
    assert!(attached.contains("attached"), "{attached}");
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.get("/metrics").status, 200);
    // Later clients are served too.
    assert_eq!(get(coracle.admin, "/api/v1/agreement").0, 200);
    let pid = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    strace.wait().unwrap();
    assert_eq!(get(coracle.admin, "/healthz").0, 200);
}

#[test]
fn thirty_two_concurrent_largest_responses_cost_little_memory() {
    const ASKERS: usize = 32;
    const ROUNDS: usize = 3;
    let coracle = Coracle::start(&config(1024));
    let held: Vec<_> = (0..800)
        .map(|_| {
            let mut stream = TcpStream::connect(coracle.address("e")).unwrap();
            stream.write_all(&Script::Hold.request(0)).unwrap();
            stream
        })
        .collect();
    for mut stream in &held {
        stream.read_exact(&mut [0]).unwrap();
    }
    let status = |key: &str| -> u64 {
        let path = format!("/proc/{}/status", coracle.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.unwrap().split_whitespace().next().unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    };
    let open_metrics =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text\r\n\r\n";
    let text = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let audit = "GET /api/v1/agreement HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // The high-water mark VmHWM can be reset this way (proc(5)).
    let clear = format!("/proc/{}/clear_refs", coracle.pid());
    std::fs::write(clear, "5").unwrap();
    let before = status("VmHWM:");
    let admin = coracle.admin;
    let largest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..ASKERS {
            let largest = &largest;
            scope.spawn(move || {
                let mut client = Client::connect(admin);
                for round in 0..ROUNDS {
                    let request = [text, audit, open_metrics][(n + round) % 3];
                    client.send(request.repeat(2));
                    for _ in 0..2 {
                        let answer = client.answer();
                        assert_eq!(answer.status, 200);
                        assert!(answer.body.len() > 100_000, "{}", answer.body.len());
                        largest.fetch_max(answer.body.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let grown = status("VmHWM:") - before;
    // One body at a time, the copy of the numbers it is made from, and what malloc keeps.
    let most = 3 * largest.into_inner();
    println!("{grown} bytes more at most, of {most}");
    assert!(grown < most, "grown by {grown} bytes, of {most}");
}
