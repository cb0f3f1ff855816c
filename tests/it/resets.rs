//! What one side sends before its reset reaches the other side, followed by the reset.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::support;
use crate::support::backend::{bound_but_not_listening, pattern, reset_on_close};
use crate::support::kernel::end;
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::{DEADLINE, until};

/// How much of an upload the server reads before it answers.
const READ_BYTES: usize = 1_000;
/// Its response.
const ANSWER_BYTES: usize = 247;
/// Uploads that are answered before they end.
const UPLOADS: usize = 400;
const WORKERS: usize = 4;

/// Less than a stream moves before it is spliced.
const COPIED_BYTES: usize = 100 * 1024;
/// More than that, and less than coracle's kernel buffers hold for a receiver that does not read.
const SPLICED_BYTES: usize = 640 * 1024;

fn coracle_to(to: &str, more: &str) -> Coracle {
    Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n{more}\n"
    ))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn wait_closed(coracle: &Coracle, reason: &str, connections: usize) {
    let label = format!("reason=\"{reason}\"");
    until(
        &format!("{connections} connections closed by {reason}"),
        || {
            let closed =
                scrape(coracle.admin).sum_where("coracle_connections_closed_total", &label);
            (closed == connections as f64).then_some(())
        },
    );
}

/// Reads part of an upload, answers, and closes with the rest unread, which resets the connection.
fn answer_early(mut stream: impl Read + Write) -> std::io::Result<()> {
    stream.read_exact(&mut [0; READ_BYTES])?;
    // One more byte has arrived, so that something is certainly unread.
    stream.read_exact(&mut [0])?;
    stream.write_all(&pattern(ANSWER_BYTES))
}

/// Uploads until that fails, and then reads the response.
fn upload(address: SocketAddr) -> Vec<u8> {
    let mut stream = connect(address);
    let chunk = [7; 16 * 1024];
    let error = loop {
        if let Err(error) = stream.write_all(&chunk) {
            break error;
        }
    };
    let is_reset = matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    );
    assert!(is_reset, "{error}");
    let mut answer = Vec::new();
    // The write has reported how it ended.
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn every_upload_gets_its_answer(coracle: &Coracle) {
    let address = coracle.address("e");
    let expected = pattern(ANSWER_BYTES);
    let whole: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let answers = (0..UPLOADS / WORKERS).map(|_| upload(address));
                    answers.filter(|answer| *answer == expected).count()
                })
            })
            .collect();
        workers.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(whole, UPLOADS, "answers that arrived whole");
    wait_closed(coracle, "server_reset", UPLOADS);
}

#[test]
fn response_to_an_unfinished_upload_arrives_before_the_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_early(stream));
        }
    });
    every_upload_gets_its_answer(&coracle);
}

#[test]
fn response_from_a_unix_socket_arrives_before_the_reset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let coracle = coracle_to(&format!("unix:{}", path.display()), "");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_early(stream));
        }
    });
    every_upload_gets_its_answer(&coracle);
}

#[test]
fn unix_client_receives_the_response_to_an_unfinished_upload() {
    let dir = tempfile::tempdir().unwrap();
    let front = dir.path().join("front.sock");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"unix:{}\"\nto = \"{}\"\n",
        front.display(),
        listener.local_addr().unwrap()
    ));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_early(stream));
        }
    });
    for _ in 0..UPLOADS / WORKERS {
        let mut stream = UnixStream::connect(&front).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        while stream.write_all(&[7; 16 * 1024]).is_ok() {}
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, pattern(ANSWER_BYTES));
    }
}

/// Waits until the other side's kernel has everything that `stream` sent, and then resets it.
fn reset_once_taken(stream: TcpStream) {
    let ports = (
        stream.local_addr().unwrap().port(),
        stream.peer_addr().unwrap().port(),
    );
    until("the other side's kernel has everything", || {
        end(ports.0, ports.1)
            .is_some_and(|it| it.send_queue == 0)
            .then_some(())
    });
    reset_on_close(&stream);
    drop(stream);
}

/// Reads up to the reset. Returns what came before it.
fn read_to_reset(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let error = stream.read_to_end(&mut all).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    all
}

/// One side sends and is reset before the other has read anything.
fn all_arrives_late(bytes: usize, from_server: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    let client = connect(coracle.address("e"));
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut sender, receiver, reason) = match from_server {
        true => (server, client, "server_reset"),
        false => (client, server, "client_reset"),
    };
    sender.write_all(&pattern(bytes)).unwrap();
    reset_once_taken(sender);
    assert!(read_to_reset(receiver) == pattern(bytes));
    wait_closed(&coracle, reason, 1);
}

#[test]
fn bytes_before_a_server_reset_wait_for_a_slow_client() {
    all_arrives_late(COPIED_BYTES, true);
    all_arrives_late(SPLICED_BYTES, true);
}

#[test]
fn bytes_before_a_client_reset_wait_for_a_slow_server() {
    all_arrives_late(COPIED_BYTES, false);
    all_arrives_late(SPLICED_BYTES, false);
}

#[test]
fn idle_timeout_cuts_a_client_that_never_reads() {
    // On a machine that stalls for the whole timeout, the cut comes before the server's reset. Then
    // the test tries a longer timeout.
    let mut timeout = Duration::from_secs(1);
    while !is_cut_after_the_reset(timeout) {
        timeout *= 4;
        assert!(timeout < DEADLINE, "{timeout:?}");
    }
}

/// Returns false if the connection was cut before its server had sent everything.
fn is_cut_after_the_reset(timeout: Duration) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let idle_timeout = format!("idle_timeout = \"{}s\"", timeout.as_secs());
    let coracle = coracle_to(&to.to_string(), &idle_timeout);
    let client = connect(coracle.address("e"));
    let (mut server, peer) = listener.accept().unwrap();
    let is_cut = |server: &TcpStream| server.take_error().unwrap().is_some();
    let sent = server.write_all(&pattern(SPLICED_BYTES));
    let taken = until(
        "the other side's kernel has everything, or has reset it",
        || {
            if sent.is_err() || is_cut(&server) {
                return Some(false);
            }
            let own = end(to.port(), peer.port())?;
            (own.send_queue == 0).then_some(true)
        },
    );
    reset_on_close(&server);
    drop(server);
    wait_closed(&coracle, "idle_timeout", 1);
    drop(client);
    taken
}

/// A FIN before the reset ends the response, even if both arrive together.
#[test]
fn eof_followed_by_a_reset_is_still_eof() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    for uploads in [false, true] {
        let mut client = connect(coracle.address("e"));
        let (mut server, peer) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        until("the server has unread bytes", || {
            let server = end(listener.local_addr().unwrap().port(), peer.port());
            server.is_some_and(|it| it.receive_queue > 0).then_some(())
        });
        coracle.pause();
        server.write_all(&pattern(ANSWER_BYTES)).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        drop(server);
        // Its packets can take their time on a busy machine. If the reset came after the client has
        // finished, too, both sides would be done.
        until("coracle's kernel has the reset", || {
            let listening = listener.local_addr().unwrap().port();
            end(peer.port(), listening).is_none().then_some(())
        });
        if uploads {
            // Otherwise the upload meets the reset.
            client.write_all(b"more").unwrap();
        }
        coracle.signal(Signal::CONT);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(ANSWER_BYTES));
    }
    wait_closed(&coracle, "server_reset", 2);
}

/// A local fault says nothing about the server, which would otherwise wait for the rest forever.
#[test]
fn live_server_that_cannot_be_sent_to_is_reset() {
    if !support::can_trace() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    let mut client = connect(coracle.address("e"));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"1").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let strace = Injection::start(&coracle, "sendto", "EPIPE:when=1");
    client.write_all(b"2").unwrap();
    for mut side in [client, server] {
        let error = side.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    assert!(strace.end().iter().any(|line| line.contains("(INJECTED)")));
}

/// An strace that makes calls of coracle fail.
struct Injection {
    strace: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Injection {
    fn start(coracle: &Coracle, call: &str, error: &str) -> Self {
        let mut strace = Command::new("strace")
            .args(["-f", "-e", &format!("trace={call}"), "-e"])
            .args([&format!("inject={call}:error={error}"), "-p"])
            .arg(coracle.pid().to_string())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = lines.next().unwrap().unwrap();
        assert!(attached.contains("attached"), "{attached}");
        Self { strace, lines }
    }

    /// Ends it. Returns its output.
    fn end(mut self) -> Vec<String> {
        let strace = Pid::from_child(&self.strace);
        rustix::process::kill_process(strace, Signal::INT).unwrap();
        let lines = self.lines.map_while(Result::ok).collect();
        self.strace.wait().unwrap();
        lines
    }
}

/// Without SO_LINGER a reset is made another way: a cut must never look like EOF.
#[test]
fn reset_without_so_linger_does_not_look_like_eof() {
    if !support::can_trace() {
        return;
    }
    let refusing = bound_but_not_listening();
    let to = refusing.local_addr().unwrap().as_socket().unwrap();
    let coracle = coracle_to(&to.to_string(), "");
    let strace = Injection::start(&coracle, "setsockopt", "ENOMEM");
    let mut client = connect(coracle.address("e"));
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    let lines = strace.end();
    let mut failed = lines.iter().filter(|line| line.contains("(INJECTED)"));
    assert!(
        failed.any(|line| line.contains("SO_LINGER")),
        "SO_LINGER was not made to fail"
    );
}
