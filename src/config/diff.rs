//! Describes in words what a reload changes. Does no I/O.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::hash::Hash;
use std::net::SocketAddr;

use super::by_name::ByName;
use super::diagnostic::{count, printable};
use super::keyword::word;
use super::model::{
    Access, Accounting, Admin, ClientLimits, Config, Entrypoint, Limits, Listening, Log, Metrics,
    Service, SocketAccess,
};
use super::size;
use super::words;

mod routes;
mod service;

/// What a reload changes: one line per change, in the order of the configuration.
///
/// Entrypoints and services are matched by name, servers by their label. A different order is not a
/// change, except for a service's servers, which take turns in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    lines: Vec<String>,
}

impl Changes {
    /// Compares the current configuration with its replacement. Ignores warnings.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        // Structs are destructured in full, so that a new field does not compile until it is
        // compared.
        let Config {
            drain_timeout,
            watch,
            admin,
            admin_hosts,
            log,
            metrics,
            entrypoints,
            services,
            limits,
            accounting,
            warnings: _,
        } = old;
        let (drain, now) = (*drain_timeout, new.drain_timeout);
        changes.value("drain_timeout:", &drain, &now, words::duration);
        changes.switch("watch:", *watch, new.watch);
        changes.admin(admin, &new.admin);
        changes.admin_hosts(admin_hosts, &new.admin_hosts);
        changes.limits(*limits, new.limits);
        changes.accounting(accounting.as_ref(), new.accounting.as_ref());
        changes.log(*log, new.log);
        changes.metrics(*metrics, new.metrics);
        let (old, new) = (ByName::of(old), ByName::of(new));
        changes.entrypoints(entrypoints, &old, &new);
        changes.services(services, &old, &new);
        changes
    }

    /// Returns `true` if nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the lines, which contain no control characters.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl Changes {
    fn add(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Adds `WHAT NEW instead of OLD` if they differ.
    fn value<T: PartialEq>(
        &mut self,
        what: impl Display,
        old: &T,
        new: &T,
        words: impl Fn(&T) -> String,
    ) {
        if old != new {
            self.add(format!("{what} {} instead of {}", words(new), words(old)));
        }
    }

    /// Adds `WHAT on` or `WHAT off` if they differ.
    fn switch(&mut self, what: impl Display, old: bool, new: bool) {
        if old != new {
            self.add(format!("{what} {}", words::on_or_off(new)));
        }
    }

    fn admin(&mut self, old: &Admin, new: &Admin) {
        let Admin {
            listen,
            open,
            token_file,
            socket,
        } = old;
        let (listen, now) = (listen.as_slice(), new.listen.as_slice());
        self.listeners("admin", listen, now, SocketAddr::to_string);
        self.switch("admin: open to other machines", *open, new.open);
        let now = &new.token_file;
        self.value("admin: token_file", token_file, now, words::path_or_none);
        let now = &new.socket;
        self.value("admin: socket", socket, now, words::control_socket);
    }

    fn admin_hosts(&mut self, old: &[String], new: &[String]) {
        for host in old.iter().filter(|it| !new.contains(it)) {
            self.add(format!("admin: no longer answers to {}", printable(host)));
        }
        for host in new.iter().filter(|it| !old.contains(it)) {
            self.add(format!("admin: also answers to {}", printable(host)));
        }
    }

    fn limits(&mut self, old: Limits, new: Limits) {
        let Limits {
            max_connections,
            memory,
        } = old;
        self.max_connections("limits", max_connections, new.max_connections);
        self.value("limits: memory", &memory, &new.memory, words::size_or_none);
    }

    fn accounting(&mut self, old: Option<&Accounting>, new: Option<&Accounting>) {
        self.switch("accounting", old.is_some(), new.is_some());
        let (default, Some(new)) = (Accounting::default(), new) else {
            return;
        };
        let Accounting {
            clients,
            ipv4_prefix,
            ipv6_prefix,
            quota,
            at_quota,
            quota_rate,
            file,
            save_interval,
        } = old.unwrap_or(&default);
        let key = |key: &str| format!("accounting: {key}");
        self.value(key("clients"), clients, &new.clients, u32::to_string);
        for (name, old, new) in [
            ("ipv4_prefix", ipv4_prefix, &new.ipv4_prefix),
            ("ipv6_prefix", ipv6_prefix, &new.ipv6_prefix),
        ] {
            self.value(key(name), old, new, u8::to_string);
        }
        self.value(key("quota"), quota, &new.quota, size::quota_words);
        self.value(key("at_quota"), at_quota, &new.at_quota, word);
        let rate = size::rate_words;
        self.value(key("quota_rate"), quota_rate, &new.quota_rate, rate);
        self.value(key("file"), file, &new.file, words::path_or_none);
        let now = &new.save_interval;
        self.value(key("save_interval"), save_interval, now, words::duration);
    }

    fn log(&mut self, old: Log, new: Log) {
        let Log { level, access } = old;
        self.value("log: level", &level, &new.level, words::level);
        self.switch("log: access log", access, new.access);
    }

    fn metrics(&mut self, old: Metrics, new: Metrics) {
        let Metrics { traefik } = old;
        self.switch("metrics: Traefik's names", traefik, new.traefik);
    }

    fn entrypoints(&mut self, was: &[Entrypoint], old: &ByName<'_>, new: &ByName<'_>) {
        for entrypoint in was {
            let name = entrypoint.name.as_str();
            if !new.entrypoints.contains_key(name) {
                let name = printable(name);
                let fate = words::fate(entrypoint.on_removed, new.config.drain_timeout);
                self.add(format!("entrypoint {name} removed: {fate}"));
            }
        }
        for is in &new.config.entrypoints {
            if let Some(was) = old.entrypoints.get(is.name.as_str()) {
                self.entrypoint(was, is, old, new);
                continue;
            }
            let name = printable(&is.name);
            let listens = words::list(&is.listen, words::listen);
            let to = target(is, new);
            let rules = match is.routes.len() {
                0 => String::new(),
                n => format!(", with {}", count(n, "rule")),
            };
            self.add(format!(
                "entrypoint {name} added: listens on {listens}, forwards to {to}{rules}"
            ));
        }
    }

    /// Compares two entrypoints of the same name.
    fn entrypoint(
        &mut self,
        was: &Entrypoint,
        is: &Entrypoint,
        old: &ByName<'_>,
        new: &ByName<'_>,
    ) {
        let Entrypoint {
            name,
            listen,
            reuse_port,
            listening:
                Listening {
                    interface,
                    backlog,
                    fast_open,
                },
            socket: SocketAccess { mode, group },
            service: _,
            routes: _,
            default_after,
            idle_timeout,
            half_close_timeout,
            keepalive,
            on_removed,
            max_connections,
            at_limit,
            access,
            per_client,
            bandwidth_per_connection,
            rate,
            at_refuse,
            accept_proxy,
            trusted,
            prologue_timeout,
        } = was;
        let who = format!("entrypoint {}", printable(name));
        self.listeners(&who, listen, &is.listen, words::listen);
        self.switch(format!("{who}: reuse_port"), *reuse_port, is.reuse_port);
        let key = |key: &str| format!("{who}: {key}");
        let now = &is.listening;
        let any = words::interface;
        self.value(key("interface"), interface, &now.interface, any);
        self.value(key("backlog"), backlog, &now.backlog, u32::to_string);
        self.switch(key("fast_open"), *fast_open, now.fast_open);
        let now = &is.socket;
        self.value(key("socket_mode"), mode, &now.mode, words::mode);
        self.value(key("socket_group"), group, &now.group, words::group);
        self.forwards(&who, was, is, old, new);
        self.routes(&who, (was, old), (is, new));
        for (name, old, new) in [
            ("idle_timeout", idle_timeout, &is.idle_timeout),
            (
                "half_close_timeout",
                half_close_timeout,
                &is.half_close_timeout,
            ),
            ("keepalive", keepalive, &is.keepalive),
            ("default_after", default_after, &is.default_after),
        ] {
            self.value(key(name), old, new, words::duration_or_none);
        }
        let now = &is.on_removed;
        self.value(key("on_removed"), on_removed, now, word);
        self.max_connections(&who, *max_connections, is.max_connections);
        self.value(key("at_limit"), at_limit, &is.at_limit, word);
        self.switch(key("accept_proxy"), *accept_proxy, is.accept_proxy);
        self.value(key("trusted"), trusted, &is.trusted, |it| {
            words::trusted(it)
        });
        let (old, new) = (prologue_timeout, &is.prologue_timeout);
        self.value(key("prologue_timeout"), old, new, words::duration);
        self.access(&who, access.as_deref(), is.access.as_deref());
        let ClientLimits {
            max_connections,
            rate: client_rate,
            bandwidth,
            ipv6_prefix,
        } = per_client;
        let now = &is.per_client;
        let what = key("max_connections_per_client");
        let most = &now.max_connections;
        self.value(what, max_connections, most, words::number_or_none);
        let what = key("client_ipv6_prefix");
        self.value(what, ipv6_prefix, &now.ipv6_prefix, u8::to_string);
        for (name, was, is) in [
            ("connection_rate_per_client", client_rate, &now.rate),
            ("connection_rate", rate, &is.rate),
        ] {
            self.value(key(name), was, is, words::rate_or_none);
        }
        for (name, was, is) in [
            (
                "bandwidth_per_connection",
                bandwidth_per_connection,
                &is.bandwidth_per_connection,
            ),
            ("bandwidth_per_client", bandwidth, &now.bandwidth),
        ] {
            self.value(key(name), was, is, size::bandwidth_words);
        }
        self.value(key("at_refuse"), at_refuse, &is.at_refuse, word);
    }

    /// Compares who may connect.
    fn access(&mut self, who: &str, was: Option<&Access>, is: Option<&Access>) {
        let (Some(was), Some(is)) = (was, is) else {
            return match (was, is) {
                (None, Some(is)) => self.add(format!("{who}: access {}", words::access(is))),
                (Some(_), None) => self.add(format!("{who}: access for everybody")),
                _ => {}
            };
        };
        let Access {
            allow,
            deny,
            allow_file,
            deny_file,
            list,
        } = was;
        let before = self.lines.len();
        let key = |key: &str| format!("{who}: {key}");
        self.value(key("allow"), allow, &is.allow, words::networks);
        self.value(key("deny"), deny, &is.deny, words::networks);
        for (name, was, is) in [
            ("allow_file", allow_file, &is.allow_file),
            ("deny_file", deny_file, &is.deny_file),
        ] {
            self.value(key(name), was, is, words::file_or_none);
        }
        // The order of a list is no change of what it says.
        if self.lines.len() == before && *list != is.list {
            let (was, is) = (list.rules(), is.list.rules());
            let files = match was == is {
                true => format!("other networks in the files, {is} with those here"),
                false => format!("{is} networks with those in the files instead of {was}"),
            };
            self.add(key(&files));
        }
    }

    /// Compares where an entrypoint forwards to. Changes inside a service that is not its own are
    /// left to [`Changes::services`].
    fn forwards(
        &mut self,
        who: &str,
        was: &Entrypoint,
        is: &Entrypoint,
        old: &ByName<'_>,
        new: &ByName<'_>,
    ) {
        let (from, to) = (old.service(was), new.service(is));
        let is_own = |entrypoint: &Entrypoint, side: &ByName<'_>| {
            entrypoint.service.is_some_and(|index| side.is_own(index))
        };
        let owns = (is_own(was, old), is_own(is, new));
        if from.map(|it| &it.name) == to.map(|it| &it.name) {
            if let (Some(from), Some(to), (true, true)) = (from, to, owns) {
                self.service(who, from, to, true);
            }
            return;
        }
        let instead = match (from, to, owns) {
            (Some(from), Some(_), (false, false)) => printable(&from.name),
            _ => target(was, old),
        };
        let to = target(is, new);
        self.add(format!("{who}: forwards to {to} instead of {instead}"));
    }

    fn services(&mut self, was: &[Service], old: &ByName<'_>, new: &ByName<'_>) {
        // An entrypoint's own service comes and goes with the entrypoint or its `to`, which
        // already has a line.
        for (index, service) in was.iter().enumerate() {
            let name = service.name.as_str();
            if !new.services.contains_key(name) && !old.is_own(index) {
                self.add(format!("service {} removed", printable(name)));
            }
        }
        for (index, is) in new.config.services.iter().enumerate() {
            let who = format!("service {}", printable(&is.name));
            match old.services.get(is.name.as_str()) {
                Some(was) if old.is_own(*was) && new.is_own(index) => {}
                Some(was) => self.service(&who, &old.config.services[*was], is, false),
                None if new.is_own(index) => {}
                None => {
                    let kind = if is.servers.len() == 1 {
                        "server"
                    } else {
                        "servers"
                    };
                    let servers = words::list(&is.servers, words::server);
                    self.add(format!("{who} added: {kind} {servers}"));
                }
            }
        }
    }

    fn listeners<T: Eq + Hash>(
        &mut self,
        who: &str,
        old: &[T],
        new: &[T],
        words: impl Fn(&T) -> String,
    ) {
        let (gone, come) = (missing(old, new), missing(new, old));
        if let ([gone], [come]) = (gone.as_slice(), come.as_slice()) {
            self.value(format!("{who}: listens on"), *gone, *come, words);
            return;
        }
        for it in gone {
            self.add(format!("{who}: no longer listens on {}", words(it)));
        }
        let also = if old.is_empty() { "now" } else { "also" };
        for it in come {
            self.add(format!("{who}: {also} listens on {}", words(it)));
        }
    }
}

/// Describes where an entrypoint forwards to: a server if the service is its own, otherwise a
/// service.
fn target(entrypoint: &Entrypoint, side: &ByName<'_>) -> String {
    let Some(index) = entrypoint.service else {
        return "no service by default".to_owned();
    };
    let service = &side.config.services[index];
    match side.is_own(index) {
        true => words::list(&service.servers, words::server),
        false => format!("service {}", printable(&service.name)),
    }
}

/// Returns the items of `all` that are not in `others`, or occur there less often.
fn missing<'c, T: Eq + Hash>(all: &'c [T], others: &[T]) -> Vec<&'c T> {
    let mut left: HashMap<&T, usize> = HashMap::new();
    for other in others {
        *left.entry(other).or_default() += 1;
    }
    let is_missing = |it: &&T| match left.get_mut(*it) {
        Some(n) if *n > 0 => {
            *n -= 1;
            false
        }
        _ => true,
    };
    all.iter().filter(is_missing).collect()
}

#[cfg(test)]
mod tests;
