//! An admin endpoint over a hand-made state, with a thread that stands in for the loop.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use coracle::admin::{ClientLimits, Endpoint, Handle};
use coracle::state::{Branch, Entrypoint, Guard, Peer, Protocol, Server, Service, Shared};
use smol::LocalExecutor;
use smol::channel::Sender;

use super::{DEADLINE, kernel, until};

/// Limits that no test reaches by being slow.
pub const PATIENT: ClientLimits = ClientLimits {
    clients: 32,
    control_clients: 8,
    request: DEADLINE,
    idle: DEADLINE,
    answer: DEADLINE,
    order: DEADLINE,
    patience: DEADLINE,
    silence: DEADLINE,
    linger: DEADLINE,
};

type Job = Box<dyn FnOnce(&mut World) + Send>;

/// The endpoint. Dropping it stops it.
pub struct Admin {
    pub address: SocketAddr,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What lives on the loop's thread.
pub struct World {
    pub shared: Rc<Shared>,
    pub entrypoints: Vec<Rc<Entrypoint>>,
    pub service: Rc<Service>,
    pub servers: Vec<Rc<Server>>,
    /// The entries that the test has put into the set.
    pub guards: Vec<Guard>,
    /// Runs between two jobs.
    pub executor: Rc<LocalExecutor<'static>>,
    /// The endpoint itself, which has its own thread.
    pub endpoint: Option<Handle>,
}

impl World {
    /// Puts a connection into the set.
    pub fn insert(&mut self, entrypoint: usize) -> &Guard {
        let guard = Guard::insert(
            &self.shared.conns,
            &self.entrypoints[entrypoint],
            Some(&Branch::only(&self.service)),
            Peer::Unix,
            Instant::now(),
        );
        self.guards.push(guard);
        self.guards.last().unwrap()
    }
}

impl Admin {
    /// An endpoint with the entrypoints `ssh` and `web`, and the service `nas` with two servers.
    pub fn start(limits: ClientLimits) -> Self {
        let names = ["ssh", "web"].map(str::to_owned);
        Self::with_entrypoints(limits, names.to_vec())
    }

    /// The same with entrypoints of these names.
    pub fn with_entrypoints(limits: ClientLimits, names: Vec<String>) -> Self {
        let (jobs, queue) = smol::channel::unbounded::<Job>();
        let (tell_address, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let shared = Rc::<Shared>::default();
            let (registry, now) = (&shared.registry, Instant::now());
            let entrypoint = |name: &String| registry.entrypoint(name, Protocol::Tcp, now);
            let entrypoints = names.iter().map(entrypoint).collect();
            let service = registry.service("nas");
            let servers = ["10.0.0.1:22", "nas.local:22"];
            let servers = servers.map(|name| registry.server(&service, name)).into();
            let endpoint = Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let endpoint = endpoint.with_limits(limits);
            let endpoint = endpoint.with_hosts(vec!["listed.example".to_owned()]);
            tell_address.send(endpoint.local_addr().unwrap()).unwrap();
            let (endpoint, answers) = endpoint.start().unwrap();
            let executor = Rc::new(LocalExecutor::new());
            executor.spawn(answers.answer(shared.clone())).detach();
            let mut world = World {
                shared,
                entrypoints,
                service,
                servers,
                guards: Vec::new(),
                executor: executor.clone(),
                endpoint: Some(endpoint),
            };
            smol::block_on(executor.run(async {
                while let Ok(job) = queue.recv().await {
                    job(&mut world);
                }
            }));
        });
        Self {
            address: address.recv().unwrap(),
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    /// Runs `job` on the loop's thread, between two of its steps.
    pub fn with<T: Send + 'static>(&self, job: impl FnOnce(&mut World) -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |world| done.send(job(world)).unwrap());
        self.jobs.as_ref().unwrap().send_blocking(job).unwrap();
        result.recv().unwrap()
    }

    /// Waits until the endpoint has read everything sent and every runnable task has run: then an
    /// answered client is idle, and one in the middle of a request is not.
    pub fn settle(&self) {
        until("everything sent is read", || {
            let sockets = kernel::tcp_sockets().into_iter();
            let mut own = sockets.filter(|socket| socket.local_port == self.address.port());
            own.all(|socket| socket.receive_queue == 0).then_some(())
        });
        // Between two jobs the executor runs what is ready.
        (0..2).for_each(|_| self.with(|_| ()));
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.take().unwrap();
        let ended = thread.join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}
