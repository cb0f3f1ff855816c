//! The relay against a model: whatever the two ends write, each receives exactly what the other
//! has sent, or, if the other resets the connection, a prefix of it and then an error.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use coracle::net::{EarlyData, Reactor, Side, relay};
use proptest::collection::vec;
use proptest::prelude::*;

use super::reactor::{Count, pair, run};
use crate::support::backend::{pattern, reset_on_close};
use crate::support::rng;

/// What one end does.
#[derive(Clone, Debug)]
struct Script {
    /// The sizes of its writes.
    writes: Vec<usize>,
    /// How much it reads at once.
    read_bytes: usize,
}

#[derive(Clone, Debug)]
struct Scene {
    scripts: [Script; 2],
    /// This end writes only after it has read to the end.
    answers_last: Option<Side>,
    /// This end resets the connection after its last write. It does not read, unless it answers
    /// last. An end that does not reset shuts down its sending side and reads to the end.
    resets: Option<Side>,
}

fn script() -> impl Strategy<Value = Script> {
    // Messages, what is copied, and what is long enough to be spliced.
    let size = prop_oneof![4 => 1..200_usize, 2 => 1..100_000_usize, 1 => 1..2_000_000_usize];
    let read_bytes = prop_oneof![Just(1_000), Just(64 << 10), Just(1 << 20)];
    (vec(size, 0..6), read_bytes).prop_map(|(writes, read_bytes)| Script { writes, read_bytes })
}

fn scene() -> impl Strategy<Value = Scene> {
    let side = || {
        prop_oneof![
            2 => Just(None),
            1 => Just(Some(Side::Client)),
            1 => Just(Some(Side::Server)),
        ]
    };
    let parts = ([script(), script()], side(), side());
    parts.prop_map(|(scripts, answers_last, resets)| Scene {
        scripts,
        answers_last,
        resets,
    })
}

/// What one end has seen.
struct Seen {
    bytes: Vec<u8>,
    /// Its own end of the connection broke under a read or a write.
    is_broken: bool,
}

impl Scene {
    fn script(&self, side: Side) -> &Script {
        &self.scripts[side as usize]
    }

    fn bytes_of(&self, side: Side) -> Vec<u8> {
        let bytes = pattern(self.script(side).writes.iter().sum());
        match side {
            Side::Client => bytes,
            Side::Server => bytes.iter().map(|byte| !byte).collect(),
        }
    }

    /// Plays one end. `None` if it has not read.
    fn play(&self, side: Side, stream: TcpStream) -> Option<Seen> {
        let resets = self.resets == Some(side);
        if resets {
            reset_on_close(&stream);
        }
        if self.answers_last == Some(side) {
            let mut seen = self.read(side, &stream);
            seen.is_broken |= !seen.is_broken && self.write(side, &stream).is_err();
            return Some(seen);
        }
        if resets {
            // It may break only by its own reset.
            self.write(side, &stream).unwrap();
            return None;
        }
        let (mut seen, written) = thread::scope(|scope| {
            let writing = scope.spawn(|| self.write(side, &stream));
            (self.read(side, &stream), writing.join().unwrap())
        });
        // A reset is reported once, to whichever call comes first.
        seen.is_broken |= written.is_err();
        Some(seen)
    }

    fn write(&self, side: Side, mut stream: &TcpStream) -> io::Result<()> {
        let bytes = self.bytes_of(side);
        let mut rest = &bytes[..];
        for n in &self.script(side).writes {
            let (chunk, behind) = rest.split_at(*n);
            stream.write_all(chunk)?;
            rest = behind;
        }
        match self.resets == Some(side) {
            true => Ok(()),
            false => stream.shutdown(Shutdown::Write),
        }
    }

    fn read(&self, side: Side, mut stream: &TcpStream) -> Seen {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; self.script(side).read_bytes];
        let is_broken = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(_) => break true,
            }
        };
        Seen { bytes, is_broken }
    }
}

proptest! {
    #![proptest_config(rng::cases(60))]

    #[test]
    fn each_end_receives_exactly_what_the_other_sends(scene in scene()) {
        let reactor = Reactor::new().unwrap();
        let (client, client_peer) = pair(&reactor);
        let (server, server_peer) = pair(&reactor);
        let count = Count::default();
        let (relayed, seen) = thread::scope(|scope| {
            let ends = [(Side::Client, client_peer), (Side::Server, server_peer)];
            let ends = ends.map(|(side, peer)| {
                let scene = &scene;
                (side, scope.spawn(move || scene.play(side, peer)))
            });
            let early_data = EarlyData::of(&client).into_read();
            let relayed = run(&reactor, relay(&client, &server, early_data, &count));
            drop((client, server));
            (relayed, ends.map(|(side, end)| (side, end.join().unwrap())))
        });
        prop_assert_eq!(relayed.err().map(|broken| broken.side), scene.resets);
        for (side, seen) in seen {
            let other = match side {
                Side::Client => Side::Server,
                Side::Server => Side::Client,
            };
            let sent = scene.bytes_of(other);
            let passed = count.bytes_from(other);
            prop_assert!(passed <= sent.len(), "{} bytes of {}", passed, sent.len());
            let Some(seen) = seen else { continue };
            let received = seen.bytes.len();
            prop_assert!(sent.starts_with(&seen.bytes), "{:?}: other bytes", side);
            if scene.resets == Some(other) {
                prop_assert!(seen.is_broken, "{:?}: the reset looks like EOF", side);
            } else {
                prop_assert!(received == sent.len(), "{:?}: {} received", side, received);
                prop_assert_eq!(passed, sent.len());
            }
            if scene.resets.is_none() {
                prop_assert!(!seen.is_broken, "{:?}: broken", side);
            }
        }
    }
}
