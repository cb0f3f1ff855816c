//! The demo's web servers, one of which fails its health checks now and then.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

/// What a client requests to get bytes for as long as it likes.
pub(super) const DOWNLOAD: &str = "/download";
/// What coracle's health checks request.
pub(super) const HEALTH: &str = "/health";

/// How long a server works before it fails, and how long until it works again.
const WELL: Duration = Duration::from_secs(25);
const ILL: Duration = Duration::from_secs(10);
/// The time between two pieces of a download.
const PIECE: Duration = Duration::from_millis(200);
const PIECE_BYTES: usize = 64 * 1024;

/// A web server.
pub(super) struct WebServer {
    /// The document at each path but those above.
    pub page: String,
    /// Whether it fails its health checks now.
    pub is_ill: AtomicBool,
}

impl WebServer {
    /// Serves with one thread per connection, which is good enough for a demo.
    pub(super) fn serve(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for stream in listener.incoming().flatten() {
                // If there is no thread for it, only this connection is closed.
                let thread = thread::Builder::new();
                let _ = thread.spawn_scoped(scope, move || self.converse(stream));
            }
        });
    }

    /// Fails the health checks now and then, forever. Coracle then ends the connections and sends
    /// later clients to the other server.
    pub(super) fn fall_ill_and_recover(&self) {
        loop {
            thread::sleep(WELL);
            self.is_ill.store(true, Ordering::Relaxed);
            thread::sleep(ILL);
            self.is_ill.store(false, Ordering::Relaxed);
        }
    }

    /// Answers each request head until the client leaves. What follows the head of an upload looks
    /// like none.
    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let n = stream.read(&mut chunk)?;
            head.extend_from_slice(&chunk[..n]);
            if n == 0 {
                return Ok(());
            }
            while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let request: Vec<u8> = head.drain(..end + 4).collect();
                self.answer(&mut stream, &String::from_utf8_lossy(&request))?;
            }
            if head.len() > 16 * 1024 {
                head.clear();
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, request: &str) -> io::Result<()> {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match path {
            DOWNLOAD => return download(stream),
            HEALTH if self.is_ill.load(Ordering::Relaxed) => ("503 Service Unavailable", "ill\n"),
            HEALTH => ("200 OK", "well\n"),
            _ => ("200 OK", self.page.as_str()),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }
}

/// Sends bytes until the client leaves, at a rate that varies.
fn download(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")?;
    let mut rng = Rng::new();
    let piece = vec![b'.'; PIECE_BYTES];
    loop {
        stream.write_all(&piece[..rng.usize(PIECE_BYTES / 4..PIECE_BYTES)])?;
        thread::sleep(PIECE);
    }
}
