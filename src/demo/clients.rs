//! The demo's clients, each with a loopback address of its own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::servers::DOWNLOAD;

/// How a client behaves.
#[derive(Clone, Copy)]
pub(super) enum Habit {
    /// Loads the page some times on one connection, with pauses.
    Browses,
    /// Loads the page once on each connection.
    Visits,
    /// Sends for a minute or two, at a rate that varies.
    Uploads,
    /// Receives for as long as nobody ends the connection.
    Downloads,
}

/// The client whose connection is there to be ended.
pub(super) const DOWNLOADER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// The clients, by their addresses.
pub(super) const CLIENTS: [(Ipv4Addr, Habit); 8] = [
    (Ipv4Addr::new(127, 0, 0, 2), Habit::Browses),
    (Ipv4Addr::new(127, 0, 0, 3), Habit::Browses),
    (Ipv4Addr::new(127, 0, 0, 4), Habit::Browses),
    (Ipv4Addr::new(127, 0, 0, 5), Habit::Browses),
    (Ipv4Addr::new(127, 0, 0, 6), Habit::Visits),
    (Ipv4Addr::new(127, 0, 0, 7), Habit::Uploads),
    (Ipv4Addr::new(127, 0, 0, 8), Habit::Uploads),
    (DOWNLOADER, Habit::Downloads),
];

impl Habit {
    /// Connects from `own` to the proxy at `proxy` over and over, forever.
    pub(super) fn live(self, own: Ipv4Addr, proxy: SocketAddr) {
        let mut rng = Rng::new();
        loop {
            // A connection that coracle or a person has ended is as good as any other.
            let _ = dial(own, proxy).and_then(|stream| self.use_up(stream, &mut rng));
            let pause = match self {
                Self::Browses => 500..4000,
                Self::Visits => 200..1200,
                Self::Uploads => 1000..5000,
                Self::Downloads => 3000..5000,
            };
            wait(&mut rng, pause);
        }
    }

    fn use_up(self, mut stream: TcpStream, rng: &mut Rng) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        match self {
            Self::Browses => {
                for _ in 0..rng.u32(2..15) {
                    load(&mut stream)?;
                    wait(rng, 300..3000);
                }
                Ok(())
            }
            Self::Visits => load(&mut stream),
            Self::Uploads => {
                stream.write_all(b"POST / HTTP/1.1\r\nHost: demo\r\n\r\n")?;
                let piece = vec![b'.'; 32 * 1024];
                let mut size = piece.len() / 2;
                for _ in 0..rng.u32(300..600) {
                    size = (size * rng.usize(60..160) / 100).clamp(200, piece.len());
                    stream.write_all(&piece[..size])?;
                    wait(rng, 150..250);
                }
                Ok(())
            }
            Self::Downloads => {
                write!(stream, "GET {DOWNLOAD} HTTP/1.1\r\nHost: demo\r\n\r\n")?;
                io::copy(&mut stream, &mut io::sink()).map(drop)
            }
        }
    }
}

fn wait(rng: &mut Rng, milliseconds: std::ops::Range<u64>) {
    thread::sleep(Duration::from_millis(rng.u64(milliseconds)));
}

/// Loads the page.
fn load(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"</html>\n") {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..n]);
    }
    Ok(())
}

/// Connects from `own` to `proxy`, or from any address if the kernel does not allow that one.
fn dial(own: Ipv4Addr, proxy: SocketAddr) -> io::Result<TcpStream> {
    let from_own = || {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &SocketAddrV4::new(own, 0))?;
        connect(&socket, &proxy)?;
        rustix::io::Result::Ok(TcpStream::from(socket))
    };
    from_own().or_else(|_| TcpStream::connect(proxy))
}
