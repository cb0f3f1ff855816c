//! A server whose every connection does what its client's first bytes request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// What the client requests, in its first 9 bytes: the script and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Script {
    /// Send everything back until EOF.
    Echo = 1,
    /// Send `n` bytes of the pattern and close.
    SendAndClose,
    /// Read to EOF, then send `n` bytes of the pattern and close.
    AnswerAfterEnd,
    /// Send `n` bytes, finish sending, then read to EOF.
    FinishFirst,
    /// Reset immediately.
    Reset,
    /// Send one byte, then read to EOF.
    Hold,
    /// Send one byte, wait for one, close at the same time as the client.
    CloseTogether,
    /// Like AnswerAfterEnd, but `n` milliseconds later and 1 MiB long.
    AnswerLate,
    /// Send a byte, finish sending, and then wait for EOF.
    HoldFinished,
}

const SCRIPTS: [Script; 9] = [
    Script::Echo,
    Script::SendAndClose,
    Script::AnswerAfterEnd,
    Script::FinishFirst,
    Script::Reset,
    Script::Hold,
    Script::CloseTogether,
    Script::AnswerLate,
    Script::HoldFinished,
];

/// The length of AnswerLate's response.
pub const LATE_BYTES: usize = 1 << 20;

impl Script {
    /// The bytes that request this script.
    pub fn request(self, n: u64) -> [u8; 9] {
        let mut bytes = [self as u8; 9];
        bytes[1..].copy_from_slice(&n.to_be_bytes());
        bytes
    }
}

/// Connects to `address` and returns once the server's first byte has arrived: the server keeps the
/// connection until EOF. A read ends with the deadline of all tests.
pub fn hold(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::DEADLINE)).unwrap();
    stream.write_all(&Script::Hold.request(0)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// Starts a server on its own port.
pub fn start() -> SocketAddr {
    let listener = bound_but_not_listening();
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let thread = thread::Builder::new().stack_size(128 * 1024);
            // The tests provoke its errors.
            thread.spawn(move || drop(act(stream))).unwrap();
        }
    });
    address
}

fn act(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let script = SCRIPTS[usize::from(request[0]) - 1];
    let n = u64::from_be_bytes(request[1..].try_into().unwrap());
    match script {
        Script::Echo => {
            let mut buffer = [0; 16 * 1024];
            loop {
                let n = stream.read(&mut buffer)?;
                if n == 0 {
                    return Ok(());
                }
                stream.write_all(&buffer[..n])?;
            }
        }
        Script::SendAndClose => stream.write_all(&pattern(n as usize)),
        Script::AnswerAfterEnd => {
            read_to_end(&mut stream)?;
            stream.write_all(&pattern(n as usize))
        }
        Script::FinishFirst => {
            stream.write_all(&pattern(n as usize))?;
            stream.shutdown(std::net::Shutdown::Write)?;
            read_to_end(&mut stream)
        }
        Script::Reset => {
            reset_on_close(&stream);
            Ok(())
        }
        Script::Hold => {
            stream.write_all(b"!")?;
            read_to_end(&mut stream)
        }
        Script::CloseTogether => {
            stream.write_all(b"!")?;
            stream.read_exact(&mut [0])
        }
        Script::AnswerLate => {
            read_to_end(&mut stream)?;
            // The delay is what this script is about.
            thread::sleep(Duration::from_millis(n));
            stream.write_all(&pattern(LATE_BYTES))
        }
        Script::HoldFinished => {
            stream.write_all(b"!")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            read_to_end(&mut stream)
        }
    }
}

fn read_to_end(stream: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(drop)
}

/// Makes closing the socket send a reset.
pub fn reset_on_close(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// `n` bytes whose period is not a power of two.
pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

/// Refuses connections, and keeps its port from everyone else.
pub fn bound_but_not_listening() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

/// A listener with a full backlog: the kernel answers no more SYNs.
pub struct Silent {
    pub address: SocketAddr,
    pub listener: TcpListener,
    pub fill: Vec<Socket>,
}

impl Silent {
    pub fn start() -> Self {
        let socket = bound_but_not_listening();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let fill = (0..8).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        });
        Self {
            address,
            fill: fill.collect(),
            listener,
        }
    }
}
