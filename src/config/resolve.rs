//! Turns a [`Draft`] into a [`Config`]: looks up services, reports listeners that conflict, and
//! names the entrypoints of the command line.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::access::{DraftAccess, ReadFile};
use super::address::Listen;
use super::diagnostic::{Collector, Span, did_you_mean, in_header, shown};
use super::draft::{Draft, DraftEntrypoint, DraftListen, DraftService, Prologue, Target};
use super::forward::Forward;
use super::lint::{self, OfService, Origins};
use super::model::{
    AtLimit, ClientLimits, Config, Entrypoint, OnRemoved, Route, Server, Service, SocketAccess,
    defaults,
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
                origin: origin.clone(),
            }],
            reuse_port: false,
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
        let routes = routes.collect();
        let listen = entry.listen.into_iter().map(|it| (it.listen, it.origin));
        let (listen, origins) = listen.unzip();
        listens.push(origins);
        entrypoints.push(Entrypoint {
            name: entry.name,
            listen,
            reuse_port: entry.reuse_port,
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
        let dual = address.ip() == IpAddr::from([0; 16]);
        let who = "the admin endpoint".to_owned();
        claims.add(address, who, dual, &draft.admin_at, out);
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
            origin,
        } in &entry.listen
        {
            match listen {
                Listen::Tcp { address, .. } => {
                    claims.add(*address, who.clone(), *dual, origin, out);
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
    for entry in &claims.dual {
        if let Some(other) = claims.any.get(&(entry.address.port(), false)) {
            let port = entry.address.port();
            let why = format!(
                "`*:{port}` takes IPv4 too, but {} listens on `{}`{}; write `[::]:{port}` for IPv6 alone",
                other.who,
                other.address,
                told_place(&other.origin, out)
            );
            report(out, &entry.origin, &why);
        }
    }
    let all = draft.entrypoints.iter_mut().flat_map(|it| &mut it.listen);
    for DraftListen { listen, .. } in all {
        if let Listen::Tcp { address, v6only } = listen {
            let v6_wildcard = address.is_ipv6() && address.ip().is_unspecified();
            *v6only = v6_wildcard && claims.any.contains_key(&(address.port(), false));
        }
    }
}

/// The addresses that TCP listeners have claimed so far. Addresses with port 0 never conflict.
#[derive(Default)]
struct Claims {
    exact: HashMap<SocketAddr, Claim>,
    /// The first wildcard listener of each port and family (`true` for IPv6).
    wildcard: HashMap<(u16, bool), Claim>,
    /// The first listener of each port and family.
    any: HashMap<(u16, bool), Claim>,
    /// The listeners written to take both IPv4 and IPv6.
    dual: Vec<Claim>,
}

#[derive(Clone)]
struct Claim {
    who: String,
    address: SocketAddr,
    origin: Origin,
}

impl Claims {
    fn add(
        &mut self,
        address: SocketAddr,
        who: String,
        dual: bool,
        origin: &Origin,
        out: &mut Collector<'_>,
    ) {
        if address.port() == 0 {
            return;
        }
        let family = (address.port(), address.is_ipv6());
        let is_wildcard = address.ip().is_unspecified();
        let same = self.exact.get(&address);
        let wider = self.wildcard.get(&family);
        let narrower = self.any.get(&family).filter(|_| is_wildcard);
        if let Some(other) = same.or(wider).or(narrower) {
            let place = told_place(&other.origin, out);
            let (who, at) = (&other.who, other.address);
            let why = match at == address {
                true => format!("{who} already listens on `{at}`{place}; change one"),
                false => format!("`{address}` and `{at}` of {who}{place} overlap; change one"),
            };
            report(out, origin, &why);
        }
        let claim = Claim {
            who,
            address,
            origin: origin.clone(),
        };
        if is_wildcard {
            let entry = self.wildcard.entry(family);
            entry.or_insert_with(|| claim.clone());
        }
        if is_wildcard && dual {
            self.dual.push(claim.clone());
        }
        let entry = self.any.entry(family);
        entry.or_insert_with(|| claim.clone());
        self.exact.entry(address).or_insert(claim);
    }
}
