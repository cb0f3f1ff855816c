//! A real Prometheus, started for one test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// A running Prometheus with one target.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it and waits until it is ready. It evaluates `rules` (the text of a rule file) twice
    /// a second, but scrapes only every other second: a slower scrape counts as failed, and a
    /// failed one restarts each alert's wait.
    pub fn start(target: SocketAddr, rules: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global:\n  scrape_interval: 2s\n  scrape_timeout: 2s\n  evaluation_interval: 500ms\n\
             rule_files: ['rules.yml']\nscrape_configs:\n\
             - job_name: coracle\n  static_configs:\n  - targets: ['{target}']\n"
        );
        std::fs::write(dir.path().join("rules.yml"), rules.unwrap_or("groups: []")).unwrap();
        let config_file = dir.path().join("prometheus.yml");
        std::fs::write(&config_file, config).unwrap();
        let address = super::lasting_address(&mut super::rng::from_env());
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
        super::until("Prometheus is ready", || {
            let mut stream = TcpStream::connect(address).ok()?;
            stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.contains(" 200 ").then_some(())
        });
        prometheus
    }

    /// The body of an instant query's response.
    pub fn query(&self, query: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(super::DEADLINE)).ok()?;
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
