//! Checks a configuration as a whole: reports forwarding loops and warns about useless settings.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{Address, Listen};
use super::diagnostic::{Collector, shown};
use super::host::Host;
use super::model::{Config, Entrypoint};
use super::origin::{Origin, report, warn};
use crate::state::Sorted;

/// Where the parts of a configuration were written, in the order of the parts in [`Config`].
pub(super) struct Origins {
    pub(super) services: Vec<OfService>,
    /// For each entrypoint, the origin of each address that it listens on.
    pub(super) listens: Vec<Vec<Origin>>,
}

/// Where a service was written.
pub(super) struct OfService {
    pub(super) name: Origin,
    pub(super) servers: Vec<Origin>,
}

/// Reports forwarding loops as errors, and everything else as warnings.
pub(super) fn check(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    unused_services(config, origins, out);
    unreachable_listeners(config, origins, out);
    unreachable_servers(config, origins, out);
    admin_as_server(config, origins, out);
    control_as_server(config, origins, out);
    entrypoints_as_servers(config, origins, out);
}

fn unused_services(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    let entrypoints = config.entrypoints.iter();
    let used: HashSet<usize> = entrypoints.flat_map(Entrypoint::services).collect();
    for (index, service) in config.services.iter().enumerate() {
        if !used.contains(&index) {
            let name = shown(&service.name);
            let why = format!(
                "no entrypoint uses service `{name}`; remove it, or write service = \"{name}\" in an entrypoint"
            );
            warn(out, &origins.services[index].name, &why);
        }
    }
}

fn unreachable_listeners(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    for (entrypoint, origins) in config.entrypoints.iter().zip(&origins.listens) {
        for (listen, origin) in entrypoint.listen.iter().zip(origins) {
            if let Listen::Tcp { address, .. } = listen
                && let Some(kind) = no_host(address.ip())
            {
                let why = format!(
                    "`{listen}` is {kind}, which clients cannot connect to; listen on an address of this machine, or on all with `*:{}`",
                    address.port()
                );
                warn(out, origin, &why);
            }
        }
    }
}

fn unreachable_servers(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    for_each_server(config, |service, index, server| {
        if let Address::Tcp {
            host: Host::Ip(ip), ..
        } = server
            && let Some(kind) = no_host(*ip)
        {
            let origin = &origins.services[service].servers[index];
            let why = format!("`{server}` is {kind}, which no server can use");
            warn(out, origin, &why);
        }
    });
}

fn admin_as_server(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    let Some(address) = config.admin.listen else {
        return;
    };
    let admin = Listen::Tcp {
        address,
        last: address.port(),
        v6only: false,
    };
    let ours = Ours::of(config);
    for_each_server(config, |service, index, server| {
        if ours.is_at(server, &admin) {
            let origin = &origins.services[service].servers[index];
            let why = format!(
                "`{server}` is the admin endpoint; anyone who can reach the entrypoint can read it"
            );
            warn(out, origin, &why);
        }
    });
}

fn control_as_server(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    let Some(control) = config.admin.socket.path() else {
        return;
    };
    for_each_server(config, |service, index, server| {
        if matches!(server, Address::Unix(path) if path == control) {
            let origin = &origins.services[service].servers[index];
            let why = format!(
                "`{}` is the control socket; anyone who can reach the entrypoint can send commands to coracle",
                shown(&server.to_string())
            );
            warn(out, origin, &why);
        }
    });
}

/// Checks for servers that are entrypoints: a loop never ends, and a chain is probably unintended.
fn entrypoints_as_servers(config: &Config, origins: &Origins, out: &mut Collector<'_>) {
    let steps = steps(config);
    let mut onward: HashMap<usize, Vec<usize>> = HashMap::new();
    for step in &steps {
        onward.entry(step.from).or_default().push(step.to);
    }
    // Each server is reported once, for the worst case it leads to.
    let mut worst: Sorted<(usize, usize), (Leads, &Step)> = Sorted::new();
    for step in &steps {
        let leads = step.leads(&onward);
        let known = worst.or_insert((step.service, step.server), (leads, step));
        if leads > known.0 {
            *known = (leads, step);
        }
    }
    for ((service, index), (leads, step)) in worst {
        let server = &config.services[service].servers[index].address;
        let origin = &origins.services[service].servers[index];
        let name = |index: usize| shown(&config.entrypoints[index].name);
        let (from, to) = (name(step.from), name(step.to));
        match leads {
            Leads::Onward => {
                let why = format!(
                    "`{server}` is entrypoint `{to}`, so these connections pass through coracle twice"
                );
                warn(out, origin, &why);
            }
            Leads::Back => {
                let why = format!(
                    "`{server}` is entrypoint `{to}`, which leads back to entrypoint `{from}` forever; use another server"
                );
                report(out, origin, &why);
            }
            Leads::ToItself => {
                let why = format!(
                    "entrypoint `{from}` listens on `{server}` itself and would forward to itself forever; use another server"
                );
                report(out, origin, &why);
            }
        }
    }
}

fn for_each_server(config: &Config, mut visit: impl FnMut(usize, usize, &Address)) {
    for (service, configured) in config.services.iter().enumerate() {
        for (index, server) in configured.servers.iter().enumerate() {
            visit(service, index, &server.address);
        }
    }
}

/// An entrypoint, its service, and a server of that service that is itself an entrypoint, all by
/// position.
struct Step {
    from: usize,
    service: usize,
    server: usize,
    to: usize,
}

/// Where a step leads, with the worst case last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leads {
    Onward,
    Back,
    ToItself,
}

impl Step {
    /// Returns where this step leads. `onward` maps the start of each step to its ends.
    fn leads(&self, onward: &HashMap<usize, Vec<usize>>) -> Leads {
        if self.from == self.to {
            return Leads::ToItself;
        }
        let mut seen = HashSet::from([self.to]);
        let mut ends = vec![self.to];
        while let Some(at) = ends.pop() {
            if at == self.from {
                return Leads::Back;
            }
            let next = onward.get(&at).into_iter().flatten().copied();
            ends.extend(next.filter(|to| seen.insert(*to)));
        }
        Leads::Onward
    }
}

fn steps(config: &Config) -> Vec<Step> {
    let ours = Ours::of(config);
    let mut by_port: HashMap<u16, Vec<(usize, &Listen)>> = HashMap::new();
    for (index, entrypoint) in config.entrypoints.iter().enumerate() {
        for listen in &entrypoint.listen {
            for port in listen.ports().unwrap_or(UNIX..=UNIX) {
                by_port.entry(port).or_default().push((index, listen));
            }
        }
    }
    let mut steps = Vec::new();
    for (from, entrypoint) in config.entrypoints.iter().enumerate() {
        let servers = entrypoint.services().flat_map(|service| {
            let servers = config.services[service].servers.iter().enumerate();
            servers.map(move |(server, it)| (service, server, &it.address))
        });
        for (service, server, address) in servers {
            let ports = match address {
                Address::Unix(_) => UNIX..=UNIX,
                // Its ports are only known at run time.
                Address::Srv(_) => continue,
                Address::Tcp { port, last, .. } => *port..=*last,
            };
            let candidates = ports.filter_map(|port| by_port.get(&port)).flatten();
            let leads_to = candidates.filter(|(_, listen)| ours.is_at(address, listen));
            let mut to: Vec<usize> = leads_to.map(|(to, _)| *to).collect();
            // Ranges meet at many ports.
            to.dedup();
            steps.extend(to.into_iter().map(|to| Step {
                from,
                service,
                server,
                to,
            }));
        }
    }
    steps
}

/// Stands for Unix sockets, since no server has port 0.
const UNIX: u16 = 0;

/// The addresses of this machine that the configuration reveals.
struct Ours(HashSet<IpAddr>);

impl Ours {
    fn of(config: &Config) -> Self {
        let listens = config.entrypoints.iter().flat_map(|it| &it.listen);
        let ips = listens.filter_map(|listen| match listen {
            Listen::Tcp { address, .. } => Some(address.ip()),
            Listen::Unix(_) => None,
        });
        Self(ips.collect())
    }

    /// Returns whether connecting to `server` reaches `listen`. Names other than `localhost` never
    /// match, as they are only resolved when dialled.
    fn is_at(&self, server: &Address, listen: &Listen) -> bool {
        match (server, listen) {
            (Address::Unix(path), Listen::Unix(own)) => path == own,
            (
                Address::Tcp { host, port, last },
                Listen::Tcp {
                    address,
                    last: own_last,
                    v6only,
                },
            ) => {
                let ips = ips(host);
                let mut ips = ips.into_iter();
                let meet = *port <= *own_last && address.port() <= *last;
                meet && ips.any(|ip| self.accepts(address.ip(), *v6only, ip))
            }
            _ => false,
        }
    }

    fn accepts(&self, own: IpAddr, v6only: bool, ip: IpAddr) -> bool {
        let has_family = own.is_ipv4() == ip.is_ipv4() || (own.is_ipv6() && !v6only);
        let is_here = ip.is_loopback() || self.0.contains(&ip);
        own == ip || (own.is_unspecified() && has_family && is_here)
    }
}

/// Returns the addresses of a host that are known without a lookup. Connecting to `0.0.0.0` or
/// `[::]` connects to loopback.
fn ips(host: &Host) -> Vec<IpAddr> {
    let loopback = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ];
    match host {
        Host::Ip(ip) => match ip.to_canonical() {
            ip if ip.is_unspecified() => vec![loopback[usize::from(ip.is_ipv6())]],
            ip => vec![ip],
        },
        Host::Name(name) if name.eq_ignore_ascii_case("localhost") => loopback.to_vec(),
        Host::Name(_) => Vec::new(),
    }
}

/// Describes an address that no host can have; returns `None` for any other.
fn no_host(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        ip if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        // RFC 1122, section 3.2.1.3, and RFC 1112, section 4.
        IpAddr::V4(ip) if ip.octets()[0] >= 240 => Some("a reserved address"),
        IpAddr::V4(ip) if ip.octets()[0] == 0 && !ip.is_unspecified() => Some("a reserved address"),
        _ => None,
    }
}
