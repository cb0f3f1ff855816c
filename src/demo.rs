//! The demo: a web server, a client that connects and disconnects, and coracle between them, all in
//! one process.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::config::Config;
use crate::proxy::{BindError, Proxy};

/// The most connections that the client holds.
const HELD_AT_MOST: usize = 8;
/// The time between two actions of the client, which opens or closes one connection in each.
const STEP: Duration = Duration::from_millis(400);

/// The web server's page.
const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>coracle</title>\
<body style=\"font-family:sans-serif;max-width:40em;margin:4em auto\">\
<h1>It floats.</h1><p>This page came through coracle. Load it again and watch the count:</p>\
<pre>curl -s http://ADMIN/metrics | grep open_connections</pre></body></html>\n";

/// A demo whose proxy listens and whose web server answers.
#[derive(Debug)]
pub struct Demo {
    /// The proxy, ready to run.
    pub proxy: Proxy,
    listen: SocketAddr,
    admin: SocketAddr,
    backend: SocketAddr,
}

/// Why the demo cannot start, in one line.
#[derive(Debug)]
pub struct DemoError(String);

impl DemoError {
    fn new(why: impl fmt::Display) -> Self {
        Self(format!("demo: {why}"))
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DemoError {}

impl From<BindError> for DemoError {
    fn from(error: BindError) -> Self {
        Self(error.to_string())
    }
}

impl Demo {
    /// Starts the web server and binds the proxy in front of it.
    ///
    /// # Errors
    /// If it cannot listen on an address.
    pub fn start(listen: SocketAddr, admin: SocketAddr) -> Result<Self, DemoError> {
        let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(no_web_server)?;
        let backend_address = backend.local_addr().map_err(no_web_server)?;
        let proxy = Proxy::bind(&config(listen, admin, backend_address)?)?;
        let admin = proxy.admin_address().unwrap_or(admin);
        let page = PAGE.replace("ADMIN", &admin.to_string());
        let server = thread::Builder::new().name("demo server".into());
        let serving = server.spawn(move || serve(&backend, &page));
        serving.map_err(|error| no_thread(&error))?;
        Ok(Self {
            listen: proxy.addresses("demo").first().copied().unwrap_or(listen),
            proxy,
            admin,
            backend: backend_address,
        })
    }

    /// Starts the client.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start_client(&self) -> Result<(), DemoError> {
        let listen = self.listen;
        let client = thread::Builder::new().name("demo client".into());
        let started = client.spawn(move || come_and_go(listen));
        started.map(drop).map_err(|error| no_thread(&error))
    }

    /// Says what to open and what to watch.
    #[must_use]
    pub fn guide(&self) -> String {
        let Self {
            listen,
            admin,
            backend,
            ..
        } = self;
        let port = listen.port();
        format!(
            "coracle demo: a web server, a client that comes and goes, and coracle between them

  open     http://{listen}/   (forwarded to http://{backend}/)
  watch    curl -s {admin}/metrics | grep open_connections
  compare  ss -Htane '( sport = :{port} )' | grep -v LISTEN | grep -vc 'ino:0 '
  end      Ctrl-C
"
        )
    }
}

/// Parses the demo's configuration from text like any other, so that it is checked and has the same
/// defaults. It does not drain, since all connections are the demo's own, and its admin endpoint has
/// nothing to hide.
fn config(listen: SocketAddr, admin: SocketAddr, backend: SocketAddr) -> Result<Config, DemoError> {
    let text = format!(
        "drain_timeout = \"0s\"
[admin]
listen = \"{admin}\"
open = true
[log]
level = \"warn\"
[entrypoints.demo]
listen = \"{listen}\"
to = \"{backend}\"
"
    );
    Config::parse("demo", &text, &[]).map_err(|errors| {
        let messages = errors.told.into_iter().map(|told| told.message);
        DemoError::new(messages.collect::<Vec<_>>().join("; "))
    })
}

fn no_web_server(error: io::Error) -> DemoError {
    DemoError::new(format!(
        "the web server cannot listen on 127.0.0.1: {error}"
    ))
}

fn no_thread(error: &io::Error) -> DemoError {
    DemoError::new(format!("no thread can be started: {error}"))
}

/// Serves the page with one thread per connection, which is good enough for a demo.
fn serve(listener: &TcpListener, page: &str) {
    thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            // If there is no thread for it, only this connection is closed.
            let thread = thread::Builder::new();
            let _ = thread.spawn_scoped(scope, move || answer(stream, page));
        }
    });
}

/// Answers each request head with the page until the client leaves.
fn answer(mut stream: TcpStream, page: &str) -> io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let n = stream.read(&mut chunk)?;
        head.extend_from_slice(&chunk[..n]);
        if n == 0 || head.len() > 16 * 1024 {
            return Ok(());
        }
        while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            head.drain(..end + 4);
            let length = page.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{page}"
            )?;
        }
    }
}

/// Opens connections one by one, requests the page on each, then closes them one by one. Repeats
/// forever.
fn come_and_go(address: SocketAddr) {
    let mut held = Vec::new();
    loop {
        for _ in 0..HELD_AT_MOST {
            thread::sleep(STEP);
            held.extend(visit(address));
        }
        while !held.is_empty() {
            thread::sleep(STEP);
            held.remove(0);
        }
    }
}

fn visit(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"</html>\n") {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..n]);
    }
    Ok(stream)
}
