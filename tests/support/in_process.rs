//! A proxy on a thread of this process, so that a test can break its state.

use std::cell::OnceCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use coracle::config::Config;
use coracle::proxy::Proxy;
use coracle::state::{Branch, Guard, Hook, Shared};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use smol::channel::Sender;
use smol::stream::StreamExt;

use super::metrics::scrape;
use super::{backend, kernel, until};

/// A proxy in this process, whose state a test can break.
pub struct InProcess {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stop: Sender<&'static str>,
    thread: Option<JoinHandle<()>>,
}

impl InProcess {
    /// With one entrypoint `e`. `leak`: each connection leaves another entry behind that is never
    /// removed.
    pub fn start(leak: bool) -> Self {
        let to = backend::start();
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[entrypoints.e]\nlisten = \"127.0.0.1:0\"\nto = \"{to}\"\n"
        );
        let (tell, told) = channel();
        let (stop, stops) = smol::channel::bounded(2);
        let thread = thread::spawn(move || {
            let config = Config::parse("test.toml", &text, &[]).unwrap();
            let shared = Rc::<OnceCell<Rc<Shared>>>::default();
            let known = shared.clone();
            let leaking = Hook(Rc::new(move |conn| {
                let conns = &known.get().unwrap().conns;
                let now = Instant::now();
                let branch = Branch::only(conn.service().unwrap());
                let guard = Guard::insert(conns, &conn.entrypoint, Some(&branch), conn.peer(), now);
                std::mem::forget(guard);
            }));
            let mut proxy = Proxy::bind(&config).unwrap();
            if leak {
                proxy = proxy.hooked(leaking);
            }
            shared.set(proxy.shared().clone()).unwrap();
            tell.send((proxy.addresses("e")[0], proxy.admin_address().unwrap()))
                .unwrap();
            // It would wait for leaked entries forever.
            let stop = async move { stops.recv().await.unwrap_or("end") };
            let ends = smol::stream::once_future(stop).chain(smol::stream::repeat("now"));
            let _ = proxy.run(Box::pin(ends));
        });
        let (address, admin) = told.recv().unwrap();
        Self {
            address,
            admin,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let _ = self.stop.send_blocking("test");
        let thread = self.thread.take().unwrap();
        // With a leaked entry it waits forever; the process's exit ends it.
        if thread.is_finished() {
            thread.join().unwrap();
        }
    }
}

/// The socket of a connection whose entry has left, and the client's address: this process keeps
/// another descriptor of it.
///
/// If coracle has passed the server's end on before it closed its own descriptor, the kernel has
/// closed the socket as well. Then another connection is made.
pub fn socket_without_entry(proxy: &InProcess) -> (TcpStream, SocketAddr) {
    loop {
        let client = backend::hold(proxy.address);
        let kept = accepted_socket(&client);
        let peer = client.local_addr().unwrap();
        drop(client);
        until("the entry has left", || {
            let open = scrape(proxy.admin).sum("coracle_open_connections");
            (open == 0.0).then_some(())
        });
        if kernel::end(proxy.address.port(), peer.port()).is_some() {
            return (kept, peer);
        }
    }
}

/// A second descriptor, in this process, of the socket that is connected to `client`.
fn accepted_socket(client: &TcpStream) -> TcpStream {
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let wanted = client.local_addr().unwrap();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers: Vec<i32> = descriptors
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let sockets = numbers.into_iter().filter_map(|fd| {
        let fd = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok()?;
        let stream = TcpStream::from(fd);
        (stream.peer_addr().ok()? == wanted).then_some(stream)
    });
    sockets.into_iter().next().expect("the accepted socket")
}
