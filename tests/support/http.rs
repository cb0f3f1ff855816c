//! A plain HTTP client that hides nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: String,
}

/// A response's headers, with names in lower case.
#[derive(Debug)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header that may occur once.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut named = self.0.iter().filter(|(n, _)| n == name);
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "{name} occurs twice");
        value
    }
}

/// A client that sends exactly the bytes it is given.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, DEADLINE).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a GET that leaves the connection open, and receives the response.
    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// The same on a connection that may have ended while idle: `None` if it has.
    pub fn get_if_open(&mut self, path: &str) -> Option<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).ok()?;
        match self.stream.peek(&mut [0]) {
            Ok(0) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            begins => begins.map(|_| Some(self.answer())).unwrap(),
        }
    }

    /// Receives one response with its body.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.answer_to_head();
        let length: usize = answer
            .headers
            .value("content-length")
            .unwrap()
            .parse()
            .unwrap();
        while self.received.len() < length {
            assert!(self.receive(), "truncated body: {answer:?}");
        }
        answer.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        answer
    }

    /// Receives one response without a body, whatever its Content-Length says.
    pub fn answer_to_head(&mut self) -> Answer {
        let end = loop {
            let end = self.received.windows(4).position(|w| w == b"\r\n\r\n");
            if let Some(end) = end {
                break end;
            }
            let so_far = String::from_utf8_lossy(&self.received).into_owned();
            assert!(self.receive(), "no response, only {so_far:?}");
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Answer {
            status: status[..3].parse().unwrap(),
            headers: Headers(lines.map(header).collect()),
            body: String::new(),
        }
    }

    /// Waits for a clean end of the connection, with nothing before it.
    pub fn expect_end(&mut self) {
        assert!(!self.receive(), "unexpected bytes");
        assert!(self.received.is_empty(), "unexpected bytes");
    }

    /// Waits for the end of the connection, with nothing before it. It is a reset if the other side
    /// has not read everything sent.
    pub fn expect_cut(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the connection continues: {other:?}"),
        }
    }

    /// Whether anything has arrived that has not been received here.
    pub fn has_received(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Receives some more bytes. Returns false at EOF.
    fn receive(&mut self) -> bool {
        let mut piece = [0; 65_536];
        // With a time limit, a signal (of a child that ends) interrupts the call.
        let n = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        self.received.extend_from_slice(&piece[..n]);
        n > 0
    }
}

/// Sends `request` on a new connection and receives the response.
pub fn http(address: SocketAddr, request: impl AsRef<[u8]>) -> (u16, Headers, String) {
    let mut client = Client::connect(address);
    client.send(request);
    let answer = client.answer();
    (answer.status, answer.headers, answer.body)
}

/// Gets `path` on a new connection.
pub fn get(address: SocketAddr, path: &str) -> (u16, Headers, String) {
    http(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )
}
