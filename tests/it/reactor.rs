//! The readiness loop against real sockets: no event is lost, none reaches the wrong stream, and
//! nothing spins.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use coracle::net::{EarlyData, Listener, Meter, Reactor, Side, Stream, relay};
use rustix::net::{SendFlags, send};
use smol::LocalExecutor;
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::support;
use crate::support::backend::{bound_but_not_listening, pattern, reset_on_close};
use crate::support::kernel::{end, has_closed_window};
use crate::support::until;

/// A stream of the loop, and its blocking peer.
pub(super) fn pair(reactor: &Rc<Reactor>) -> (Stream, TcpStream) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind_tcp(reactor, any, &coracle::net::TcpOptions::default()).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(support::DEADLINE)).unwrap();
    peer.set_nodelay(true).unwrap();
    let (stream, _) = run(reactor, listener.accept()).unwrap();
    (stream, peer)
}

/// Drives a future under the deadline of all tests.
pub(super) fn run<T>(reactor: &Rc<Reactor>, future: impl Future<Output = T>) -> T {
    let late = async {
        reactor.sleep(support::DEADLINE).await;
        panic!("the future hangs");
    };
    reactor.block_on(future.or(late))
}

/// Runs at least one iteration of the loop, which processes everything that has happened. The sleep
/// begins inside `run`; started earlier, it could end before any iteration.
fn iterate(reactor: &Rc<Reactor>) {
    run(reactor, async {
        reactor.sleep(Duration::from_millis(1)).await;
    });
}

async fn recv(stream: &Stream, buffer: &mut [u8]) -> std::io::Result<usize> {
    poll_fn(|cx| stream.poll_recv(cx, buffer)).await
}

/// Reads until nothing is left, so that the next read must wait.
fn drain(stream: &Stream) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(read) = stream.poll_recv(&mut cx, &mut [0; 1024]) {
        assert_ne!(read.unwrap(), 0);
    }
}

/// Counts what passes.
#[derive(Default)]
pub(super) struct Count {
    bytes: [Cell<usize>; 2],
    finished: Cell<usize>,
}

impl Count {
    pub(super) fn bytes_from(&self, side: Side) -> usize {
        self.bytes[side as usize].get()
    }
}

impl Meter for Count {
    fn moved(&self, from: Side, bytes: usize) {
        let cell = &self.bytes[from as usize];
        cell.set(cell.get() + bytes);
    }

    fn finished(&self, _: Side) {
        self.finished.set(self.finished.get() + 1);
    }
}

#[test]
fn bytes_before_the_first_poll_are_not_missed() {
    let reactor = Reactor::new().unwrap();
    let (stream, mut peer) = pair(&reactor);
    drain(&stream);
    peer.write_all(b"early").unwrap();
    let mut buffer = [0; 16];
    // First without a wait, then after an iteration in which nothing waited for it.
    assert_eq!(run(&reactor, recv(&stream, &mut buffer)).unwrap(), 5);
    peer.write_all(b"again").unwrap();
    iterate(&reactor);
    assert_eq!(run(&reactor, recv(&stream, &mut buffer)).unwrap(), 5);
}

#[test]
fn data_and_fin_in_one_edge_are_both_seen() {
    let reactor = Reactor::new().unwrap();
    for _ in 0..50 {
        let (stream, mut peer) = pair(&reactor);
        drain(&stream);
        let mut buffer = [0; 16];
        peer.write_all(b"last").unwrap();
        drop(peer);
        assert_eq!(run(&reactor, recv(&stream, &mut buffer)).unwrap(), 4);
        assert_eq!(run(&reactor, recv(&stream, &mut buffer)).unwrap(), 0);
        assert_eq!(run(&reactor, recv(&stream, &mut buffer)).unwrap(), 0);
    }
}

#[test]
fn data_and_reset_in_one_edge_do_not_look_like_eof() {
    let reactor = Reactor::new().unwrap();
    for _ in 0..50 {
        let (stream, mut peer) = pair(&reactor);
        drain(&stream);
        let mut buffer = [0; 16];
        peer.write_all(b"last").unwrap();
        reset_on_close(&peer);
        drop(peer);
        let error = loop {
            match run(&reactor, recv(&stream, &mut buffer)) {
                Ok(n) => assert_ne!(n, 0, "a reset looks like EOF"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn bytes_after_urgent_data_are_read() {
    let reactor = Reactor::new().unwrap();
    let (stream, mut peer) = pair(&reactor);
    drain(&stream);
    peer.write_all(b"abc").unwrap();
    send(&peer, b"!", SendFlags::OOB).unwrap();
    peer.write_all(b"def").unwrap();
    iterate(&reactor);
    let mut all = Vec::new();
    while all.len() < 6 {
        let mut buffer = [0; 16];
        let n = run(&reactor, recv(&stream, &mut buffer)).unwrap();
        all.extend_from_slice(&buffer[..n]);
    }
    assert_eq!(all, b"abcdef");
}

#[test]
fn one_event_serves_both_directions() {
    let reactor = Reactor::new().unwrap();
    let (stream, mut peer) = pair(&reactor);
    drain(&stream);
    let mut cx = Context::from_waker(Waker::noop());
    // Its send buffer is full, and nothing has arrived.
    let chunk = vec![1; 1 << 20];
    let mut sent = 0;
    while let Poll::Ready(n) = stream.poll_send(&mut cx, &chunk) {
        sent += n.unwrap();
    }
    peer.write_all(b"x").unwrap();
    let mut left = vec![0; sent];
    peer.read_exact(&mut left).unwrap();
    // Both have happened before the loop looks next.
    let peer_port = peer.local_addr().unwrap().port();
    until(
        "its bytes are acknowledged and the byte has arrived",
        || {
            let own = end(peer.peer_addr().unwrap().port(), peer_port)?;
            ((own.send_queue, own.receive_queue) == (0, 1)).then_some(())
        },
    );
    let mut wakes = 0;
    run(
        &reactor,
        poll_fn(|cx| {
            wakes += 1;
            let mut byte = [0];
            let can_read = stream.poll_recv(cx, &mut byte).is_ready();
            let can_write = stream.poll_send(cx, b"y").is_ready();
            assert!(wakes < 10, "only one direction was reported");
            match can_read || can_write {
                true if can_read && can_write => Poll::Ready(()),
                true => panic!("read: {can_read}, write: {can_write}"),
                false => Poll::Pending,
            }
        }),
    );
}

#[test]
fn stream_dropped_while_its_task_waits_leaves_nothing_behind() {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new();
    let (stream, mut peer) = pair(&reactor);
    drain(&stream);
    let task = executor.spawn(async move { recv(&stream, &mut [0]).await });
    run(
        &reactor,
        executor.run(async {
            reactor.sleep(Duration::from_millis(5)).await;
            assert!(task.cancel().await.is_none());
        }),
    );
    // The peer sees the end, and no waker of the dropped stream is woken.
    assert!(peer.read(&mut [0]).is_err());
    let _ = peer.write(b"x");
    iterate(&reactor);
}

thread_local! {
    /// What [`Act`] does.
    static ACT: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A waker that acts immediately, in the middle of an iteration.
struct Act;

impl Wake for Act {
    fn wake(self: Arc<Self>) {
        if let Some(act) = ACT.take() {
            act();
        }
    }
}

#[test]
fn event_of_a_dropped_stream_does_not_reach_its_successor() {
    let reactor = Reactor::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..50 {
        let (first, mut first_peer) = pair(&reactor);
        let (victim, victim_peer) = pair(&reactor);
        drain(&first);
        drain(&victim);
        // One iteration reports both, this one first. It drops the other, whose slot is reused
        // before its event is handled.
        let next = Rc::new(RefCell::new(None));
        let (slot, in_turn) = (next.clone(), reactor.clone());
        ACT.set(Some(Box::new(move || {
            drop(victim);
            *slot.borrow_mut() = Some(Stream::start_tcp(&in_turn, address, None).unwrap());
        })));
        let waker = Waker::from(Arc::new(Act));
        let mut cx = Context::from_waker(&waker);
        assert!(first.poll_recv(&mut cx, &mut [0; 8]).is_pending());
        first_peer.write_all(b"1").unwrap();
        drop(victim_peer);
        let next = until("the first is woken", || {
            iterate(&reactor);
            next.take()
        });
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"abc").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(run(&reactor, recv(&next, &mut buffer)).unwrap(), 3);
        // With the other's FIN, the stream would take this for EOF.
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.poll_recv(&mut cx, &mut buffer).is_pending());
    }
}

#[test]
fn trickle_of_single_bytes_arrives_whole() {
    let reactor = Reactor::new().unwrap();
    let (stream, mut peer) = pair(&reactor);
    let bytes = pattern(2_000);
    let sent = bytes.clone();
    let sending = thread::spawn(move || {
        for byte in sent {
            peer.write_all(&[byte]).unwrap();
        }
    });
    let mut all = Vec::new();
    run(&reactor, async {
        loop {
            let mut buffer = [0; 3];
            match recv(&stream, &mut buffer).await.unwrap() {
                0 => break,
                n => all.extend_from_slice(&buffer[..n]),
            }
        }
    });
    sending.join().unwrap();
    assert!(all == bytes);
}

#[test]
fn stream_implements_async_read_and_write() {
    let reactor = Reactor::new().unwrap();
    let (mut stream, mut peer) = pair(&reactor);
    peer.write_all(b"question").unwrap();
    run(&reactor, async {
        let mut question = [0; 8];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        stream.write_all(b"answer").await.unwrap();
        stream.close().await.unwrap();
        stream.finish();
    });
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

/// Far above what is copied: it is spliced.
const LONG: usize = 24 << 20;

/// Drives a relay between two peers to its end; `act` runs on its own thread with the two outer
/// ends.
fn relayed(reactor: &Rc<Reactor>, act: impl FnOnce(TcpStream, TcpStream) + Send) -> Count {
    let (client, client_peer) = pair(reactor);
    let (server, server_peer) = pair(reactor);
    let count = Count::default();
    thread::scope(|scope| {
        let acting = scope.spawn(|| act(client_peer, server_peer));
        run(
            reactor,
            relay(&client, &server, EarlyData::of(&client).into_read(), &count),
        )
        .unwrap();
        drop((client, server));
        acting.join().unwrap();
    });
    count
}

#[test]
fn spliced_stream_blocks_on_either_side_of_the_pipe_and_arrives_whole() {
    let reactor = Reactor::new().unwrap();
    for slow_reader in [true, false] {
        let pause = Duration::from_millis(3);
        let count = relayed(&reactor, |mut sender, mut receiver| {
            let sending = thread::spawn(move || {
                for (i, chunk) in pattern(LONG).chunks(1 << 20).enumerate() {
                    if !slow_reader && i % 3 == 0 {
                        // The pipe is empty: the loop waits for the sender.
                        thread::sleep(pause);
                    }
                    sender.write_all(chunk).unwrap();
                }
                sender.shutdown(Shutdown::Write).unwrap();
                sender
            });
            let mut all = vec![0; LONG];
            for chunk in all.chunks_mut(1 << 20) {
                if slow_reader {
                    // The pipe is full: the loop waits for the receiver.
                    thread::sleep(pause);
                }
                receiver.read_exact(chunk).unwrap();
            }
            assert_eq!(receiver.read(&mut [0]).unwrap(), 0);
            assert!(all == pattern(LONG));
            drop(receiver);
            drop(sending.join().unwrap());
        });
        assert_eq!(count.bytes[Side::Client as usize].get(), LONG);
        assert_eq!(count.bytes[Side::Server as usize].get(), 0);
        assert_eq!(count.finished.get(), 2);
    }
}

#[test]
fn without_a_pipe_long_streams_and_later_messages_are_copied() {
    let reactor = Reactor::new().unwrap();
    for pipes in [0, 1] {
        reactor.limit_pipes(pipes);
        let count = relayed(&reactor, |mut sender, mut receiver| {
            for round in 0..3 {
                let bytes = pattern((4 << 20) + round);
                thread::scope(|scope| {
                    scope.spawn(|| sender.write_all(&bytes).unwrap());
                    let mut all = vec![0; bytes.len()];
                    receiver.read_exact(&mut all).unwrap();
                    assert!(all == bytes);
                });
                for _ in 0..100 {
                    receiver.write_all(b"ping").unwrap();
                    let mut four = [0; 4];
                    sender.read_exact(&mut four).unwrap();
                    sender.write_all(&four).unwrap();
                    receiver.read_exact(&mut four).unwrap();
                    assert_eq!(&four, b"ping");
                }
            }
        });
        assert_eq!(count.bytes[Side::Server as usize].get(), 1_200);
    }
}

#[test]
fn urgent_data_does_not_truncate_a_long_stream() {
    let reactor = Reactor::new().unwrap();
    relayed(&reactor, |mut sender, mut receiver| {
        let sending = thread::spawn(move || {
            // Only once: TCP has one urgent mark, and a second turns the first byte into an
            // ordinary one.
            let bytes = pattern(LONG);
            let (before, after) = bytes.split_at(LONG / 2);
            sender.write_all(before).unwrap();
            send(&sender, b"!", SendFlags::OOB).unwrap();
            sender.write_all(after).unwrap();
            sender
        });
        let mut all = vec![0; LONG];
        receiver.read_exact(&mut all).unwrap();
        assert!(all == pattern(LONG));
        drop(sending.join().unwrap());
        assert_eq!(receiver.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn two_fast_streams_do_not_starve_a_slow_one() {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new();
    for _ in 0..2 {
        let (client, mut sender) = pair(&reactor);
        let (server, mut receiver) = pair(&reactor);
        thread::spawn(move || {
            let chunk = vec![1; 1 << 20];
            while sender.write_all(&chunk).is_ok() {}
        });
        thread::spawn(move || {
            let mut chunk = vec![1; 1 << 20];
            while receiver.read(&mut chunk).is_ok_and(|n| n > 0) {}
        });
        let fast = async move {
            let _ = relay(
                &client,
                &server,
                EarlyData::of(&client).into_read(),
                &Count::default(),
            )
            .await;
        };
        executor.spawn(fast).detach();
    }
    let (mut slow, mut peer) = pair(&reactor);
    let asking = thread::spawn(move || {
        for _ in 0..200 {
            peer.write_all(b"?").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
    });
    run(
        &reactor,
        executor.run(async {
            for _ in 0..200 {
                slow.read_exact(&mut [0]).await.unwrap();
                slow.write_all(b"!").await.unwrap();
            }
        }),
    );
    asking.join().unwrap();
}

#[test]
fn pipe_with_bytes_left_in_it_is_never_reused() {
    let reactor = Reactor::new().unwrap();
    reactor.limit_pipes(1);
    for _ in 0..5 {
        let (client, mut sender) = pair(&reactor);
        let (server, receiver) = pair(&reactor);
        let sending = thread::spawn(move || {
            // It ends when the relay is dropped.
            let chunk = vec![0xff; 1 << 20];
            while sender.write_all(&chunk).is_ok() {}
        });
        run(&reactor, async {
            let count = Count::default();
            let stuck = relay(&client, &server, EarlyData::of(&client).into_read(), &count);
            let stuck = async { drop(stuck.await) };
            let port = receiver.local_addr().unwrap().port();
            let own_port = receiver.peer_addr().unwrap().port();
            let blocked = async {
                while !has_closed_window(own_port, port) {
                    reactor.sleep(Duration::from_millis(5)).await;
                }
                // The next iterations handle what has arrived so far.
                reactor.sleep(Duration::from_millis(5)).await;
            };
            stuck.or(blocked).await;
        });
        drop((client, server, receiver));
        sending.join().unwrap();
        relayed(&reactor, |mut sender, mut receiver| {
            let bytes = pattern(8 << 20);
            thread::scope(|scope| {
                scope.spawn(|| sender.write_all(&bytes).unwrap());
                let mut all = vec![0; bytes.len()];
                receiver.read_exact(&mut all).unwrap();
                assert!(all == bytes, "bytes of another stream");
            });
        });
    }
}

/// The most that passed in one iteration of the loop.
struct PerTurn {
    reactor: Rc<Reactor>,
    iteration: Cell<Instant>,
    bytes: Cell<usize>,
    most: Rc<Cell<usize>>,
}

impl Meter for PerTurn {
    fn moved(&self, _: Side, bytes: usize) {
        if self.iteration.replace(self.reactor.now()) != self.reactor.now() {
            self.bytes.set(0);
        }
        self.bytes.set(self.bytes.get() + bytes);
        self.most.set(self.most.get().max(self.bytes.get()));
    }

    fn finished(&self, _: Side) {}
}

#[test]
fn fast_stream_stops_at_its_budget() {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new();
    let (client, mut sender) = pair(&reactor);
    let (server, mut receiver) = pair(&reactor);
    let sending = thread::spawn(move || {
        let chunk = vec![1; 1 << 20];
        (0..64).for_each(|_| sender.write_all(&chunk).unwrap());
    });
    let receiving = thread::spawn(move || {
        std::io::copy(&mut receiver, &mut std::io::sink()).unwrap();
    });
    let most = Rc::new(Cell::new(0));
    let meter = PerTurn {
        reactor: reactor.clone(),
        iteration: Cell::new(reactor.now()),
        bytes: Cell::new(0),
        most: most.clone(),
    };
    let task = executor.spawn(async move {
        let _ = relay(&client, &server, EarlyData::of(&client).into_read(), &meter).await;
    });
    run(&reactor, executor.run(task));
    sending.join().unwrap();
    receiving.join().unwrap();
    // 1 MiB, or slightly more if bytes held from before are added.
    let most = most.get();
    assert!(most > 0 && most <= 2 << 20, "{most} bytes in one iteration");
}

#[test]
fn another_thread_wakes_the_loop_awake_or_asleep() {
    let reactor = Reactor::new().unwrap();
    for i in 0..200 {
        let (sender, receiver) = smol::channel::bounded(1);
        let sending = thread::spawn(move || {
            if i % 2 == 0 {
                thread::sleep(Duration::from_micros(i * 10));
            }
            sender.try_send(i).unwrap();
        });
        assert_eq!(run(&reactor, receiver.recv()).unwrap(), i);
        sending.join().unwrap();
    }
}

#[test]
fn timers_fire_in_deadline_order_and_not_early() {
    let reactor = Reactor::new().unwrap();
    let executor = LocalExecutor::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    let begun = reactor.now();
    let sleepers = [30, 10, 20, 10, 0, 25].map(|millis| {
        let (order, reactor) = (order.clone(), reactor.clone());
        executor.spawn(async move {
            let deadline = begun + Duration::from_millis(millis);
            reactor.sleep_until(deadline).await;
            assert!(reactor.now() >= deadline);
            order.borrow_mut().push(millis);
        })
    });
    // Disarmed: it never fires.
    drop(reactor.sleep(Duration::from_millis(1)));
    run(
        &reactor,
        executor.run(async {
            for sleeper in sleepers {
                sleeper.await;
            }
        }),
    );
    assert_eq!(*order.borrow(), [0, 10, 10, 20, 25, 30]);
}

#[test]
fn stream_is_not_connected_before_the_kernel_reports_it() {
    let reactor = Reactor::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = Stream::start_tcp(&reactor, address, None).unwrap();
    run(&reactor, poll_fn(|cx| stream.poll_connected(cx))).unwrap();
    let refusing = bound_but_not_listening();
    let address = refusing.local_addr().unwrap().as_socket().unwrap();
    let refused = Stream::start_tcp(&reactor, address, None).unwrap();
    let error = run(&reactor, poll_fn(|cx| refused.poll_connected(cx))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn server_that_resets_on_connect_is_heard_rather_than_refused() {
    let reactor = Reactor::new().unwrap();
    let (client, mut client_peer) = pair(&reactor);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Stream::start_tcp(&reactor, address, None).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"too busy").unwrap();
    reset_on_close(&accepted);
    drop(accepted);
    run(&reactor, poll_fn(|cx| server.poll_connected(cx))).unwrap();
    let count = Count::default();
    let relay = relay(&client, &server, EarlyData::of(&client).into_read(), &count);
    let broken = run(&reactor, relay).unwrap_err();
    assert_eq!(broken.side, Side::Server);
    assert_eq!(broken.error.kind(), std::io::ErrorKind::ConnectionReset);
    drop((client, server));
    let mut heard = Vec::new();
    let error = client_peer.read_to_end(&mut heard).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(heard, b"too busy");
}
