//! A real Prometheus scrapes a real coracle and gives the right number back.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use support::backend::{self, Script};
use support::process::Coracle;
use support::rng::Rng;
use support::until;

const HELD: usize = 7;

#[test]
fn prometheus_scrapes_it_and_answers_with_the_right_number() {
    if !support::has_tool("prometheus") {
        return;
    }
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.web]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
    ));
    let prometheus = Prometheus::start(coracle.admin);
    let held: Vec<TcpStream> = (0..HELD)
        .map(|_| {
            let mut stream = TcpStream::connect(coracle.address("web")).unwrap();
            stream.write_all(&Script::Hold.request(0)).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    let query = "coracle_open_connections%7Bentrypoint%3D%22web%22%2Cprotocol%3D%22TCP%22%7D";
    let value = format!("\"{HELD}\"]");
    until("Prometheus answers with the number held", || {
        prometheus
            .query(query)
            .filter(|answer| answer.contains(&value))
    });
    drop(held);
    until("Prometheus answers 0", || {
        prometheus
            .query(query)
            .filter(|answer| answer.contains("\"0\"]"))
    });
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\nscrape_configs:\n\
             - job_name: coracle\n  static_configs:\n  - targets: ['{target}']\n"
        );
        let config_file = dir.path().join("prometheus.yml");
        std::fs::write(&config_file, config).unwrap();
        let address = support::lasting_address(&mut Rng::from_env());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self {
            child,
            address,
            _dir: dir,
        };
        until("Prometheus is ready", || {
            let mut stream = TcpStream::connect(address).ok()?;
            stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.contains(" 200 ").then_some(())
        });
        prometheus
    }

    /// The body of an instant query's answer.
    fn query(&self, query: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
