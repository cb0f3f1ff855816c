//! Servers that go down and come back on their ports, and count their own connections.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Socket, Type};

use super::backend::reset_on_close;
use super::metrics::Metrics;
use super::rng::Rng;
use super::{DEADLINE, lasting_address, until};

const BACKLOG: i32 = 4096;

/// A server that introduces itself to each client by one byte, and then sends everything back until
/// EOF. It keeps its port while it is down.
pub struct Member {
    pub address: SocketAddr,
    pub id: u8,
    socket: Socket,
    served: Arc<Mutex<Served>>,
    hangs: Arc<Hangs>,
    accepting: Option<JoinHandle<()>>,
}

/// Whether the server leaves its connections unanswered.
#[derive(Default)]
struct Hangs {
    now: Mutex<bool>,
    no_longer: Condvar,
}

impl Hangs {
    fn set(&self, hangs: bool) {
        *self.now.lock().unwrap() = hangs;
        self.no_longer.notify_all();
    }

    fn wait(&self) {
        let hangs = self.now.lock().unwrap();
        drop(self.no_longer.wait_while(hangs, |hangs| *hangs).unwrap());
    }
}

#[derive(Default)]
struct Served {
    accepted: u64,
    open: HashMap<u64, TcpStream>,
}

impl Member {
    /// Starts a server that is up.
    pub fn up(id: u8, rng: &mut Rng) -> Self {
        let mut it = Self::down(id, rng);
        it.come();
        it
    }

    /// Starts a server that refuses connections.
    pub fn down(id: u8, rng: &mut Rng) -> Self {
        let address = lasting_address(rng);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        Self {
            address,
            id,
            socket,
            served: Arc::default(),
            hangs: Arc::default(),
            accepting: None,
        }
    }

    /// Starts as many servers that are up, with the IDs 0, 1, ...
    pub fn several(n: u8, rng: &mut Rng) -> Vec<Self> {
        (0..n).map(|id| Self::up(id, rng)).collect()
    }

    pub fn is_up(&self) -> bool {
        self.accepting.is_some()
    }

    /// Accepts connections from now on.
    pub fn come(&mut self) {
        assert!(!self.is_up());
        self.socket.listen(BACKLOG).unwrap();
        let listener = TcpListener::from(self.socket.try_clone().unwrap());
        let (served, hangs, id) = (self.served.clone(), self.hangs.clone(), self.id);
        self.accepting = Some(thread::spawn(move || {
            // Shutting the socket down ends it.
            while let Ok((stream, _)) = listener.accept() {
                hangs.wait();
                serve(stream, id, &served);
            }
        }));
    }

    /// Refuses connections from now on. Those it has stay open.
    pub fn go(&mut self) {
        self.hangs.set(false);
        self.socket.shutdown(Shutdown::Both).unwrap();
        self.accepting.take().unwrap().join().unwrap();
    }

    /// Refuses connections from now on and resets those it has, as its death would.
    pub fn die(&mut self) {
        self.go();
        for stream in self.served.lock().unwrap().open.values() {
            reset_on_close(stream);
            // Its thread wakes, and closes it.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Answers no further connection until [`Member::resume`]. The kernel accepts a few, and then
    /// drops the SYNs.
    pub fn hang(&self) {
        self.hangs.set(true);
        self.socket.listen(0).unwrap();
    }

    /// Ends what [`Member::hang`] began.
    pub fn resume(&self) {
        if self.is_up() {
            self.socket.listen(BACKLOG).unwrap();
        }
        self.hangs.set(false);
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> u64 {
        self.served.lock().unwrap().accepted
    }

    /// How many connections it has.
    pub fn open(&self) -> usize {
        self.served.lock().unwrap().open.len()
    }

    fn hang_up(&self) {
        for stream in self.served.lock().unwrap().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The value of one of its metrics, or the sum of its series that have this label.
    pub fn metric(&self, metrics: &Metrics, name: &str, label: &str) -> f64 {
        metrics.sum_of(name, &[&format!("server=\"{}\"", self.address), label])
    }

    /// Waits until it counts as up or down.
    pub fn counts_as_up(&self, admin: SocketAddr, is_up: bool) {
        until(&format!("{} counts as up: {is_up}", self.address), || {
            let metrics = super::metrics::scrape(admin);
            let up = self.metric(&metrics, "coracle_server_up", "");
            (up == f64::from(u8::from(is_up))).then_some(())
        });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.is_up() {
            self.go();
        }
        self.hang_up();
    }
}

fn serve(mut stream: TcpStream, id: u8, served: &Arc<Mutex<Served>>) {
    let mut all = served.lock().unwrap();
    all.accepted += 1;
    let number = all.accepted;
    all.open.insert(number, stream.try_clone().unwrap());
    drop(all);
    let served = served.clone();
    let thread = thread::Builder::new().stack_size(128 * 1024);
    let talk = move || {
        let _ = echo(&mut stream, id);
        // Whoever sees the connection end also sees the count without it.
        served.lock().unwrap().open.remove(&number);
    };
    drop(thread.spawn(talk).unwrap());
}

fn echo(stream: &mut TcpStream, id: u8) -> std::io::Result<()> {
    stream.write_all(&[id])?;
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n])?;
    }
}

/// A client's connection to one of the servers.
pub struct Session {
    pub stream: TcpStream,
    /// The server that it has reached.
    pub server: u8,
}

impl Session {
    /// Connects and waits for the server to introduce itself.
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// The same over a connected stream.
    pub fn over(stream: TcpStream) -> Self {
        Self::try_over(stream).unwrap()
    }

    /// The same for a stream that may fail.
    pub fn try_over(mut stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut server = [0];
        stream.read_exact(&mut server)?;
        let [server] = server;
        Ok(Self { stream, server })
    }

    /// Sends bytes and expects them back.
    pub fn echo(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        self.stream.read_exact(&mut back).unwrap();
        assert!(back == bytes, "the echo differs");
    }
}

/// Connects and expects a reset, which connect(2) itself reports if it comes at once.
pub fn is_turned_away(address: SocketAddr) {
    let read = TcpStream::connect(address).and_then(|mut client| {
        client.set_read_timeout(Some(DEADLINE))?;
        client.read(&mut [0])
    });
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// How many of the sessions each of `n` servers has.
pub fn shares(sessions: &[Session], n: u8) -> Vec<usize> {
    let of = |id| sessions.iter().filter(|it| it.server == id).count();
    (0..n).map(of).collect()
}

/// The configuration of an entrypoint `e` and its service `s` with these servers, written as a
/// string or a table each, and more settings of the service.
pub fn service(servers: &[String], settings: &str) -> String {
    let servers = servers.join(", ");
    format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [{servers}]\n{settings}\n"
    )
}

/// The servers' addresses, as strings in a configuration.
pub fn addresses(members: &[Member]) -> Vec<String> {
    members.iter().map(|it| with(it, "")).collect()
}

/// A server in a configuration, with more settings such as `, weight = 2`.
pub fn with(member: &Member, settings: &str) -> String {
    format!("{{ address = \"{}\"{settings} }}", member.address)
}

/// The same configuration with an admin endpoint and a listener that a reload leaves where they
/// are.
pub fn reloadable(admin: SocketAddr, listen: SocketAddr, config: &str) -> String {
    let config = config.replace("127.0.0.1:0", &listen.to_string());
    format!("{config}[admin]\nlisten = \"{admin}\"\nsocket = \"off\"\n")
}

/// How many connections ended by this reason.
pub fn closed(metrics: &Metrics, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    metrics.sum_where("coracle_connections_closed_total", &label)
}
