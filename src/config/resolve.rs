//! Turns a [`Draft`] into a [`Config`]: looks up services, reports listeners that conflict, and
//! names the entrypoints of the command line.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;

use super::access::{DraftAccess, ReadFile};
use super::address::Listen;
use super::diagnostic::{Collector, Span, did_you_mean, in_header, shown};
use super::draft::{Draft, DraftEntrypoint, DraftListen, DraftService, Prologue, Target};
use super::forward::Forward;
use super::lint::{self, OfService, Origins};
use super::model::{
    AtLimit, ClientLimits, Config, Entrypoint, Listening, OnRemoved, Route, Server, Service,
    SocketAccess, defaults,
};
use super::origin::{Origin, report, told_place};
use crate::state::{AtRefuse, Bandwidth};

/// Adds the entrypoints of the command line, each with a unique name.
pub(super) fn add_forwards(draft: &mut Draft, forwards: &[Forward]) {
    let services = draft.services.iter();
    let services = services.map(|draft| draft.service.name.clone());
    let entrypoints = draft.entrypoints.iter().map(|entry| entry.name.clone());
    let mut taken: HashSet<String> = services.chain(entrypoints).collect();
    for forward in forwards {
        let first = forward.name();
        let names = (2..).map(|n| format!("{first}-{n}"));
        let mut names = std::iter::once(first.clone()).chain(names);
        let name = names
            .find(|name| !taken.contains(name))
            .unwrap_or(first.clone());
        taken.insert(name.clone());
        let origin = Origin::Flag(format!("-L {}", forward.text));
        let service = Service::new(name.clone(), vec![Server::at(forward.to.clone())]);
        draft.entrypoints.push(DraftEntrypoint {
            name,
            listen: vec![DraftListen {
                listen: forward.listen.clone(),
                dual: forward.is_dual(),
                takes_both: false,
                origin: origin.clone(),
            }],
            reuse_port: false,
            listening: Listening::default(),
            socket: SocketAccess::default(),
            target: Target::Own(Box::new(DraftService {
                service,
                origin: origin.clone(),
                servers: vec![origin],
            })),
            routes: Vec::new(),
            default_after: None,
            idle_timeout: None,
            half_close_timeout: None,
            keepalive: Some(defaults::KEEPALIVE),
            on_removed: OnRemoved::default(),
            max_connections: None,
            at_limit: AtLimit::default(),
            access: DraftAccess::default(),
            per_client: ClientLimits::default(),
            bandwidth_per_connection: Bandwidth::default(),
            rate: None,
            at_refuse: AtRefuse::default(),
            prologue: Prologue::default(),
        });
    }
}

/// Returns the position of the service that is called `name` in the text at `span`.
fn find(
    named: &HashMap<String, usize>,
    services: &[DraftService],
    name: &str,
    span: Span,
    out: &mut Collector<'_>,
) -> usize {
    if let Some(index) = named.get(name) {
        return *index;
    }
    let known = services.iter().map(|draft| draft.service.name.as_str());
    let mut advice = did_you_mean(name, known.take(named.len()));
    if advice.is_empty() {
        let name = in_header(name);
        advice = format!("; add a table [services.{name}] with `servers`");
    }
    let why = format!("unknown service `{}`{advice}", shown(name));
    report(out, &Origin::File(span), &why);
    0
}

/// Builds the configuration, which is valid only if nothing was reported to `out`. `read` reads the
/// files that it names.
pub(super) fn resolve(mut draft: Draft, read: ReadFile<'_>, out: &mut Collector<'_>) -> Config {
    if draft.entrypoints.is_empty() && !draft.meant_entrypoints {
        report(
            out,
            &Origin::Default,
            "no entrypoints; add a table [entrypoints.NAME] with `listen` and `to`",
        );
    }
    separate_listeners(&mut draft, out);
    protect_admin(&draft, out);
    let mut services = draft.services;
    let named: HashMap<String, usize> = services
        .iter()
        .enumerate()
        .map(|(index, draft)| (draft.service.name.clone(), index))
        .collect();
    let mut entrypoints = Vec::new();
    let mut listens = Vec::new();
    for entry in draft.entrypoints {
        let service = match entry.target {
            Target::Own(draft) => {
                if named.contains_key(&draft.service.name) {
                    let name = shown(&draft.service.name);
                    report(
                        out,
                        &draft.origin,
                        &format!(
                            "`to` creates a service `{name}`, but there is a table [services.{}] too; rename one, or write service = \"{name}\" instead",
                            in_header(&draft.service.name)
                        ),
                    );
                }
                services.push(*draft);
                Some(services.len() - 1)
            }
            Target::Named(name, span) => Some(find(&named, &services, &name, span, out)),
            Target::Unread => Some(0),
            Target::None => None,
        };
        let routes = entry.routes.into_iter().map(|route| Route {
            name: route.name,
            rule: route.rule,
            service: route
                .service
                .map_or(0, |(name, span)| find(&named, &services, &name, span, out)),
        });
        let routes: Vec<_> = routes.collect();
        let to = service
            .into_iter()
            .chain(routes.iter().map(|it| it.service));
        let mut to: Vec<_> = to.collect();
        to.sort_unstable();
        to.dedup();
        for service in to.into_iter().filter_map(|to| services.get(to)) {
            fit_ranges(&entry.name, &entry.listen, &service.service, out);
        }
        let listen = entry.listen.into_iter().map(|it| (it.listen, it.origin));
        let (listen, origins) = listen.unzip();
        listens.push(origins);
        entrypoints.push(Entrypoint {
            name: entry.name,
            listen,
            reuse_port: entry.reuse_port,
            listening: entry.listening,
            socket: entry.socket,
            service,
            routes,
            default_after: entry.default_after,
            idle_timeout: entry.idle_timeout,
            half_close_timeout: entry.half_close_timeout,
            keepalive: entry.keepalive,
            on_removed: entry.on_removed,
            max_connections: entry.max_connections,
            at_limit: entry.at_limit,
            access: entry.access.build(read, out),
            per_client: entry.per_client,
            bandwidth_per_connection: entry.bandwidth_per_connection,
            rate: entry.rate,
            at_refuse: entry.at_refuse,
            accept_proxy: entry.prologue.accept_proxy,
            trusted: entry.prologue.trusted,
            prologue_timeout: entry.prologue.timeout,
        });
    }
    let origins = services.iter_mut().map(|draft| OfService {
        name: draft.origin.clone(),
        servers: std::mem::take(&mut draft.servers),
    });
    let origins = Origins {
        services: origins.collect(),
        listens,
    };
    let config = Config {
        drain_timeout: draft.drain_timeout,
        watch: draft.watch,
        admin: draft.admin,
        admin_hosts: draft.admin_hosts,
        limits: draft.limits,
        accounting: draft.accounting,
        log: draft.log,
        metrics: draft.metrics,
        entrypoints,
        services: services.into_iter().map(|draft| draft.service).collect(),
        warnings: None,
    };
    // After an error, findings that follow from it would only confuse.
    if out.is_empty() {
        lint::check(&config, &origins, out);
    }
    config
}

/// Reports ports of servers that cannot belong to those of the entrypoint in order.
fn fit_ranges(name: &str, listen: &[DraftListen], service: &Service, out: &mut Collector<'_>) {
    let mut servers = service.servers.iter();
    let Some(server) = servers.find(|it| it.address.is_range()) else {
        return;
    };
    let count = |ports: RangeInclusive<u16>| usize::from(ports.end() - ports.start()) + 1;
    let of_server = server.address.ports().map_or(0, count);
    let (name, to) = (shown(name), shown(&server.address.to_string()));
    let others = servers.filter(|it| it.address.is_range());
    if let Some(other) = others
        .filter_map(|it| it.address.ports())
        .map(count)
        .find(|n| *n != of_server)
    {
        let why = format!(
            "entrypoint `{name}`: `{to}` has {of_server} ports, and another server has {other}; give each as many"
        );
        return report(
            out,
            &listen
                .first()
                .map_or(Origin::Default, |it| it.origin.clone()),
            &why,
        );
    }
    let mut seen: Vec<RangeInclusive<u16>> = Vec::new();
    for it in listen {
        let ports = it.listen.ports();
        let n = ports.clone().map_or(0, count);
        let text = shown(&it.listen.to_string());
        let why = match ports {
            Some(ports) if n == of_server => {
                let overlaps = |other: &&RangeInclusive<u16>| {
                    **other != ports && other.start() <= ports.end() && ports.start() <= other.end()
                };
                let found = seen.iter().find(overlaps).cloned();
                seen.push(ports);
                match found {
                    None => continue,
                    Some(other) => format!(
                        "`{text}` shares only some ports with {}-{}, so a port would stand for two of `{to}`; give one an entrypoint of its own",
                        other.start(),
                        other.end()
                    ),
                }
            }
            _ => format!(
                "`{to}` has {of_server} ports, and `{text}` of entrypoint `{name}` {}; give both as many, or the server one port",
                match n {
                    0 => "has none".to_owned(),
                    n => format!("has {n}"),
                }
            ),
        };
        report(out, &it.origin, &why);
    }
}

/// Reports an admin endpoint that other machines can reach without a token and without the
/// operator's consent.
fn protect_admin(draft: &Draft, out: &mut Collector<'_>) {
    let admin = &draft.admin;
    let may = admin.open || admin.token_file.is_some();
    if let Some(address) = admin.listen.filter(|_| !may && admin.is_beyond_loopback()) {
        let port = address.port();
        let why = format!(
            "other machines can reach `{address}`, and the admin endpoint has no token; listen on `127.0.0.1:{port}`, set token_file in [admin] of the configuration, or allow it with open = true there"
        );
        report(out, &draft.admin_at, &why);
    }
}

/// Reports listeners that cannot be bound together. `[::]` leaves IPv4 to another listener on the
/// same port.
fn separate_listeners(draft: &mut Draft, out: &mut Collector<'_>) {
    let mut claims = Claims::default();
    if let Some(address) = draft.admin.listen {
        let claim = Claim {
            who: "the admin endpoint".to_owned(),
            address,
            text: address.to_string(),
            origin: draft.admin_at.clone(),
        };
        let dual = address.ip() == IpAddr::from([0; 16]);
        claims.add(claim, address.port(), dual.then_some(Dual::Written), out);
    }
    let mut paths: HashMap<PathBuf, (String, Origin)> = HashMap::new();
    if let Some(path) = draft.admin.socket.path() {
        let who = "the control socket".to_owned();
        let origin = draft.admin_socket_at.clone();
        paths.insert(path.to_owned(), (who, origin));
    }
    for entry in &draft.entrypoints {
        let who = format!("entrypoint `{}`", shown(&entry.name));
        for DraftListen {
            listen,
            dual,
            takes_both,
            origin,
        } in &entry.listen
        {
            match listen {
                Listen::Tcp { address, last, .. } => {
                    let claim = Claim {
                        who: who.clone(),
                        address: *address,
                        text: listen.to_string(),
                        origin: origin.clone(),
                    };
                    let dual = match (dual, takes_both) {
                        (true, _) => Some(Dual::Written),
                        (_, true) => Some(Dual::Set),
                        _ => None,
                    };
                    claims.add(claim, *last, dual, out);
                }
                Listen::Unix(path) => {
                    if let Some((who, at)) = paths.get(path) {
                        let place = told_place(at, out);
                        let why = format!("{who} already listens on `{listen}`{place}; change one");
                        report(out, origin, &why);
                    }
                    paths
                        .entry(path.clone())
                        .or_insert_with(|| (who.clone(), origin.clone()));
                }
            }
        }
    }
    for (claim, last, dual) in &claims.dual {
        let mut ports = claim.address.port()..=*last;
        let other = ports.find_map(|port| claims.any.get(&(port, false)));
        if let Some(other) = other {
            let ports = claim.text.trim_start_matches("[::]");
            let (both, remedy) = match dual {
                Dual::Written => (
                    format!("*{ports}"),
                    format!("write `[::]{ports}` for IPv6 alone"),
                ),
                Dual::Set => (claim.text.clone(), "remove only_v6 = false".to_owned()),
            };
            let why = format!(
                "`{both}` takes IPv4 too, but {} listens on `{}`{}; {remedy}",
                other.who,
                other.text,
                told_place(&other.origin, out)
            );
            report(out, &claim.origin, &why);
        }
    }
    for entry in &mut draft.entrypoints {
        for it in &mut entry.listen {
            leave_ipv4(it, &claims, out);
        }
    }
}

/// Has `[::]` leave IPv4 clients to other listeners on the same port.
fn leave_ipv4(it: &mut DraftListen, claims: &Claims, out: &mut Collector<'_>) {
    let text = it.listen.to_string();
    let Listen::Tcp {
        address,
        last,
        v6only,
    } = &mut it.listen
    else {
        return;
    };
    if *v6only || !address.is_ipv6() || !address.ip().is_unspecified() {
        return;
    }
    let taken = |port: &u16| claims.any.contains_key(&(*port, false));
    let first = address.port();
    *v6only = (first..=*last).any(|port| taken(&port));
    let other = (first..=*last).find_map(|port| claims.any.get(&(port, false)));
    // Reported already if it must take IPv4.
    if let Some(other) = other
        && !it.dual
        && !it.takes_both
        && !(first..=*last).all(|port| taken(&port))
    {
        let why = format!(
            "`{text}` takes IPv4 too, but not on the port of `{}` of {}{}; set only_v6 = true, or change one",
            other.text,
            other.who,
            told_place(&other.origin, out)
        );
        report(out, &it.origin, &why);
    }
}

/// The addresses that TCP listeners have claimed so far. Addresses with port 0 never conflict.
#[derive(Default)]
struct Claims {
    exact: HashMap<SocketAddr, Rc<Claim>>,
    /// The first wildcard listener of each port and family (`true` for IPv6).
    wildcard: HashMap<(u16, bool), Rc<Claim>>,
    /// The first listener of each port and family.
    any: HashMap<(u16, bool), Rc<Claim>>,
    /// The listeners that must take both IPv4 and IPv6, each with its last port.
    dual: Vec<(Rc<Claim>, u16, Dual)>,
}

/// Why a listener must take both IPv4 and IPv6.
#[derive(Clone, Copy)]
enum Dual {
    /// It was written as `*` or without a host.
    Written,
    /// By only_v6 = false.
    Set,
}

struct Claim {
    who: String,
    /// With the first port.
    address: SocketAddr,
    /// The address and the ports, as shown.
    text: String,
    origin: Origin,
}

impl Claims {
    /// Claims the ports of `claim` up to `last`, and reports the first that another one has.
    fn add(&mut self, claim: Claim, last: u16, dual: Option<Dual>, out: &mut Collector<'_>) {
        let ip = claim.address.ip();
        let claim = Rc::new(claim);
        if claim.address.port() == 0 {
            return;
        }
        let is_wildcard = ip.is_unspecified();
        let mut reported = false;
        for port in claim.address.port()..=last {
            let address = SocketAddr::new(ip, port);
            let family = (port, ip.is_ipv6());
            let same = self.exact.get(&address);
            let wider = self.wildcard.get(&family);
            let narrower = self.any.get(&family).filter(|_| is_wildcard);
            if let Some(other) = same.or(wider).or(narrower)
                && !reported
            {
                reported = true;
                let place = told_place(&other.origin, out);
                let (who, at, text) = (&other.who, &other.text, &claim.text);
                let why = match at == text {
                    true => format!("{who} already listens on `{at}`{place}; change one"),
                    false => format!("`{text}` and `{at}` of {who}{place} overlap; change one"),
                };
                report(out, &claim.origin, &why);
            }
            if is_wildcard {
                let entry = self.wildcard.entry(family);
                entry.or_insert_with(|| claim.clone());
            }
            let entry = self.any.entry(family);
            entry.or_insert_with(|| claim.clone());
            self.exact.entry(address).or_insert(claim.clone());
        }
        if let Some(dual) = dual.filter(|_| is_wildcard) {
            self.dual.push((claim, last, dual));
        }
    }
}
