//! Compares two services of the same name: their settings, servers and health checks.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

use super::Changes;
use crate::config::diagnostic::printable;
use crate::config::keyword::{CheckKind, word};
use crate::config::model::{Health, HealthKind, Server, Service};
use crate::config::{size, words};
use crate::state::Outgoing;

impl Changes {
    /// Compares two services. `who` is the service, or the entrypoint that owns it.
    pub(super) fn service(&mut self, who: &str, old: &Service, new: &Service, is_own: bool) {
        let Service {
            name: _,
            servers,
            balance,
            connect_timeout,
            dial_timeout,
            retries,
            max_fails,
            fail_window,
            when_down,
            on_down,
            queue,
            queue_timeout,
            health,
            slow_start,
            resolve,
            resolve_interval,
            send_proxy,
            bandwidth,
            outgoing:
                Outgoing {
                    bind,
                    transparent,
                    mark,
                    dscp,
                },
        } = old;
        match (is_own, servers.as_slice(), new.servers.as_slice()) {
            (true, [old], [new]) if old.label() != new.label() => {
                let what = format!("{who}: forwards to");
                self.value(what, &old.label(), &new.label(), |it| printable(it));
            }
            _ => self.servers(who, servers, &new.servers),
        }
        let key = |key: &str| format!("{who}: {key}");
        self.value(key("balance"), balance, &new.balance, word);
        for (name, old, new) in [
            ("connect_timeout", connect_timeout, &new.connect_timeout),
            ("dial_timeout", dial_timeout, &new.dial_timeout),
            ("fail_window", fail_window, &new.fail_window),
            ("queue_timeout", queue_timeout, &new.queue_timeout),
            ("slow_start", slow_start, &new.slow_start),
            ("resolve_interval", resolve_interval, &new.resolve_interval),
        ] {
            self.value(key(name), old, new, words::duration);
        }
        self.value(key("retries"), retries, &new.retries, words::retries);
        self.value(key("max_fails"), max_fails, &new.max_fails, u32::to_string);
        self.value(key("when_down"), when_down, &new.when_down, word);
        self.value(key("on_down"), on_down, &new.on_down, word);
        self.value(key("resolve"), resolve, &new.resolve, word);
        let now = &new.send_proxy;
        self.value(key("send_proxy"), send_proxy, now, words::send_proxy);
        let now = &new.bandwidth;
        self.value(key("bandwidth"), bandwidth, now, size::bandwidth_words);
        let now = &new.outgoing;
        self.value(key("bind"), bind, &now.bind, words::bind);
        self.switch(key("transparent"), *transparent, now.transparent);
        self.value(key("mark"), mark, &now.mark, words::number_or_none);
        self.value(key("dscp"), dscp, &now.dscp, words::dscp);
        self.value(key("queue"), queue, &new.queue, u32::to_string);
        let who = key("health check");
        match (health, &new.health) {
            (None, None) => {}
            (None, Some(new)) => self.add(format!("{who} added: {}", words::health(new))),
            (Some(_), None) => self.add(format!("{who} removed")),
            (Some(old), Some(new)) => self.health(&who, old, new),
        }
    }

    /// Compares two lists of servers, which are matched by their labels.
    fn servers(&mut self, who: &str, old: &[Server], new: &[Server]) {
        let (old, new) = (labelled(old), labelled(new));
        let was: HashMap<_, _> = old.iter().cloned().collect();
        let is: HashSet<_> = new.iter().map(|(label, _)| label).collect();
        let gone: Vec<_> = old.iter().filter(|(it, _)| !is.contains(it)).collect();
        let moved = old.iter().zip(&new).any(|(old, new)| old.0 != new.0);
        if gone.is_empty() && old.len() == new.len() && moved {
            self.add(format!("{who}: servers in another order"));
        }
        for ((label, _), _) in gone {
            self.add(format!("{who}: server {} removed", printable(label)));
        }
        for (key, new) in &new {
            let server = format!("{who}: server {}", printable(&key.0));
            match was.get(key) {
                Some(old) => self.server(&server, old, new),
                None => self.add(format!("{server} added{}", words::settings(new))),
            }
        }
    }

    /// Compares two servers with the same label.
    fn server(&mut self, who: &str, old: &Server, new: &Server) {
        let Server {
            address,
            name,
            weight,
            backup,
            max_connections,
        } = old;
        let key = |key: &str| format!("{who}: {key}");
        let address_words = |it: &_| printable(&format!("{it}"));
        self.value(key("address"), address, &new.address, address_words);
        self.value(key("name"), name, &new.name, words::text_or_none);
        self.value(key("weight"), weight, &new.weight, u16::to_string);
        self.switch(key("backup"), *backup, new.backup);
        self.max_connections(who, *max_connections, new.max_connections);
    }

    /// Compares the limits of what `who` names.
    pub(super) fn max_connections(
        &mut self,
        who: &str,
        old: Option<NonZeroU32>,
        new: Option<NonZeroU32>,
    ) {
        let what = format!("{who}: max_connections");
        self.value(what, &old, &new, words::number_or_none);
    }

    fn health(&mut self, who: &str, old: &Health, new: &Health) {
        let Health {
            kind,
            interval,
            jitter,
            timeout,
            rise,
            fall,
            port,
        } = old;
        let key = |key: &str| format!("{who}: {key}");
        self.check(who, kind, &new.kind);
        for (name, old, new) in [
            ("every", interval, &new.interval),
            ("jitter", jitter, &new.jitter),
            ("timeout", timeout, &new.timeout),
        ] {
            self.value(key(name), old, new, words::duration);
        }
        self.value(key("rise"), rise, &new.rise, NonZeroU32::to_string);
        self.value(key("fall"), fall, &new.fall, NonZeroU32::to_string);
        self.value(key("port"), port, &new.port, |port| {
            port.map_or("the server's".to_owned(), |port| port.to_string())
        });
    }

    fn check(&mut self, who: &str, old: &HealthKind, new: &HealthKind) {
        let key = |key: &str| format!("{who}: {key}");
        match (old, new) {
            (
                HealthKind::Tcp { send, expect },
                HealthKind::Tcp {
                    send: now_send,
                    expect: now_expect,
                },
            ) => {
                self.value(key("sends"), send, now_send, |it| words::bytes(it));
                self.value(key("expects"), expect, now_expect, words::expect);
            }
            (
                HealthKind::Http { path, host, status },
                HealthKind::Http {
                    path: now_path,
                    host: now_host,
                    status: now_status,
                },
            ) => {
                self.value(key("path"), path, now_path, |it| printable(it));
                self.value(key("host"), host, now_host, |host| {
                    let host = host.as_deref();
                    host.map_or("the server's".to_owned(), printable)
                });
                self.value(key("status"), status, now_status, words::status);
            }
            (old, new) => {
                let kind = |check: &HealthKind| word(&CheckKind::of(check));
                self.add(format!("{who}: {} instead of {}", kind(new), kind(old)));
            }
        }
    }
}

/// Returns servers with their labels, and how many before have the same one: none in a valid
/// configuration.
fn labelled(servers: &[Server]) -> Vec<((String, usize), &Server)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let with_label = |server| {
        let label = Server::label(server);
        let n = seen.entry(label.clone()).or_default();
        *n += 1;
        ((label, *n), server)
    };
    servers.iter().map(with_label).collect()
}

#[cfg(test)]
mod tests;
