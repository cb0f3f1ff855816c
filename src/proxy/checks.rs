//! The health checks: one task for each server of a service that has checks.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::Task;
use smol::future::FutureExt;

use super::ground::Ground;
use super::services;
use crate::config::{self, Address, Config, Health, HealthKind, Host, SendProxy, Service};
use crate::conn::{self, Target};
use crate::net::{Check, Expect, Expression, Failure, Limit, Probed, To, probe};
use crate::state::{Backoff, Outgoing, Schedule, Server, ServerId, Slots, Sorted, Throttle};
use crate::wire::proxy_header::Client;

/// Checks have at most this part of the open files. More of them wait in order.
const PART: usize = 4;

/// The pauses while this machine lacks what a check needs.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The checks of the configuration in force. Dropping them ends them.
#[derive(Debug, Default)]
pub(super) struct Checks {
    checked: Sorted<ServerId, Checked>,
    common: OnceCell<Rc<Common>>,
}

/// A server that is checked.
#[derive(Debug)]
struct Checked {
    server: Rc<Server>,
    address: Address,
    health: Health,
    send_proxy: Option<SendProxy>,
    outgoing: Option<Outgoing>,
    /// Checks it until dropped.
    _task: Task<()>,
}

/// What all checks share.
#[derive(Debug)]
struct Common {
    slots: Rc<Slots>,
    /// Bounds the log lines about what this machine lacks.
    complaints: Throttle,
}

impl Common {
    fn new(open_files: usize) -> Rc<Self> {
        Rc::new(Self {
            slots: Slots::new(slots(open_files)),
            complaints: Throttle::new(Duration::from_secs(60)),
        })
    }
}

/// Returns how many checks of these servers may run at once, each with one descriptor.
pub(super) fn at_once<'a>(
    config: &Config,
    targets: impl Iterator<Item = &'a Rc<Target>>,
    open_files: usize,
) -> usize {
    let checked = config.services.iter().filter(|it| it.health.is_some());
    let checked: HashSet<_> = checked.map(|it| it.name.as_str()).collect();
    let servers = targets.filter(|it| checked.contains(&*it.server.service.name));
    servers.count().min(slots(open_files))
}

fn slots(open_files: usize) -> usize {
    (open_files / PART).max(4)
}

impl Checks {
    /// Checks the servers that `config` says, as it says. A server for which that is unchanged
    /// keeps its task, and with it its schedule.
    ///
    /// `targets` are all servers of `config`.
    pub(super) fn follow<'a>(
        &mut self,
        ground: &Ground,
        config: &Config,
        targets: impl Iterator<Item = &'a Rc<Target>>,
    ) {
        let mut before = std::mem::take(&mut self.checked);
        let mut services = Sorted::new();
        for service in &config.services {
            services.insert(service.name.as_str(), service);
        }
        let mut compiled = Compiled::default();
        let mut unchecked = Vec::new();
        for target in targets {
            let id = target.server.id();
            let known = before.remove(&id);
            let name = &*target.server.service.name;
            let service = services.get(name);
            let Some((service, health)) = service.and_then(|it| Some((*it, it.health.as_ref()?)))
            else {
                unchecked.extend(known);
                continue;
            };
            let is_same = |it: &Checked| {
                it.health == *health
                    && it.send_proxy == service.send_proxy
                    && it.outgoing == outgoing(service)
                    && it.address == *target.by_name()
            };
            let checked = match known.filter(is_same) {
                Some(known) => known,
                None => match compiled.check(service, health, target.by_name()) {
                    Ok(check) => self.start(ground, target, service, health, check),
                    Err(why) => {
                        // The configuration would have been refused.
                        log::error!(service = name; "cannot check its servers: {why}; please report this");
                        continue;
                    }
                },
            };
            self.checked.insert(id, checked);
        }
        let now = ground.reactor.now();
        for Checked { server, .. } in unchecked {
            if let Some(change) = server.unchecked(now) {
                conn::report(&ground.shared.conns, &server, change, now);
            }
        }
        // What is left was removed from the configuration: nobody needs to read about it.
        for Checked { server, .. } in before.into_values() {
            let _ = server.unchecked(now);
        }
    }

    fn start(
        &self,
        ground: &Ground,
        target: &Rc<Target>,
        service: &Service,
        health: &Health,
        check: Rc<Check>,
    ) -> Checked {
        let outgoing = outgoing(service);
        let open_files = || ground.capacity.get().open_files;
        let common = self.common.get_or_init(|| Common::new(open_files()));
        let checking = Checking {
            ground: ground.clone(),
            target: target.clone(),
            common: common.clone(),
            check,
            timeout: health.timeout,
            port: health.port.map(NonZeroU16::get),
            outgoing: outgoing.clone(),
        };
        let schedule = Schedule::new(health.interval, health.jitter);
        Checked {
            server: target.server.clone(),
            address: target.by_name().clone(),
            health: health.clone(),
            send_proxy: service.send_proxy,
            outgoing,
            _task: ground.spawn(checking.run(schedule)),
        }
    }
}

/// The checks of the services: an expression is compiled once, however many servers there are.
#[derive(Default)]
struct Compiled<'a>(Sorted<&'a str, Rc<Check>>);

impl<'a> Compiled<'a> {
    fn check(
        &mut self,
        service: &'a config::Service,
        health: &Health,
        address: &Address,
    ) -> Result<Rc<Check>, String> {
        let (send, expect) = match &health.kind {
            HealthKind::Tcp { send, expect } => (send, expect),
            HealthKind::Http { path, host, status } => {
                let own = || host_field(address, health.port.map(NonZeroU16::get));
                let host = host.clone().unwrap_or_else(own);
                let check = Check::http(path, &host, status.0..=status.1);
                return Ok(Rc::new(introduced(check, service.send_proxy)));
            }
        };
        let name = service.name.as_str();
        if let Some(check) = self.0.get(name) {
            return Ok(check.clone());
        }
        let expect = match expect {
            None => None,
            Some(config::Expect::Bytes(bytes)) => Some(Expect::Bytes(bytes.clone())),
            Some(config::Expect::Regex(text)) => Some(Expect::Match(Expression::new(text)?)),
        };
        let send = send.clone();
        let check = Check::Tcp { send, expect };
        let check = Rc::new(introduced(check, service.send_proxy));
        self.0.insert(name, check.clone());
        Ok(check)
    }
}

/// Returns the check that begins with the header of the PROXY protocol, if there is to be one: it is
/// the proxy's own connection.
fn introduced(check: Check, send_proxy: Option<SendProxy>) -> Check {
    match send_proxy {
        None => check,
        Some(it) => check.preceded_by(services::version(it).header(Client::Local)),
    }
}

/// Returns how the checks of a service leave, if that is not left to the kernel.
fn outgoing(service: &Service) -> Option<Outgoing> {
    let outgoing = service.outgoing.without_client();
    (!outgoing.is_default()).then_some(outgoing)
}

/// Returns the value of the field `Host` for a server: without its port if that is HTTP's own.
fn host_field(address: &Address, port: Option<u16>) -> String {
    match address {
        Address::Unix(_) => "localhost".to_owned(),
        // Only until its servers are known, whose names have the port.
        Address::Srv(name) => name.clone(),
        Address::Tcp {
            host, port: own, ..
        } => {
            let host = match host {
                Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
                host => host.to_string(),
            };
            match port.unwrap_or(*own) {
                80 => host,
                port => format!("{host}:{port}"),
            }
        }
    }
}

/// One server's checks.
struct Checking {
    ground: Ground,
    target: Rc<Target>,
    common: Rc<Common>,
    check: Rc<Check>,
    timeout: Duration,
    /// The port to check instead of the server's own.
    port: Option<u16>,
    /// How the connection leaves, if that is not left to the kernel.
    outgoing: Option<Outgoing>,
}

impl Checking {
    async fn run(self, schedule: Schedule) {
        let reactor = &self.ground.reactor;
        let mut next = schedule.first(reactor.now(), fastrand::u32(..));
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            reactor.sleep_until(next).await;
            let slot = self.common.slots.clone().take().await;
            let begun = reactor.now();
            // Boxed, so that a server that is not being checked takes less memory.
            let Probed { outcome, leaving } = Box::pin(self.once(begun)).await;
            let ended = reactor.now();
            let is_good = outcome.is_ok();
            let outcome = match &outcome {
                Ok(()) => Ok(()),
                Err(Failure::Server(why)) => Err(why.as_str()),
                Err(Failure::Lack(why)) => {
                    drop(slot);
                    self.complain(why, ended);
                    next = ended + pauses.pause();
                    continue;
                }
            };
            pauses.reset();
            self.report(outcome, begun, ended);
            if let Some(leaving) = leaving {
                leaving.leave().await;
            }
            drop(slot);
            let in_doubt = !is_good && self.target.server.is_healthy();
            next = schedule.next(begun, reactor.now(), in_doubt, fastrand::u32(..));
        }
    }

    async fn once(&self, begun: Instant) -> Probed {
        let reactor = &self.ground.reactor;
        let limit = Limit {
            deadline: begun + self.timeout,
            timeout: self.timeout,
        };
        let resolved;
        let to = match &self.target.address {
            Address::Unix(path) => To::Unix(path),
            Address::Tcp {
                host: Host::Ip(ip),
                port,
                ..
            } => To::Tcp(std::slice::from_ref(ip), self.port.unwrap_or(*port)),
            Address::Tcp { .. } | Address::Srv(_) => match self.resolve(limit).await {
                Ok(found) => {
                    resolved = found;
                    To::Tcp(&resolved.0, self.port.unwrap_or(resolved.1))
                }
                Err(why) => {
                    let why = format!("cannot resolve the name: {why}");
                    return Probed {
                        outcome: Err(Failure::Server(why)),
                        leaving: None,
                    };
                }
            },
        };
        probe(reactor, to, self.outgoing.as_ref(), &self.check, limit).await
    }

    /// Returns the addresses and the port of the server's name.
    async fn resolve(&self, limit: Limit) -> Result<(Rc<[IpAddr]>, u16), Rc<str>> {
        let late = async {
            self.ground.reactor.sleep_until(limit.deadline).await;
            Err("the resolver has not answered yet".into())
        };
        let own = self.target.address.port().unwrap_or_default();
        match &self.target.name {
            Some(name) => self.ground.names.endpoint(name, own).or(late).await,
            None => Err("the name is not in the configuration".into()),
        }
    }

    fn report(&self, outcome: Result<(), &str>, begun: Instant, ended: Instant) {
        let server = &self.target.server;
        let took = ended.saturating_duration_since(begun);
        let (service, name) = (&*server.service.name, server.name());
        match outcome {
            Ok(()) => log::debug!(service, server = name, took:? = took; "check succeeded"),
            Err(why) => log::debug!(service, server = name, took:? = took; "check failed: {why}"),
        }
        if let Some(change) = server.checked(outcome, took, ended) {
            conn::report(&self.ground.shared.conns, server, change, ended);
        }
    }

    /// Says that this machine lacks something, so that the server could not be checked.
    fn complain(&self, why: &str, now: Instant) {
        if self.common.complaints.admit(now).is_some() {
            let server = &self.target.server;
            log::warn!(service = &*server.service.name, server = server.name();
                "cannot check servers, retrying: {why}; this machine lacks that, not the server: raise its limit, or free some");
        }
    }
}
