//! What passes through the real binary: every byte, every FIN, every reset, over each kind of
//! address.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use sha2::{Digest, Sha256};

use crate::support;
use crate::support::backend::{self, LATE_BYTES, Script, Silent, hold, pattern, reset_on_close};
use crate::support::kernel::{TcpSocket, tcp_sockets};
use crate::support::metrics::scrape;
use crate::support::process::Coracle;
use crate::support::rng::{self, Rng};
use crate::support::{until, until_ok};

/// One entrypoint `e` to this address, with extra lines.
fn coracle_to(to: &str, more: &str) -> Coracle {
    Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n{more}\n"
    ))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

fn closed(coracle: &Coracle, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    scrape(coracle.admin).sum_where("coracle_connections_closed_total", &label)
}

fn wait_closed(coracle: &Coracle, reason: &str) {
    until(&format!("a connection closed by {reason}"), || {
        (closed(coracle, reason) > 0.0).then_some(())
    });
}

#[test]
fn response_three_seconds_after_half_close_arrives_whole() {
    let coracle = coracle_to(&backend::start().to_string(), "");
    let mut stream = connect(coracle.address("e"));
    stream
        .write_all(&Script::AnswerLate.request(3_000))
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == pattern(LATE_BYTES), "{} bytes came", answer.len());
    drop(stream);
    wait_closed(&coracle, "done");
}

#[test]
fn sixty_four_mebibytes_pass_both_ways_to_slow_readers() {
    const BYTES: usize = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    let client = connect(coracle.address("e"));
    let (server, _) = listener.accept().unwrap();
    let mut rng = rng::from_env();
    thread::scope(|scope| {
        let ends = [(&client, &server), (&server, &client)];
        let hashes = ends.map(|(sender, receiver)| {
            let mut data = rng.fork();
            let mut pauses = rng.fork();
            let sent = scope.spawn(move || {
                let hash = send_random(sender, BYTES, &mut data);
                sender.shutdown(Shutdown::Write).unwrap();
                hash
            });
            let received = scope.spawn(move || read_slowly(receiver, &mut pauses));
            (sent, received)
        });
        for (sent, received) in hashes {
            let (n, hash) = received.join().unwrap();
            assert_eq!(n, BYTES);
            assert_eq!(hash, sent.join().unwrap());
        }
    });
    drop((client, server));
    wait_closed(&coracle, "done");
    let metrics = scrape(coracle.admin);
    for direction in ["to_server", "to_client"] {
        let label = format!("direction=\"{direction}\"");
        let counted = metrics.sum_where("coracle_bytes_total", &label);
        assert_eq!(counted, BYTES as f64, "{direction}");
    }
}

fn send_random(mut stream: &TcpStream, n: usize, rng: &mut Rng) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    for _ in 0..n / chunk.len() {
        rng.fill(&mut chunk);
        hash.update(&chunk);
        stream.write_all(&chunk).unwrap();
    }
    hash.finalize().to_vec()
}

/// Reads to EOF in odd sizes, pausing now and then, so that the sender blocks repeatedly.
fn read_slowly(mut stream: &TcpStream, rng: &mut Rng) -> (usize, Vec<u8>) {
    let mut hash = Sha256::new();
    let mut total = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let size = 1 + rng.usize(..buffer.len());
        let n = stream.read(&mut buffer[..size]).unwrap();
        if n == 0 {
            return (total, hash.finalize().to_vec());
        }
        total += n;
        hash.update(&buffer[..n]);
        if rng.u64(..50) == 0 {
            // This test needs a slow reader.
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Stalled receivers release their pipes, so that other streams can be spliced.
#[test]
fn stalled_downloads_release_their_pipes() {
    /// More than there are pipes.
    const STALLED: usize = 12;
    let coracle = coracle_to(&backend::start().to_string(), "");
    let pipes = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", coracle.pid())).unwrap();
        let targets = descriptors
            .flatten()
            .filter_map(|it| std::fs::read_link(it.path()).ok());
        targets
            .filter(|it| it.to_string_lossy().starts_with("pipe:"))
            .count()
    };
    // Its standard error is one.
    let before = pipes();
    let stalled: Vec<_> = (0..STALLED)
        .map(|_| {
            let mut stream = connect(coracle.address("e"));
            let request = Script::SendAndClose.request(64 << 20);
            stream.write_all(&request).unwrap();
            stream
        })
        .collect();
    until("pipes are in use", || (pipes() > before).then_some(()));
    until("no pipe is held", || (pipes() == before).then_some(()));
    // No bytes are lost between a pipe and memory.
    for mut stream in stalled {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer == pattern(64 << 20), "{} bytes came", answer.len());
    }
}

#[test]
fn blocked_receiver_stops_reads_from_the_sender() {
    holds_little_for_a_receiver_that_stops_after(0);
}

/// By then the pieces fill the receiver's window, which closes when it stops.
#[test]
fn receiver_that_stalls_after_a_fast_start_stops_reads_from_the_sender() {
    holds_little_for_a_receiver_that_stops_after(64 << 20);
}

fn holds_little_for_a_receiver_that_stops_after(taken: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    let client = connect(coracle.address("e"));
    let (server, _) = listener.accept().unwrap();
    let receiver = server.try_clone().unwrap();
    let receiving = thread::spawn(move || {
        let copied = std::io::copy(&mut receiver.take(taken as u64), &mut std::io::sink());
        assert_eq!(copied.unwrap(), taken as u64);
    });
    let a_while = Duration::from_millis(100);
    client.set_write_timeout(Some(a_while)).unwrap();
    let chunk = vec![7; 64 * 1024];
    let mut sent = 0;
    // The sender is stuck once neither it nor the bytes that coracle passed on move. A slow machine
    // may look the same for a moment, so the bytes held only have to become few.
    let mut last = (0, -1.0);
    until_ok("little is held while the sender is blocked", || {
        while let Ok(n) = (&client).write(&chunk) {
            sent += n;
        }
        let in_kernel = unread_by_coracle(coracle.address("e").port());
        let passed = scrape(coracle.admin).sum("coracle_bytes_total");
        let is_stuck = last == (sent, passed) && sent >= taken && receiving.is_finished();
        last = (sent, passed);
        let held = sent as f64 - passed - in_kernel;
        // By then the stream is spliced, so bytes in the pipe count.
        match is_stuck && held <= 64.0 * 1024.0 {
            true => Ok(()),
            false => Err(format!(
                "({held} bytes are held, {in_kernel} are not read; the sender is blocked: {is_stuck})"
            )),
        }
    });
    receiving.join().unwrap();
    // All of it arrives once the receiver reads.
    client.shutdown(Shutdown::Write).unwrap();
    let n = std::io::copy(&mut &server, &mut std::io::sink()).unwrap();
    assert_eq!(n as usize + taken, sent);
}

/// Bytes between the client and coracle's reads: in coracle's receive queue and the client's send
/// queue.
fn unread_by_coracle(port: u16) -> f64 {
    let sockets = tcp_sockets();
    let queues = sockets.iter().filter(|socket| !socket.listens);
    let queues = queues.map(|socket| match port {
        port if port == socket.local_port => socket.receive_queue,
        port if port == socket.remote_port => socket.send_queue,
        _ => 0,
    });
    queues.sum::<u64>() as f64
}

#[test]
fn reset_on_one_side_resets_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let coracle = coracle_to(&listener.local_addr().unwrap().to_string(), "");
    for half_closed in [false, true] {
        for client_resets in [true, false] {
            let client = connect(coracle.address("e"));
            let (server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(support::DEADLINE)).unwrap();
            let (resetting, mut other) = match client_resets {
                true => (client, server),
                false => (server, client),
            };
            if half_closed {
                // The side that resets has finished sending, and the other has seen it.
                resetting.shutdown(Shutdown::Write).unwrap();
                assert_eq!(other.read(&mut [0]).unwrap(), 0);
            }
            reset_on_close(&resetting);
            drop(resetting);
            if half_closed {
                until("writing to it fails", || other.write(b"x").err());
            } else {
                let error = other.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    }
    until("all count as reset", || {
        let both = (
            closed(&coracle, "client_reset"),
            closed(&coracle, "server_reset"),
        );
        (both == (2.0, 2.0)).then_some(())
    });
}

#[test]
fn client_of_a_refusing_server_is_reset_and_the_cause_logged() {
    let socket = backend::bound_but_not_listening();
    let refusing = socket.local_addr().unwrap().as_socket().unwrap();
    let coracle = coracle_to(&refusing.to_string(), "");
    let error = connect(coracle.address("e")).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let line = coracle.logged(&format!("entrypoint=e server={refusing}"));
    assert!(line.contains("refused"), "{line}");
    let metrics = scrape(coracle.admin);
    assert_eq!(
        metrics.sum_where("coracle_connect_errors_total", "reason=\"refused\""),
        1.0
    );
}

#[test]
fn next_server_takes_over_from_one_that_refuses() {
    let socket = backend::bound_but_not_listening();
    let refusing = socket.local_addr().unwrap().as_socket().unwrap();
    let good = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"{refusing}\", \"{good}\"]\n"
    ));
    for _ in 0..4 {
        hold(coracle.address("e"));
    }
    let metrics = scrape(coracle.admin);
    let refused = metrics.sum_where("coracle_connect_errors_total", "reason=\"refused\"");
    assert_eq!(refused, 2.0, "the servers take turns");
}

#[test]
fn idle_timeout_cuts_idle_connections_only() {
    let to = backend::start().to_string();
    // A machine that stalls for the whole timeout makes the busy connection idle too. Then the test
    // tries a longer timeout.
    let mut timeout = Duration::from_millis(400);
    while !cuts_the_idle_one_alone(&to, timeout) {
        timeout *= 4;
        assert!(timeout < support::DEADLINE, "{timeout:?}");
    }
}

/// Returns false if the busy connection was cut as well, after a silence long enough to justify it.
fn cuts_the_idle_one_alone(to: &str, timeout: Duration) -> bool {
    let coracle = coracle_to(to, &format!("idle_timeout = \"{}ms\"", timeout.as_millis()));
    // The busy connection was last known to be active after this.
    let mut silent_since = Instant::now();
    let mut busy = connect(coracle.address("e"));
    busy.write_all(&Script::Echo.request(0)).unwrap();
    let mut idle = hold(coracle.address("e"));
    let watch = thread::spawn(move || idle.read(&mut [0]));
    loop {
        let idle_is_cut = watch.is_finished();
        let begun = Instant::now();
        let echo = busy
            .write_all(b"x")
            .and_then(|()| busy.read_exact(&mut [0]));
        if echo.is_err() {
            let silence = silent_since.elapsed();
            assert!(
                silence >= timeout,
                "cut after a silence of {silence:?}: {echo:?}"
            );
            return false;
        }
        silent_since = begun;
        if idle_is_cut {
            break;
        }
        // A pause, so that it is not busy without end.
        thread::sleep(Duration::from_millis(20));
    }
    let error = watch.join().unwrap().unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionReset,
        "a cut looks like EOF"
    );
    // By now the busy connection may be idle too.
    assert!(closed(&coracle, "idle_timeout") >= 1.0);
    true
}

/// While the process is stopped, its clock runs on, and what the peers send waits in the kernel.
#[test]
fn suspended_process_does_not_time_out_its_peers() {
    let to = backend::start().to_string();
    // As above: a machine that stalls beyond the pause makes both connections silent for the whole
    // timeout.
    let mut timeout = Duration::from_secs(2);
    while !outlasts_a_pause(&to, timeout) {
        timeout *= 4;
        assert!(timeout < support::DEADLINE, "{timeout:?}");
    }
}

/// Returns false if a connection was cut after the process had run long enough beside the pause to
/// justify it.
fn outlasts_a_pause(to: &str, timeout: Duration) -> bool {
    let coracle = coracle_to(to, &format!("idle_timeout = \"{}s\"", timeout.as_secs()));
    let begun = Instant::now();
    let mut active = hold(coracle.address("e"));
    let silent = hold(coracle.address("e"));
    coracle.pause();
    let ran = begun.elapsed();
    // The length is what this test is about: more than the timeout.
    thread::sleep(timeout * 3 / 2);
    active.write_all(b"still here").unwrap();
    let resumed = Instant::now();
    coracle.signal(Signal::CONT);
    let cut = until("bytes sent meanwhile arrive", || {
        let cut = closed(&coracle, "idle_timeout") > 0.0;
        let metrics = scrape(coracle.admin);
        let passed = metrics.sum_where("coracle_bytes_total", "direction=\"to_server\"");
        let requests = 2 * Script::Hold.request(0).len();
        let has_passed = passed == (requests + b"still here".len()) as f64;
        (has_passed || cut).then_some(cut)
    });
    if cut {
        // A sweep due when the pause begins comes a quarter of the timeout early.
        let ran = ran + resumed.elapsed();
        assert!(
            ran >= timeout * 3 / 4,
            "cut because of the suspension: {ran:?}"
        );
        return false;
    }
    // Connections that are silent while it runs are still cut.
    until("both are cut", || {
        (closed(&coracle, "idle_timeout") == 2.0).then_some(())
    });
    drop((active, silent));
    true
}

/// A signal ends the loop's wait before it has seen what happened during the pause.
#[test]
fn server_that_answers_while_suspended_is_not_too_late() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let silent = Silent::start();
    let port = silent.address.port();
    let dialling = || {
        let sockets = tcp_sockets();
        sockets.iter().filter(|it| it.remote_port == port).count()
    };
    let others = dialling();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nservice = \"s\"\n\
         [services.s]\nservers = [\"{}\"]\nconnect_timeout = \"{}s\"\n",
        silent.address,
        TIMEOUT.as_secs()
    ));
    let mut client = connect(coracle.address("e"));
    until("coracle dials", || (dialling() > others).then_some(()));
    coracle.pause();
    // From here on the server accepts everyone, on its kernel's next retry.
    let others: Vec<_> = silent.fill.iter().map(local_port).collect();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in silent.listener.incoming().flatten() {
            let is_coracle = !others.contains(&stream.peer_addr().unwrap().port());
            tell.send((stream, is_coracle)).unwrap();
        }
    });
    let mut accepted = Vec::new();
    let mut server = until("coracle's connection is accepted", || {
        while let Ok((stream, is_coracle)) = told.try_recv() {
            match is_coracle {
                true => return Some(stream),
                false => accepted.push(stream),
            }
        }
        None
    });
    // The length is what this test is about: more than the timeout.
    thread::sleep(TIMEOUT);
    coracle.signal(Signal::CONT);
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn local_port(socket: &socket2::Socket) -> u16 {
    let address = socket.local_addr().unwrap();
    address.as_socket().unwrap().port()
}

#[test]
fn half_close_timeout_cuts_a_half_closed_connection() {
    let coracle = coracle_to(
        &backend::start().to_string(),
        "half_close_timeout = \"300ms\"",
    );
    let mut whole = hold(coracle.address("e"));
    let mut half = connect(coracle.address("e"));
    half.write_all(&Script::AnswerLate.request(600_000))
        .unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let error = half.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(closed(&coracle, "half_close_timeout"), 1.0);
    whole.set_nonblocking(true).unwrap();
    assert_eq!(
        whole.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn unix_sockets_work_on_either_side() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let listener = UnixListener::bind(&back).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        }
    });
    // Left behind by a killed program: nothing listens there.
    drop(UnixListener::bind(&front).unwrap());
    let mut coracle = Coracle::start(&format!(
        "[entrypoints.u]\nlisten = \"unix:{}\"\nto = \"unix:{}\"\n",
        front.display(),
        back.display()
    ));
    let mut client = UnixStream::connect(&front).unwrap();
    let sent = pattern(3 << 20);
    let mut sender = client.try_clone().unwrap();
    let bytes = sent.clone();
    let sending = thread::spawn(move || {
        sender.write_all(&bytes).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    sending.join().unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
    coracle.signal(rustix::process::Signal::TERM);
    assert!(coracle.wait().success());
    assert!(!front.exists(), "the socket's file is left behind");
}

/// The kernel ends a read after a message that carries descriptors, even if more bytes wait.
#[test]
fn bytes_after_a_passed_descriptor_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front"), dir.path().join("back"));
    let listener = UnixListener::bind(&back).unwrap();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = \"unix:{}\"\nto = \"unix:{}\"\n",
        front.display(),
        back.display()
    ));
    let client = UnixStream::connect(&front).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    }
    for (sender, mut receiver) in [(&client, &server), (&server, &client)] {
        // Both messages wait when it reads.
        coracle.pause();
        send_with_descriptor(sender, b"A");
        (&*sender).write_all(b"B").unwrap();
        coracle.signal(Signal::CONT);
        let mut received = [0; 2];
        receiver.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"AB");
    }
}

fn send_with_descriptor(stream: &UnixStream, bytes: &[u8]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [stream.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let pieces = [IoSlice::new(bytes)];
    let sent = sendmsg(stream, &pieces, &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

#[test]
fn one_entrypoint_listens_on_ipv4_ipv6_and_both() {
    let to = backend::start();
    let coracle = Coracle::start(&format!(
        "[entrypoints.e]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\nto = \"{to}\"\n\
         [entrypoints.any]\nlisten = \"*:0\"\nto = \"{to}\"\n"
    ));
    for address in coracle.addresses("e") {
        hold(address);
    }
    let port = coracle.address("any").port();
    hold(SocketAddr::from(([127, 0, 0, 1], port)));
    hold(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
}

#[test]
fn absent_address_can_be_listened_on() {
    // 192.0.2.0/24 is reserved for documentation (RFC 5737): no machine has it.
    let coracle =
        Coracle::start("[entrypoints.e]\nlisten = \"192.0.2.1:0\"\nto = \"127.0.0.1:9\"\n");
    assert_eq!(coracle.address("e").ip().to_string(), "192.0.2.1");
}

#[test]
fn unresolvable_name_does_not_prevent_startup() {
    let port = backend::start().port();
    let coracle = Coracle::start(&format!(
        "[entrypoints.good]\nlisten = \"127.0.0.1:0\"\nto = \"localhost:{port}\"\n\
         [entrypoints.bad]\nlisten = \"127.0.0.1:0\"\nto = \"nowhere.invalid:80\"\n"
    ));
    hold(coracle.address("good"));
    let error = connect(coracle.address("bad")).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    coracle.logged("cannot resolve the name");
    let metrics = scrape(coracle.admin);
    assert_eq!(
        metrics.sum_where("coracle_connect_errors_total", "reason=\"unresolved\""),
        1.0
    );
}

#[test]
fn keepalive_runs_on_both_sides() {
    const KEEPALIVE_TIMER: u8 = 2;
    let to = backend::start();
    let coracle = coracle_to(&to.to_string(), "");
    let held = hold(coracle.address("e"));
    let client_side = (
        coracle.address("e").port(),
        held.local_addr().unwrap().port(),
    );
    let has_keep_alive = |is: &dyn Fn(&TcpSocket) -> bool| {
        let socket = tcp_sockets().into_iter().find(is)?;
        (socket.timer == KEEPALIVE_TIMER).then_some(())
    };
    until("keep-alive on the client's side", || {
        has_keep_alive(&|socket| (socket.local_port, socket.remote_port) == client_side)
    });
    // Some seconds after it connects.
    until("keep-alive on the server's side", || {
        has_keep_alive(&|socket| socket.remote_port == to.port())
    });
}
