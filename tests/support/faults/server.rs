//! A server that knows what each client should send, and records every wrong byte and early EOF.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::{DEADLINE, rng::Rng};

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The client sends and finishes, then the server answers and closes.
    Exchange = 1,
    /// Both send at the same time, and finish.
    Duplex,
    /// The server sends and finishes, then the client does.
    AnswerFirst,
    /// Bytes come back as they arrive.
    Echo,
    /// The server resets after half of its response.
    ServerResets,
    /// The client resets after half of its request.
    ClientResets,
}

const KINDS: [Kind; 6] = [
    Kind::Exchange,
    Kind::Duplex,
    Kind::AnswerFirst,
    Kind::Echo,
    Kind::ServerResets,
    Kind::ClientResets,
];

/// What a client requests, in its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub kind: Kind,
    /// Generates the bytes of both directions, so that no two connections carry the same.
    pub seed: u64,
    pub up: usize,
    pub down: usize,
}

impl Order {
    pub const BYTES: usize = 25;

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.kind as u8; Self::BYTES];
        bytes[1..9].copy_from_slice(&self.seed.to_be_bytes());
        bytes[9..17].copy_from_slice(&(self.up as u64).to_be_bytes());
        bytes[17..].copy_from_slice(&(self.down as u64).to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        Some(Self {
            kind: *KINDS.get(usize::from(bytes[0]).checked_sub(1)?)?,
            seed: number(1),
            up: usize::try_from(number(9)).ok()?,
            down: usize::try_from(number(17)).ok()?,
        })
    }

    pub fn upload(self) -> Vec<u8> {
        bytes(self.seed, self.up)
    }

    pub fn download(self) -> Vec<u8> {
        bytes(!self.seed, self.down)
    }
}

fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// What must never happen, as observed.
#[derive(Clone, Debug, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    pub fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// TCP or Unix, on either side of a connection.
pub trait Duplex: Read + Write + Send + Sized + 'static {
    /// Whether the peer's reset reaches this side as one. Unix sockets have none.
    const RESETS: bool;
    fn twin(&self) -> Self;
    fn finish(&self) -> std::io::Result<()>;
    /// Makes reads and writes give up at the deadline of all tests.
    fn patient(&self);
    /// Makes reads wait forever.
    fn endless(&self);
    fn reset(self);
}

impl Duplex for TcpStream {
    const RESETS: bool = true;

    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn finish(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn patient(&self) {
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        self.set_write_timeout(Some(DEADLINE)).unwrap();
    }

    fn endless(&self) {
        self.set_read_timeout(None).unwrap();
    }

    fn reset(self) {
        let _ = SockRef::from(&self).set_linger(Some(Duration::ZERO));
    }
}

impl Duplex for UnixStream {
    const RESETS: bool = false;

    fn twin(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn finish(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn patient(&self) {
        self.set_read_timeout(Some(DEADLINE)).unwrap();
        self.set_write_timeout(Some(DEADLINE)).unwrap();
    }

    fn endless(&self) {
        self.set_read_timeout(None).unwrap();
    }

    fn reset(self) {}
}

/// Starts it on its own TCP port.
pub fn start(violations: &Violations) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let violations = violations.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &violations);
        }
    });
    address
}

/// Starts it on a Unix socket.
pub fn start_unix(path: &Path, violations: &Violations) {
    let listener = UnixListener::bind(path).unwrap();
    let violations = violations.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &violations);
        }
    });
}

fn serve<S: Duplex>(stream: S, violations: &Violations) {
    let violations = violations.clone();
    let thread = thread::Builder::new().stack_size(256 * 1024);
    thread
        .spawn(move || {
            stream.patient();
            if let Err(what) = act(stream) {
                violations.note(format!("the server saw: {what}"));
            }
        })
        .unwrap();
}

fn act<S: Duplex>(mut stream: S) -> Result<(), String> {
    let mut head = [0; Order::BYTES];
    let mut got = 0;
    while got < head.len() {
        match stream.read(&mut head[got..]) {
            // A client that has said nothing may leave.
            Ok(0) if got == 0 || !S::RESETS => return Ok(()),
            Ok(0) => return Err(format!("a clean end after {got} bytes of the order")),
            Ok(n) => got += n,
            Err(error) => return visible(&error),
        }
    }
    let order = Order::from_bytes(&head).ok_or(format!("not an order: {head:?}"))?;
    match order.kind {
        Kind::Exchange => {
            let end = receive(&mut stream, &order.upload(), &order)?;
            if end.is_whole(false, &order)? {
                send(&mut stream, &order.download());
            }
        }
        Kind::Duplex => {
            let mut twin = stream.twin();
            let sending =
                thread::spawn(move || send(&mut twin, &order.download()) && twin.finish().is_ok());
            let end = receive(&mut stream, &order.upload(), &order);
            let sent = sending.join().unwrap();
            end?.is_whole(!sent, &order)?;
        }
        Kind::AnswerFirst => {
            if send(&mut stream, &order.download()) && stream.finish().is_ok() {
                let end = receive(&mut stream, &order.upload(), &order)?;
                end.is_whole(false, &order)?;
            }
        }
        Kind::Echo => {
            // Here the client waits.
            stream.endless();
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        }
        Kind::ServerResets => {
            send(&mut stream, &order.download()[..order.down / 2]);
            stream.reset();
        }
        Kind::ClientResets => {
            let end = receive(&mut stream, &order.upload(), &order)?;
            end.is_whole(false, &order)?;
        }
    }
    Ok(())
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After everything expected.
    Whole,
    /// Before that, seemingly cleanly.
    Early(usize),
    /// By an error.
    Failed,
}

impl End {
    /// True if everything arrived; false after a visible failure. `shown`: an error has already
    /// been reported, for instance to a writing thread, after which the end of a reset connection
    /// looks clean.
    ///
    /// # Errors
    /// An early end that looks clean.
    pub fn is_whole(self, shown: bool, order: &Order) -> Result<bool, String> {
        match self {
            Self::Whole => Ok(true),
            Self::Early(got) if !shown => Err(format!("a clean end after {got} bytes: {order:?}")),
            Self::Early(_) | Self::Failed => Ok(false),
        }
    }
}

/// Reads to EOF.
///
/// # Errors
/// A wrong byte, a byte too many, and silence.
pub fn receive<S: Duplex>(stream: &mut S, expected: &[u8], order: &Order) -> Result<End, String> {
    let mut buffer = vec![0; 64 * 1024];
    let mut got = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) if got == expected.len() => return Ok(End::Whole),
            Ok(0) if !S::RESETS => return Ok(End::Failed),
            Ok(0) => return Ok(End::Early(got)),
            Ok(n) => {
                if expected.get(got..got + n) != Some(&buffer[..n]) {
                    return Err(format!("wrong bytes from {got} on, {n} of them: {order:?}"));
                }
                got += n;
            }
            Err(error) => {
                visible(&error).map_err(|hang| format!("{hang} after {got} bytes: {order:?}"))?;
                return Ok(End::Failed);
            }
        }
    }
}

/// Failing is allowed; hanging is not.
pub fn visible(error: &std::io::Error) -> Result<(), String> {
    match error.kind() {
        // A read timeout. A connection that the kernel gives up fails with TimedOut.
        ErrorKind::WouldBlock => Err(format!("nothing within {DEADLINE:?}")),
        _ => Ok(()),
    }
}
