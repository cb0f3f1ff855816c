//! A server whose every connection does what its client's first bytes ask for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// What the client asks of the server, in the first 9 bytes: the script and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Script {
    /// Send back all that comes, until its end.
    Echo = 1,
    /// Send `n` bytes of the pattern and close.
    SendAndClose,
    /// Read to the end, then send `n` bytes of the pattern and close.
    AnswerAfterEnd,
    /// Send `n` bytes, finish sending, then read to the end.
    FinishFirst,
    /// Reset at once.
    Reset,
    /// Send one byte, then read to the end.
    Hold,
    /// Send one byte, wait for one, close at the same time as the client.
    CloseTogether,
    /// As AnswerAfterEnd, but `n` milliseconds later and 1 MiB long.
    AnswerLate,
    /// Send a byte, finish sending, and then wait for the end.
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

/// The length of AnswerLate's answer.
pub const LATE_BYTES: usize = 1 << 20;

impl Script {
    /// The bytes that ask for this script.
    pub fn request(self, n: u64) -> [u8; 9] {
        let mut bytes = [self as u8; 9];
        bytes[1..].copy_from_slice(&n.to_be_bytes());
        bytes
    }
}

/// Starts a server on a port of its own.
pub fn start() -> SocketAddr {
    let listener = bound_but_not_listening();
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let thread = thread::Builder::new().stack_size(128 * 1024);
            // Its errors are what the tests provoke.
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
            // The time is what this script is about.
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

/// Has the socket's close send a reset.
pub fn reset_on_close(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// `n` bytes that do not repeat at any power of two.
pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

/// Connecting to it is refused, and nobody else can take its port.
pub fn bound_but_not_listening() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

/// A listener whose backlog is full: the kernel answers no more SYN.
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
