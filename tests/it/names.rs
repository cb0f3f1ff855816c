//! Name resolution: on threads started once, fair, and at the cost of one waker per waiting
//! connection.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use coracle::net::{Names, Reactor};
use rustix::process::Signal;
use smol::LocalExecutor;
use smol::future::FutureExt;

use crate::support;
use crate::support::backend::{self, Script};
use crate::support::process::{Coracle, binary};
use crate::support::{has_tool, until};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Drives the lookups while `test` runs.
fn while_fresh(reactor: &Rc<Reactor>, names: &Rc<Names>, test: impl Future<Output = ()>) {
    let executor = LocalExecutor::new();
    let looking_up = names.clone().keep_fresh(reactor.clone());
    executor.spawn(looking_up).detach();
    let late = async {
        reactor.sleep(support::DEADLINE).await;
        panic!("no answer");
    };
    reactor.block_on(executor.run(test.or(late)));
}

#[test]
fn name_is_looked_up_once_for_all_waiters() {
    let reactor = Reactor::new().unwrap();
    let names = Rc::<Names>::default();
    let [local, nowhere] = ["localhost", "nowhere.invalid"].map(|name| names.hold(name).unwrap());
    assert!(Rc::ptr_eq(&local, &names.hold("localhost").unwrap()));
    while_fresh(&reactor, &names, async {
        for _ in 0..2 {
            let known = names.addresses(&local).await.unwrap();
            assert!(known.contains(&V4) || known.contains(&V6));
            assert!(names.addresses(&nowhere).await.is_err());
        }
    });
}

#[test]
fn eight_hung_lookups_do_not_delay_a_healthy_one() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let (begin, begun) = smol::channel::unbounded();
    let resolver = Arc::new(move |name: &str| {
        if name == "healthy" {
            return Ok(vec![V4]);
        }
        let _ = begin.try_send(());
        // Until the test is over and the sender is gone.
        let _ = released.lock().unwrap().recv();
        Err(io::Error::other("it hangs"))
    });
    let hanging = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let names = Rc::new(Names::resolved_by(resolver));
    let hanging = hanging.map(|name| names.hold(name).unwrap());
    let healthy = names.hold("healthy").unwrap();
    let reactor = Reactor::new().unwrap();
    while_fresh(&reactor, &names, async {
        // As many as may hang do so before the healthy name is requested.
        for _ in 0..3 {
            begun.recv().await.unwrap();
        }
        let healthy = names.addresses(&healthy).await;
        assert_eq!(healthy.unwrap()[..], [V4]);
        for name in &hanging {
            assert!(names.known(name).is_none());
        }
    });
    drop(release);
}

#[test]
fn waiting_connection_keeps_one_waker_however_often_it_is_polled() {
    let names = Rc::new(Names::resolved_by(Arc::new(|_: &str| Ok(vec![V4]))));
    let slow = names.hold("slow").unwrap();
    let woken = Arc::<Woken>::default();
    let reactor = Reactor::new().unwrap();
    let waiting = names.addresses(&slow);
    let mut waiting = pin!(waiting);
    for _ in 0..1000 {
        // Each time through another waker for the same task, as an executor may do.
        let waker = Waker::from(Arc::new(Again(woken.clone())));
        let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    while_fresh(&reactor, &names, async {
        names.addresses(&slow).await.unwrap();
    });
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
}

#[test]
fn unused_name_is_no_longer_looked_up() {
    let (asked, asks) = smol::channel::unbounded();
    let resolver = Arc::new(move |name: &str| {
        let _ = asked.try_send(name.to_owned());
        Err(io::Error::other("not now"))
    });
    let names = Rc::new(Names::resolved_by(resolver));
    let reactor = Reactor::new().unwrap();
    let (gone, stays) = (names.hold("gone").unwrap(), names.hold("stays").unwrap());
    while_fresh(&reactor, &names, async {
        assert!(names.addresses(&gone).await.is_err());
        assert!(names.addresses(&stays).await.is_err());
        drop(gone);
        while asks.try_recv().is_ok() {}
        // Both would be looked up again after a second.
        for _ in 0..2 {
            assert_eq!(asks.recv().await.unwrap(), "stays");
        }
        // A new holder starts afresh.
        let again = names.hold("gone").unwrap();
        assert!(names.known(&again).is_none());
        assert!(names.addresses(&again).await.is_err());
    });
}

#[derive(Default)]
struct Woken(AtomicUsize);

struct Again(Arc<Woken>);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// With two names, one of which does not exist and is at first retried each second.
const TWO_NAMES: &str = "[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"localhost:PORT\"\n\
     [entrypoints.nowhere]\nlisten = \"127.0.0.1:0\"\nto = \"nowhere.invalid:9\"\n";

/// A coracle whose thread creation fails from the `nth` thread on.
fn with_threads_below(nth: usize) -> Command {
    let mut command = Command::new("strace");
    let inject = format!("inject=clone3,clone:error=EAGAIN:when={nth}+");
    command.args([
        "-D",
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=clone3,clone",
        "-e",
        &inject,
    ]);
    command.arg(binary());
    command
}

/// The names of its threads, sorted, once each has its own: a thread names itself, and until then it
/// has that of the process.
fn named_threads(coracle: &Coracle) -> BTreeSet<String> {
    until("every thread has its name", || {
        let threads = coracle.threads();
        let names: BTreeSet<String> = threads.iter().cloned().collect();
        (names.len() == threads.len()).then_some(names)
    })
}

#[test]
fn lookups_and_stop_work_without_new_threads() {
    if !has_tool("strace") {
        return;
    }
    let to = backend::start();
    let config = TWO_NAMES.replace("PORT", &to.port().to_string());
    // As many as it starts with, and no more.
    let threads = named_threads(&Coracle::start(&config));
    let lookups = threads.iter().filter(|name| name.starts_with("look-up"));
    assert_eq!(lookups.count(), 2, "one for each name: {threads:?}");
    // It briefly starts two more to probe whether threads are available.
    let mut coracle = Coracle::start_by(with_threads_below(threads.len() + 2), &config);
    let mut client = TcpStream::connect(coracle.address("e")).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.write_all(&Script::Hold.request(0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    let mut client = TcpStream::connect(coracle.address("nowhere")).unwrap();
    client.set_read_timeout(Some(support::DEADLINE)).unwrap();
    client.read_exact(&mut [0]).unwrap_err();
    coracle.logged("cannot resolve the name: ");
    assert_eq!(
        named_threads(&coracle),
        threads,
        "no thread came, and none went"
    );
    coracle.signal(Signal::TERM);
    assert_eq!(coracle.wait().code(), Some(0));
}

#[test]
fn startup_without_lookup_threads_fails_with_one_line() {
    if !has_tool("strace") {
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[admin]\nlisten = \"off\"\n").unwrap();
    file.write_all(TWO_NAMES.replace("PORT", "9").as_bytes())
        .unwrap();
    // The first ones belong to others.
    let told = (2..10).find_map(|n| {
        let mut command = with_threads_below(n);
        command.arg("run").arg("-c").arg(file.path());
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        told.contains("look-ups").then_some(told)
    });
    let told = told.expect("the lookup threads are missing");
    let lines: Vec<_> = told
        .lines()
        .filter(|line| line.contains("look-ups"))
        .collect();
    assert_eq!(lines.len(), 1, "{told}");
    assert!(lines[0].contains("raise the limit of processes"), "{told}");
    assert!(!told.contains("panicked"), "{told}");
}
